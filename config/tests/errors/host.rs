//! Mistakes in `[host]`, and in what it and the pools say together.

use crate::{LISTENER, check};

#[test]
fn host() {
    let context = format!("{LISTENER}[host]\n");
    check(
        &context,
        &[
            ["network = '172.16.0.0/22'", ""],
            [
                "memory = '8'",
                r#"host.memory: "8" has no unit; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"#,
            ],
            ["memory = '16777216TiB'", r#"host.memory: "16777216TiB" is too large"#],
            ["snapshots = '/var/lib/weir'", ""],
            ["snapshots = ''", "host.snapshots: must not be empty"],
            ["snapshots = \"a\\u0000b\"", "host.snapshots: must not contain a NUL character"],
            ["snapshots = true", "host.snapshots: expected a string, found a boolean"],
            ["max_vms = 0", "host.max_vms: must be from 1 to 4294967295, is 0"],
            ["max_vms = -5", "host.max_vms: must be from 1 to 4294967295, is -5"],
            ["max_starts = 1", ""],
            ["max_starts = 4096", ""],
            ["max_starts = 0", "host.max_starts: must be from 1 to 4096, is 0"],
            ["max_starts = 4097", "host.max_starts: must be from 1 to 4096, is 4097"],
            ["max_vms = 1.5", "host.max_vms: expected an integer, found a float"],
            [
                "network = '10.88.0.0'",
                r#"host.network: "10.88.0.0" is no IPv4 network such as "10.88.0.0/16""#,
            ],
            [
                "network = '10.88.0.0/33'",
                r#"host.network: "10.88.0.0/33" is no IPv4 network such as "10.88.0.0/16""#,
            ],
            ["network = 'fd00::/64'", "host.network: fd00::/64 is IPv6; links to VMs are IPv4"],
            [
                "network = '10.88.0.1/16'",
                r#"host.network: 10.88.0.1/16 is an address within a network, did you mean "10.88.0.0/16"?"#,
            ],
            [
                "network = '10.0.0.0/23'",
                "host.network: 10.0.0.0/23 has room for 256 links (/31), max_vms is 512",
            ],
            ["network = '10.0.0.0/31'\nmax_vms = 1", ""],
            [
                "network = '10.0.0.0/32'\nmax_vms = 1",
                "host.network: 10.0.0.0/32 has room for 0 links (/31), max_vms is 1",
            ],
            [
                "max_vms = 32769",
                "host.network: 10.88.0.0/16 has room for 32768 links (/31), max_vms is 32769",
            ],
            ["network = '127.0.0.0/8'", "host.network: 127.0.0.0/8 overlaps 127.0.0.0/8, loopback addresses"],
            ["network = '126.0.0.0/7'", "host.network: 126.0.0.0/7 overlaps 127.0.0.0/8, loopback addresses"],
            [
                "network = '224.1.0.0/16'",
                "host.network: 224.1.0.0/16 overlaps 224.0.0.0/4, multicast addresses",
            ],
            ["network = '240.0.0.0/8'", "host.network: 240.0.0.0/8 overlaps 240.0.0.0/4, reserved addresses"],
            [
                "network = '0.0.0.0/0'",
                r#"host.network: 0.0.0.0/0 overlaps 0.0.0.0/8, "this network" addresses"#,
            ],
        ],
    );
}

#[test]
fn upgrades() {
    check(
        &format!("{LISTENER}[host]\n"),
        &[
            ["upgrade_timeout = '5s'", ""],
            [
                "upgrade_timeout = 30",
                "host.upgrade_timeout: expected a duration such as \"30s\", found an integer; units are ms, s, m, h",
            ],
        ],
    );
}

#[test]
fn pools_and_their_host() {
    check(
        LISTENER,
        &[
            [
                "[host]\nmemory = '48MiB'\n[pool.a]\nimage = 'x'\nscale.min = 2\n[pool.b]\nimage = 'x'\nscale.min = 1",
                "",
            ],
            [
                "[host]\nmemory = '47MiB'\n[pool.a]\nimage = 'x'\nscale.min = 2\n[pool.b]\nimage = 'x'\nscale.min = 1",
                "host.memory: 47MiB is less than the 48MiB of the VMs that pools keep (the most of each one's scale.min and scale.schedule)",
            ],
            [
                "[host]\nmax_vms = 2\n[pool.a]\nimage = 'x'\nscale.min = 2\n[pool.b]\nimage = 'x'\nscale.min = 1",
                "host.max_vms: 2 is less than the 3 VMs that pools keep (the most of each one's scale.min and scale.schedule)",
            ],
            [
                "[host]\nmemory = '8MiB'\n[pool.a]\nimage = 'x'\nscale.min = 2",
                "pool.a.memory: 16MiB is more than host.memory, which is 8MiB: no VM could start",
            ],
        ],
    );
}

#[test]
fn scheduled_minimums_and_their_host() {
    let schedule =
        |min: u32| format!("[[pool.a.scale.schedule]]\nfrom = '08:00'\nto = '18:00'\nmin = {min}\n");
    let keeps = "pools keep (the most of each one's scale.min and scale.schedule)";
    let pools = format!(
        "[pool.b]\nimage = 'x'\nscale.min = 1\n[pool.a]\nimage = 'x'\n[pool.a.scale]\nmin = 2\n{}{}",
        schedule(4),
        schedule(3),
    );
    check(
        &format!("{LISTENER}{pools}[host]\n"),
        &[
            ["max_vms = 5\nmemory = '80MiB'", ""],
            ["max_vms = 4", &format!("host.max_vms: 4 is less than the 5 VMs that {keeps}")],
            [
                "memory = '79MiB'",
                &format!("host.memory: 79MiB is less than the 80MiB of the VMs that {keeps}"),
            ],
        ],
    );
}
