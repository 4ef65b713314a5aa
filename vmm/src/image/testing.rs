//! Makes ELF files for tests, right and wrong. Also compiled into the integration tests.

use weir_abi::{ABI_VERSION, note};

pub(crate) const PF_X: u32 = 1;
pub(crate) const PF_W: u32 = 2;
pub(crate) const PF_R: u32 = 4;
pub(crate) const PT_LOAD: u32 = 1;
pub(crate) const PT_NOTE: u32 = 4;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// One program header; its bytes follow the headers in the file, each at the next offset that suits its address.
#[derive(Clone, Debug)]
pub(crate) struct TestSegment {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) memory_size: u64,
    pub(crate) align: u64,
}

impl TestSegment {
    /// A loadable segment whose memory is as long as its bytes.
    pub(crate) fn load(address: u64, flags: u32, bytes: &[u8]) -> Self {
        let memory_size = bytes.len() as u64;
        Self { kind: PT_LOAD, flags, address, bytes: bytes.to_vec(), memory_size, align: 0x1000 }
    }

    /// The weir note for `version`.
    pub(crate) fn note(version: u32) -> Self {
        let mut bytes = Vec::new();
        for word in [5, 4, note::TYPE] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(b"weir\0\0\0\0");
        bytes.extend_from_slice(&version.to_le_bytes());
        let memory_size = bytes.len() as u64;
        Self { kind: PT_NOTE, flags: PF_R, address: 0, bytes, memory_size, align: 4 }
    }
}

/// An ELF file in the making.
#[derive(Clone, Debug)]
pub(crate) struct TestElf {
    pub(crate) entry: u64,
    pub(crate) segments: Vec<TestSegment>,
}

impl TestElf {
    /// A guest image with `code` at its entry point.
    pub(crate) fn guest(entry: u64, code: &[u8]) -> Self {
        let segments = vec![TestSegment::note(ABI_VERSION), TestSegment::load(entry, PF_R | PF_X, code)];
        Self { entry, segments }
    }

    pub(crate) fn with(mut self, segment: TestSegment) -> Self {
        self.segments.push(segment);
        self
    }

    /// File offset of program header `index`, for tests that break it.
    pub(crate) fn program_header(index: usize) -> usize {
        HEADER + index * PROGRAM_HEADER
    }

    /// The file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = vec![0; Self::program_header(self.segments.len())];
        file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        put(&mut file, 16, &2u16.to_le_bytes());
        put(&mut file, 18, &62u16.to_le_bytes());
        put(&mut file, 20, &1u32.to_le_bytes());
        put(&mut file, 24, &self.entry.to_le_bytes());
        put(&mut file, 32, &(HEADER as u64).to_le_bytes());
        for (at, value) in [(52, HEADER), (54, PROGRAM_HEADER), (56, self.segments.len())] {
            put(&mut file, at, &u16::try_from(value).expect("tests have few segments").to_le_bytes());
        }
        for (index, segment) in self.segments.iter().enumerate() {
            let align = if segment.align.is_power_of_two() { segment.align } else { 1 };
            while file.len() as u64 % align != segment.address % align {
                file.push(0);
            }
            let at = Self::program_header(index);
            let offset = file.len() as u64;
            put(&mut file, at, &segment.kind.to_le_bytes());
            put(&mut file, at + 4, &segment.flags.to_le_bytes());
            let size = segment.bytes.len() as u64;
            let fields = [offset, segment.address, segment.address, size, segment.memory_size, segment.align];
            for (place, field) in fields.into_iter().enumerate() {
                put(&mut file, at + 8 + place * 8, &field.to_le_bytes());
            }
            file.extend_from_slice(&segment.bytes);
        }
        file
    }
}

/// Overwrites bytes of `file`.
pub(crate) fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}
