//! Time that jumps: a host that was suspended, or a process that was, finds hours gone between two instructions.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{advance, sleep};
use weir_pool::fake::{Boot, Script};

use crate::support::{Anonymous, World, ms, settle};

/// Requests come and go, and between them time jumps, by up to a day; each one gets a VM, and in the end the pool is as
/// small as it may be.
async fn jump(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::one(Script::boot(Boot::Ready(ms(5))), |pool| {
        pool.scale.min = 1;
        pool.scale.max = 8;
        pool.queue.timeout = Duration::from_secs(3600);
        // What a jump takes away from a start is no fault of the VM's.
        pool.start_timeout = Duration::from_secs(100 * 3600);
    });
    let mut leases = Vec::new();
    for _ in 0..60 {
        match rng.random_range(0..4) {
            0 => advance(Duration::from_secs(rng.random_range(1..86_400))).await,
            1 if !leases.is_empty() => drop(leases.swap_remove(rng.random_range(0..leases.len()))),
            _ => leases.push(world.pool().lease().await.expect("there is room, or soon will be")),
        }
        settle().await;
        leases.truncate(20);
        let alive = world.launcher.alive("p");
        assert!(
            leases.iter().all(|lease: &weir_pool::Lease| alive.contains(&lease.vm())),
            "stopped under a lease"
        );
        assert!((1..=8).contains(&alive.len()), "{} VMs", alive.len());
    }
    leases.clear();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.alive(), 1);
    assert_eq!(
        world.sum("weir_vm_exits_total{"),
        world.metric(r#"weir_vm_exits_total{pool="p",reason="stopped"}"#)
    );
    drop(world.lease().await);
}

#[tokio::test(start_paused = true)]
async fn hours_that_are_gone_cost_no_request_and_no_vm_in_use() {
    for seed in 0..12 {
        jump(seed).await;
    }
}
