//! Requests that kill VMs.

use std::time::Duration;

use tokio::time::sleep;
use weir_pool::fake::{Boot, Script};
use weir_pool::{Fingerprint, Lease, LeaseError, Pass};
use weir_vmm::ExitReason;

use crate::support::{World, ms, ready, settle};

const KILLER: Fingerprint = Fingerprint(1);
const SHED: &str = r#"weir_requests_shed_total{reason="quarantined"}"#;
const ENTRIES: &str = r#"weir_quarantine_entries{pool="p"}"#;

fn world() -> World {
    World::one(ready(), |pool| pool.quarantine.kills = 2)
}

fn panicked() -> ExitReason {
    ExitReason::Panicked("asked to".into())
}

/// A request with this fingerprint that is with a VM.
async fn send(world: &World, fingerprint: Fingerprint) -> (Lease, Pass) {
    let pass = world.pool().admit(|| fingerprint).unwrap();
    (world.lease().await, pass)
}

/// Ends the VM of these requests, which learn of it.
async fn end(world: &World, requests: Vec<(Fingerprint, Lease, Pass)>, reason: ExitReason) {
    world.launcher.crash(requests[0].1.vm(), reason);
    for (fingerprint, lease, pass) in requests {
        lease.gone().await;
        lease.lost(fingerprint, &pass);
    }
}

async fn kill(world: &World, reason: ExitReason) {
    let (lease, pass) = send(world, KILLER).await;
    // Long enough for no back-off.
    sleep(ms(1500)).await;
    end(world, vec![(KILLER, lease, pass)], reason).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_killed_so_many_vms_is_refused_and_others_are_served() {
    let world = world();
    kill(&world, panicked()).await;
    kill(&world, ExitReason::Died("signal 31 (SIGSYS): forbidden system call".into())).await;
    let refused = world.pool().admit(|| KILLER).unwrap_err();
    assert_eq!(refused, LeaseError::Quarantined { retry_after: Duration::from_secs(60) });
    assert_eq!((world.metric(SHED), world.metric(ENTRIES)), (1.0, 1.0));
    send(&world, Fingerprint(2)).await;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(world.metric(ENTRIES), 0.0, "also if nobody asks");
    world.pool().admit(|| KILLER).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_s_doing_is_not_blamed_on_any() {
    let world = world();
    for _ in 0..3 {
        kill(&world, ExitReason::Died("signal 9 (SIGKILL)".into())).await;
        kill(&world, ExitReason::Died("with its launcher".into())).await;
        kill(&world, ExitReason::Host("out of memory".into())).await;
    }
    assert_eq!(world.metric(ENTRIES), 0.0);
    world.pool().admit(|| unreachable!("nobody is suspected")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn bystanders_that_are_answered_elsewhere_are_spared() {
    let world = world();
    for round in 0..3 {
        let (lease, pass) = send(&world, KILLER).await;
        let (other, others_pass) = send(&world, Fingerprint(2)).await;
        assert_eq!(lease.vm(), other.vm());
        sleep(ms(1500)).await;
        let requests = vec![(KILLER, lease, pass), (Fingerprint(2), other, others_pass)];
        end(&world, requests, panicked()).await;
        for _ in 0..10 {
            let (_lease, pass) = send(&world, Fingerprint(2)).await;
            world.pool().acquit(&pass);
        }
        assert_eq!(world.pool().admit(|| KILLER).is_err(), round == 2, "{round}");
    }
    assert_eq!(world.metric(ENTRIES), 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_death_is_judged_before_the_request_can_be_sent_again() {
    let world = world();
    let mut vms = 0;
    // A client, or weir itself, that tries again and again.
    while let Ok(pass) = world.pool().admit(|| KILLER) {
        let lease = world.lease().await;
        vms += 1;
        world.launcher.crash(lease.vm(), panicked());
        lease.gone().await;
        lease.lost(KILLER, &pass);
        drop(lease);
    }
    assert_eq!(vms, 2);
}

#[tokio::test(start_paused = true)]
async fn one_whose_connection_breaks_just_before_the_end_is_a_suspect() {
    let world = world();
    for _ in 0..2 {
        let (lease, pass) = send(&world, KILLER).await;
        let (other, _) = send(&world, Fingerprint(2)).await;
        sleep(ms(1500)).await;
        lease.lost(KILLER, &pass);
        lease.suspect();
        world.launcher.crash(lease.vm(), panicked());
        drop(lease);
        other.gone().await;
        drop(other);
        settle().await;
    }
    assert!(world.pool().admit(|| KILLER).is_err());
}

#[tokio::test(start_paused = true)]
async fn vms_that_die_together_are_one_event() {
    let world = world();
    let mut requests = Vec::new();
    for _ in 0..8 {
        requests.push(send(&world, KILLER).await);
        settle().await;
    }
    sleep(ms(1500)).await;
    let alive = world.launcher.alive("p");
    assert!(alive.len() >= 2);
    alive.iter().for_each(|id| world.launcher.crash(*id, panicked()));
    for (lease, pass) in requests {
        lease.gone().await;
        lease.lost(KILLER, &pass);
    }
    world.pool().admit(|| KILLER).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_weir_stops_accuses_nobody() {
    let world = World::one(Script { stop: Some(ms(10)), ..Script::boot(Boot::Ready(ms(1))) }, |pool| {
        pool.quarantine.kills = 1;
    });
    let (lease, pass) = send(&world, KILLER).await;
    lease.lost(KILLER, &pass);
    lease.suspect();
    let vm = lease.vm();
    drop(lease);
    world.until(|now| now.stopping == 1).await;
    world.launcher.crash(vm, ExitReason::Exited(1));
    world.until(|now| now.total() == 0).await;
    assert_eq!(world.metric(ENTRIES), 0.0);
}
