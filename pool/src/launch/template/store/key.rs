//! What a snapshot depends on. Equal keys: a VM that booted here and now would be the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use weir_config::model::Pool;
use weir_vmm::machine::{ABI_VERSION, STATE_FORMAT};

use super::format::VERSION;
use super::host::Host;

/// How names of snapshots end.
const SUFFIX: &str = ".weir-snapshot";
/// What those that are being written have behind that.
const TEMPORARY: &str = ".tmp";

/// See the module's documentation. What a clone gets anew (its address, identity, entropy, clock, limits) is no part
/// of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    /// weir's version: what it puts into guest memory itself may change with it.
    pub(super) weir: String,
    pub(super) abi: u32,
    /// Format of the machine's state.
    pub(super) state: u32,
    pub(super) host: Host,
    /// SHA-256 of the image.
    pub(super) image: [u8; 32],
    /// Bytes.
    pub(super) memory: u64,
    pub(super) vcpus: u32,
    /// The pool's name: the guest was told it, like all that follows.
    pub(super) pool: String,
    pub(super) port: u16,
    pub(super) env: BTreeMap<String, String>,
    pub(super) args: Vec<String>,
}

impl Key {
    /// The key of `pool` with `image` on `host`.
    pub(super) fn new(pool: &Pool, image: [u8; 32], host: &Host) -> Self {
        Self {
            weir: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            state: STATE_FORMAT,
            host: host.clone(),
            image,
            memory: pool.memory,
            vcpus: pool.vcpus,
            pool: pool.name.clone(),
            port: pool.port,
            env: pool.env.clone(),
            args: pool.args.clone(),
        }
    }

    /// The name of the file: the pool's, for people, and a hash of everything.
    pub(super) fn file_name(&self) -> Result<String, postcard::Error> {
        let digest = Sha256::digest(postcard::to_stdvec(&(VERSION, self))?);
        let start = format!("{}-", self.pool);
        Ok(digest.iter().fold(start, |mut name, byte| {
            // Writing to a String does not fail.
            let _ = write!(name, "{byte:02x}");
            name
        }) + SUFFIX)
    }

    /// In what `other` differs, if it does.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            ("version of weir", self.weir == other.weir),
            ("guest abi", self.abi == other.abi),
            ("state format", self.state == other.state),
            ("cpu or kernel", self.host == other.host),
            ("image", self.image == other.image),
            ("memory size", self.memory == other.memory),
            ("number of cpus", self.vcpus == other.vcpus),
            ("pool", self.pool == other.pool),
            ("port", self.port == other.port),
            ("environment", self.env == other.env),
            ("arguments", self.args == other.args),
        ];
        parts.into_iter().find(|(_, same)| !same).map(|(part, _)| part)
    }
}

/// Under which name the snapshot `name` is written.
pub(super) fn temporary(name: &str) -> String {
    format!("{name}{TEMPORARY}")
}

/// Whether a file of this name is a snapshot, or was to become one: nothing else is ever removed.
pub(super) fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(TEMPORARY).unwrap_or(name);
    let Some((pool, hash)) = name.strip_suffix(SUFFIX).and_then(|name| name.rsplit_once('-')) else {
        return false;
    };
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let letter = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-');
    !pool.is_empty() && pool.bytes().all(letter) && hash.len() == 64 && hash.bytes().all(hex)
}

/// SHA-256 of what is in `file`.
pub(super) fn digest(file: &File) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut block = vec![0; 64 * 1024];
    let mut at = 0;
    loop {
        let length = file.read_at(&mut block, at)?;
        if length == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&block[..length]);
        at += length as u64;
    }
}
