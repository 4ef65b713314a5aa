//! The control page's registers: what a guest's load or store there means. Pure decoding, see [`weir_abi::control`].

use std::time::Duration;

use weir_abi::ABI_VERSION;
use weir_abi::control::{self, PageRange, Slice};

/// What the guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Give up the CPU for at most this long; `None`: until a device wakes it.
    Park(Option<Duration>),
    /// The application listens.
    Ready,
    /// Log a line.
    Log(Slice),
    /// The guest has no use for what these pages hold.
    Discard(PageRange),
    /// The guest ends itself.
    Exit(Slice),
    /// The gates met a fault while a fault was being handled.
    DoubleFault,
}

/// An access that the control page does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} of {size} bytes at offset {offset:#x} of the control page")]
pub(crate) struct BadAccess {
    kind: &'static str,
    offset: u64,
    size: usize,
}

/// Decodes a store of `data` at `offset`.
pub(crate) fn write(offset: u64, data: &[u8]) -> Result<Request, BadAccess> {
    let bad = BadAccess { kind: "write", offset, size: data.len() };
    let value = u64::from_le_bytes(data.try_into().map_err(|_| bad)?);
    match offset {
        control::PARK if value == control::PARK_FOREVER => Ok(Request::Park(None)),
        control::PARK => Ok(Request::Park(Some(Duration::from_nanos(value)))),
        control::READY => Ok(Request::Ready),
        control::LOG => Ok(Request::Log(Slice(value))),
        control::EXIT if value == control::EXIT_DOUBLE_FAULT => Ok(Request::DoubleFault),
        control::EXIT => Ok(Request::Exit(Slice(value))),
        control::DISCARD => Ok(Request::Discard(PageRange(value))),
        _ => Err(bad),
    }
}

/// Answers a load from `offset`.
pub(crate) fn read(offset: u64, data: &mut [u8]) -> Result<(), BadAccess> {
    let bad = BadAccess { kind: "read", offset, size: data.len() };
    match (offset, <&mut [u8; 8]>::try_from(data)) {
        (control::VERSION, Ok(data)) => *data = u64::from(ABI_VERSION).to_le_bytes(),
        _ => return Err(bad),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stores_are_requests() {
        let decode = |offset, value: u64| write(offset, &value.to_le_bytes());
        assert_eq!(decode(control::PARK, 0), Ok(Request::Park(Some(Duration::ZERO))));
        assert_eq!(decode(control::PARK, 5), Ok(Request::Park(Some(Duration::from_nanos(5)))));
        assert_eq!(decode(control::PARK, u64::MAX), Ok(Request::Park(None)));
        assert_eq!(decode(control::READY, 99), Ok(Request::Ready));
        assert_eq!(decode(control::LOG, 77), Ok(Request::Log(Slice(77))));
        assert_eq!(decode(control::EXIT, 0), Ok(Request::DoubleFault));
        assert_eq!(decode(control::EXIT, 1), Ok(Request::Exit(Slice(1))));
        assert_eq!(decode(control::DISCARD, 9), Ok(Request::Discard(PageRange(9))));
    }

    #[test]
    fn the_version_can_be_read_and_nothing_else() {
        let mut value = [0; 8];
        read(control::VERSION, &mut value).unwrap();
        assert_eq!(u64::from_le_bytes(value), u64::from(ABI_VERSION));
        let error = read(control::PARK, &mut value).unwrap_err();
        assert_eq!(error.to_string(), "read of 8 bytes at offset 0x8 of the control page");
    }

    proptest! {
        #[test]
        fn only_whole_registers_can_be_accessed(offset in 0u64..0x1000, data in proptest::collection::vec(any::<u8>(), 0..=8)) {
            let known = [control::PARK, control::READY, control::LOG, control::EXIT, control::DISCARD].contains(&offset);
            prop_assert_eq!(write(offset, &data).is_ok(), known && data.len() == 8);
            let mut answer = data.clone();
            prop_assert_eq!(read(offset, &mut answer).is_ok(), offset == control::VERSION && data.len() == 8);
        }
    }
}
