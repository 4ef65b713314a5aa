//! `wake`: a pool at zero, one GET, time to the last byte, through the whole proxy: by clone and, in turn, by cold boot;
//! then 50 pools at once.
//!
//! The pool that boots has a health check that no clone of it passes, so it never gets a template.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::Instant;

use load::{Client, add_pool, header};
use support::Weir;

const ROUNDS: usize = 200;
/// Pools woken at once, and how often.
const POOLS: usize = 50;
const BURSTS: usize = 10;

const SCALE: &str = "min = 0\nmax = 1\nidle_timeout = \"20ms\"";
const HEALTHY: &str = "image = \"hello\"\nhealth = { path = \"/\" }";
const UNHEALTHY: &str = "image = \"hello\"\nhealth = { path = \"/not-there\" }";

fn main() {
    one_at_a_time();
    at_once();
}

fn one_at_a_time() {
    let mut config = header("");
    add_pool(&mut config, "clone", HEALTHY, SCALE);
    add_pool(&mut config, "cold", UNHEALTHY, SCALE);
    let mut weir = Weir::start(&config);
    weir.logged("template ready");
    weir.logged("no template, vms boot");
    let mut times = [Vec::new(), Vec::new()];
    let mut clones = 0;
    for round in 0..=ROUNDS {
        for (pool, times) in ["clone", "cold"].into_iter().zip(&mut times) {
            let begin = Instant::now();
            Client::new(weir.http).get(pool, "/");
            let took = begin.elapsed().as_secs_f64() * 1e3;
            // At zero again: its process is reaped.
            weir.logged("vm stopped");
            let start = weir.access_line()["start"].as_str().expect("how its vm started").to_owned();
            // The first round warms the machine up.
            if round > 0 {
                times.push(took);
                clones += usize::from(pool == "clone" && start == "clone");
                assert!(pool == "clone" || start == "cold", "{pool} by {start}");
            }
        }
    }
    let [clone, cold] = &mut times;
    println!("wake: {clones} of {ROUNDS} by clone");
    support::print_percentiles("wake: GET from zero to last byte, by clone", "ms", clone);
    support::print_percentiles("wake: GET from zero to last byte, by cold boot", "ms", cold);
}

fn at_once() {
    let mut config = header("");
    let names: Vec<String> = (0..POOLS).map(|number| format!("p{number}")).collect();
    names.iter().for_each(|name| add_pool(&mut config, name, HEALTHY, SCALE));
    let mut weir = Weir::start(&config);
    names.iter().for_each(|_| drop(weir.logged("template ready")));
    let mut rest = Vec::new();
    for burst in 0..BURSTS {
        let mut times = wake_all(weir.http, &names);
        let lines: Vec<_> = names.iter().map(|_| weir.access_line()).collect();
        let clones = lines.iter().filter(|line| line["start"] == "clone").count();
        names.iter().for_each(|_| drop(weir.logged("vm stopped")));
        if burst == 0 {
            // Nobody expected it: there were two spare children.
            println!("wake: the first {POOLS} at once, {clones} by clone");
            support::print_percentiles("wake: the first at once, GET to last byte", "ms", &mut times);
        } else {
            assert_eq!(clones, POOLS, "all by clone");
            rest.append(&mut times);
        }
    }
    support::print_percentiles("wake: 50 pools at once, GET to last byte", "ms", &mut rest);
}

/// Each pool's time to its last byte, counted from when the first one began.
fn wake_all(address: SocketAddr, names: &[String]) -> Vec<f64> {
    let ready = Barrier::new(names.len() + 1);
    std::thread::scope(|scope| {
        let client = |name| {
            let ready = &ready;
            move || {
                ready.wait();
                Client::new(address).get(name, "/");
                Instant::now()
            }
        };
        let clients: Vec<_> = names.iter().map(|name| scope.spawn(client(name))).collect();
        let begin = Instant::now();
        ready.wait();
        let ends = clients.into_iter().map(|client| client.join().expect("a client panicked"));
        ends.map(|end| (end - begin).as_secs_f64() * 1e3).collect()
    })
}
