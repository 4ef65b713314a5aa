//! A frozen machine but for its memory: what [`crate::VmEvent::Frozen`] carries.
//!
//! Written by a template's process and read by its clones', all of one pool; weir passes it on without looking inside.
//! A guest that took its template's process over can put into it what it likes, so reading trusts nothing, and what it
//! can express is no more than a guest in ring 3 could do to its own machine anyway.

use serde::{Deserialize, Serialize};
use weir_abi::ABI_VERSION;

use super::vcpu::CpuState;
use crate::virtio::TransportState;

/// Format of what [`crate::VmEvent::Frozen`] carries. Raised whenever the meaning of the encoding changes, or what this
/// crate itself puts into guest memory: snapshots of templates may be older than the program.
pub const FORMAT: u32 = 1;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineState {
    /// The vCPU.
    pub(crate) cpu: CpuState,
    /// The network device, if it has one.
    pub(crate) network: Option<TransportState>,
}

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum StateError {
    #[error("state has format {format} and guest abi {abi}, not {FORMAT} and {ABI_VERSION}")]
    Version { format: u32, abi: u32 },
    #[error("decode state")]
    Decode(#[source] postcard::Error),
    #[error("state has {0} bytes too many")]
    Trailing(usize),
}

impl MachineState {
    /// The state as bytes, versions in front.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&(FORMAT, ABI_VERSION, self))
    }

    /// Reads what [`Self::encode`] wrote, or anything else.
    ///
    /// # Errors
    /// [`StateError`]
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let ((format, abi), rest) =
            postcard::take_from_bytes::<(u32, u32)>(bytes).map_err(StateError::Decode)?;
        if (format, abi) != (FORMAT, ABI_VERSION) {
            return Err(StateError::Version { format, abi });
        }
        let (state, rest) = postcard::take_from_bytes(rest).map_err(StateError::Decode)?;
        if rest.is_empty() { Ok(state) } else { Err(StateError::Trailing(rest.len())) }
    }
}
