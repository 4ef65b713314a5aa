//! The file format of snapshots.
//!
//! ```text
//! "weirsnap" | version u32 | length u32 | header | state | runs of pages | pages | SHA-256 of all before it
//!                            of the header  (postcard)     (u32, u32)*     as the runs say
//! ```
//! Integers are little-endian. Only pages that the memory really has are in it. Whoever wrote a file may have had its
//! hash right, so reading checks everything else too, and before it allocates anything.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use weir_vmm::PageRun;
use weir_vmm::memory::PAGE;

use super::super::{STATE_MAX, Template, pages};
use super::key::Key;

/// Raised whenever the format changes.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"weirsnap";
/// Longest header, bytes: mostly a pool's environment and arguments.
const HEADER_MAX: u32 = 1 << 20;
/// Bytes of a run.
const RUN: u64 = 8;
/// Bytes of the hash.
const HASH: usize = 32;
/// Bytes copied at a time.
const BLOCK: usize = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    key: Key,
    /// Bytes of state.
    state: u32,
    /// How many runs of pages.
    runs: u32,
}

/// What is wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum Defect {
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("is cut off")]
    Cut,
    #[error("is no snapshot")]
    Magic,
    #[error("has format {0}, not {VERSION}")]
    Version(u32),
    #[error("has a header of {0} bytes")]
    HeaderLength(u32),
    #[error("has a header that cannot be decoded")]
    Header(#[source] postcard::Error),
    #[error("has {0} bytes too many in its header")]
    HeaderTrailing(usize),
    #[error("is of another {0}")]
    Foreign(&'static str),
    #[error("has a state of {0} bytes")]
    State(u32),
    #[error("has pages in no order or beyond its memory, first at page {0}")]
    Run(u32),
    #[error("has {found} bytes of pages, not {expected}")]
    Pages { found: u64, expected: u64 },
    #[error("does not have the contents that its hash is of")]
    Hash,
    #[error("does not fit into memory")]
    Memory(#[source] io::Error),
}

/// Writes `template`, whose key is `key`.
pub(super) fn write(to: impl Write, key: &Key, template: &Template) -> io::Result<()> {
    let runs = runs_of(&template.memory)?;
    let length = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let (state, count) = (length(template.state.len())?, length(runs.len())?);
    let header = Header { key: key.clone(), state, runs: count };
    let header = postcard::to_stdvec(&header).map_err(io::Error::other)?;
    if length(header.len())? > HEADER_MAX {
        return Err(io::Error::other("the pool's environment and arguments are too long"));
    }
    let mut output = Output { to: BufWriter::with_capacity(BLOCK, to), hash: Sha256::new() };
    output.put(&MAGIC)?;
    output.put(&VERSION.to_le_bytes())?;
    output.put(&length(header.len())?.to_le_bytes())?;
    output.put(&header)?;
    output.put(&template.state)?;
    for run in &runs {
        output.put(&run.first.to_le_bytes())?;
        output.put(&run.count.to_le_bytes())?;
    }
    let mut block = vec![0; BLOCK];
    for run in runs {
        for (at, length) in blocks(run) {
            template.memory.read_exact_at(&mut block[..length], at)?;
            output.put(&block[..length])?;
        }
    }
    output.end()
}

/// Reads a template of `key` from `from`, which is `length` bytes long. It has no working set.
///
/// # Errors
/// [`Defect`]
pub(super) fn read(from: impl Read, length: u64, key: &Key) -> Result<Template, Defect> {
    let left = length.checked_sub(HASH as u64).ok_or(Defect::Cut)?;
    let mut input = Input { from, left, hash: Sha256::new() };
    let header = input.header()?;
    if let Some(part) = key.difference(&header.key) {
        return Err(Defect::Foreign(part));
    }
    let state = match usize::try_from(header.state) {
        Ok(length) if length <= STATE_MAX => input.bytes(length)?,
        _ => return Err(Defect::State(header.state)),
    };
    let runs = input.runs(header.runs, key.memory)?;
    let expected = runs.iter().map(|run| u64::from(run.count) * PAGE).sum();
    if input.left != expected {
        return Err(Defect::Pages { found: input.left, expected });
    }
    let memory = pages::create(&key.pool, key.memory).map_err(Defect::Memory)?;
    let mut block = vec![0; BLOCK];
    for (at, length) in runs.into_iter().flat_map(blocks) {
        input.fill(&mut block[..length])?;
        memory.write_all_at(&block[..length], at).map_err(Defect::Memory)?;
    }
    input.end()?;
    pages::freeze(&memory).map_err(Defect::Memory)?;
    Ok(Template { memory, state, working_set: Vec::new() })
}

/// The pages that `memory` has.
fn runs_of(memory: &File) -> io::Result<Vec<PageRun>> {
    let page = |address: u64| match address % PAGE {
        0 => u32::try_from(address / PAGE).map_err(io::Error::other),
        _ => Err(io::Error::other("memory has a part of a page")),
    };
    let extents = pages::extents(memory)?.into_iter();
    extents
        .map(|range| Ok(PageRun { first: page(range.start)?, count: page(range.end - range.start)? }))
        .collect()
}

/// `run` in blocks: address and length.
fn blocks(run: PageRun) -> impl Iterator<Item = (u64, usize)> {
    let start = u64::from(run.first) * PAGE;
    let end = start + u64::from(run.count) * PAGE;
    let length = move |at| usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
    (start..end).step_by(BLOCK).map(move |at| (at, length(at)))
}

/// A file being written, and the hash of what it has so far.
struct Output<W: Write> {
    to: BufWriter<W>,
    hash: Sha256,
}

impl<W: Write> Output<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.to.write_all(bytes)
    }

    fn end(mut self) -> io::Result<()> {
        self.to.write_all(&self.hash.finalize())?;
        self.to.flush()
    }
}

/// A file being read.
struct Input<R> {
    from: R,
    /// Bytes up to its hash.
    left: u64,
    hash: Sha256,
}

impl<R: Read> Input<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Defect> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(Defect::Cut)?;
        self.from.read_exact(bytes).map_err(Defect::Read)?;
        self.hash.update(bytes);
        Ok(())
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, Defect> {
        if length as u64 > self.left {
            return Err(Defect::Cut);
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Defect> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, Defect> {
        self.array().map(u32::from_le_bytes)
    }

    fn header(&mut self) -> Result<Header, Defect> {
        if self.array()? != MAGIC {
            return Err(Defect::Magic);
        }
        match self.number()? {
            VERSION => {}
            version => return Err(Defect::Version(version)),
        }
        let bytes = match self.number()? {
            length if length <= HEADER_MAX => self.bytes(length as usize)?,
            length => return Err(Defect::HeaderLength(length)),
        };
        let (header, rest) = postcard::take_from_bytes(&bytes).map_err(Defect::Header)?;
        if rest.is_empty() { Ok(header) } else { Err(Defect::HeaderTrailing(rest.len())) }
    }

    /// `count` runs in ascending order, with gaps between them, within `memory` bytes.
    fn runs(&mut self, count: u32, memory: u64) -> Result<Vec<PageRun>, Defect> {
        if u64::from(count) * RUN > self.left {
            return Err(Defect::Cut);
        }
        let mut runs = Vec::with_capacity(count as usize);
        let mut before = None;
        for _ in 0..count {
            let run = PageRun { first: self.number()?, count: self.number()? };
            let range = run.range(memory).filter(|range| before.is_none_or(|end| end < range.start));
            before = Some(range.ok_or(Defect::Run(run.first))?.end);
            runs.push(run);
        }
        Ok(runs)
    }

    /// What follows has to be the hash of what came before.
    fn end(mut self) -> Result<(), Defect> {
        let mut hash = [0; HASH];
        self.from.read_exact(&mut hash).map_err(Defect::Read)?;
        if self.hash.finalize()[..] == hash { Ok(()) } else { Err(Defect::Hash) }
    }
}
