//! A guest's last message: why it ended, in its own words, which are made harmless.

use weir_abi::control::exit;

use super::console::printable;
use crate::event::{CrashReason, ExitReason};

/// Reads an EXIT message: a code byte, then text.
pub(crate) fn reason(message: &[u8]) -> ExitReason {
    let unexpected = |text: String| ExitReason::Crashed(CrashReason::UnexpectedExit(text));
    let Some((code, text)) = message.split_first() else {
        return unexpected("empty EXIT message".to_owned());
    };
    let text = printable(text);
    match *code {
        exit::EXITED => match text.parse() {
            Ok(code) => ExitReason::Exited(code),
            Err(_) => unexpected(format!("exit code {text:?} is not a number")),
        },
        exit::PANICKED => ExitReason::Panicked(text),
        exit::FAULTED => ExitReason::Faulted(text),
        other => unexpected(format!("unknown EXIT code {other}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_are_reasons() {
        assert_eq!(reason(b"\x00-3"), ExitReason::Exited(-3));
        assert_eq!(reason(b"\x01at main.rs:1\nboom"), ExitReason::Panicked("at main.rs:1\\nboom".into()));
        assert_eq!(reason(b"\x02#UD"), ExitReason::Faulted("#UD".into()));
    }

    proptest! {
        #[test]
        fn anything_else_is_a_crash(code in 3u8.., text in ".{0,20}") {
            let message = [&[code], text.as_bytes()].concat();
            let is_crash = matches!(reason(&message), ExitReason::Crashed(CrashReason::UnexpectedExit(_)));
            prop_assert!(is_crash);
        }
    }
}
