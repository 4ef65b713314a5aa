//! Snapshots from the disk: whole ones come back, all others are refused.

mod disk;
mod file;

use std::os::unix::fs::FileExt;

use weir_vmm::memory::PAGE;

use super::super::pages;
use super::*;
use crate::fake;

const PAGES: u64 = 64;
/// Of a page.
const BYTES: usize = 4096;

fn host() -> Host {
    let part = |part: &str| part.to_owned();
    Host {
        vendor: part("Weir"),
        family: part("1"),
        model: part("2"),
        stepping: part("3"),
        flags: part("fpu sse"),
        kernel: part("6.1"),
    }
}

fn pool() -> Pool {
    Pool { memory: PAGES * PAGE, env: [("A".to_owned(), "b".to_owned())].into(), ..fake::pool("p") }
}

fn key() -> Key {
    Key::new(&pool(), [7; 32], &host())
}

/// A template with `state`, whose memory has these pages, each full of its byte.
fn template(state: &[u8], contents: impl IntoIterator<Item = (u64, u8)>) -> Template {
    let memory = pages::create("template", PAGES * PAGE).unwrap();
    for (page, byte) in contents {
        memory.write_all_at(&[byte; BYTES], page * PAGE).unwrap();
    }
    pages::freeze(&memory).unwrap();
    Template { memory, state: state.to_vec(), working_set: Vec::new() }
}

fn written(template: &Template, key: &Key) -> Vec<u8> {
    let mut file = Vec::new();
    format::write(&mut file, key, template).unwrap();
    file
}

/// Keys that differ from [`key`], each in what it says.
fn foreign() -> Vec<(&'static str, Key)> {
    let with = |change: &dyn Fn(&mut Key)| {
        let mut key = key();
        change(&mut key);
        key
    };
    vec![
        ("version of weir", with(&|key| key.weir.push('1'))),
        ("guest abi", with(&|key| key.abi += 1)),
        ("state format", with(&|key| key.state += 1)),
        ("cpu or kernel", with(&|key| key.host.vendor.push('x'))),
        ("cpu or kernel", with(&|key| key.host.family.push('1'))),
        ("cpu or kernel", with(&|key| key.host.model.push('1'))),
        ("cpu or kernel", with(&|key| key.host.stepping.push('1'))),
        ("cpu or kernel", with(&|key| key.host.flags.push_str(" avx"))),
        ("cpu or kernel", with(&|key| key.host.kernel.push('1'))),
        ("image", with(&|key| key.image[31] ^= 1)),
        ("memory size", with(&|key| key.memory += PAGE)),
        ("number of cpus", with(&|key| key.vcpus += 1)),
        ("pool", with(&|key| key.pool.push('q'))),
        ("port", with(&|key| key.port += 1)),
        ("environment", with(&|key| key.env.clear())),
        ("arguments", with(&|key| key.args.push("x".to_owned()))),
    ]
}
