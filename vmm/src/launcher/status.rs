//! How a child's end is told.

use nix::sys::signal::Signal;

/// "exit code 0", "signal 9 (SIGKILL)", …
pub(super) fn describe(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match (signal, Signal::try_from(signal)) {
            (libc::SIGSYS, _) => format!("signal {signal} (SIGSYS): forbidden system call"),
            (_, Ok(name)) => format!("signal {signal} ({name})"),
            (_, Err(_)) => format!("signal {signal}"),
        },
        (None, None) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn every_kind_of_end_has_words() {
        assert_eq!(describe(Some(0), None), "exit code 0");
        assert_eq!(describe(None, Some(9)), "signal 9 (SIGKILL)");
        assert_eq!(describe(None, Some(31)), "signal 31 (SIGSYS): forbidden system call");
        assert_eq!(describe(None, Some(40)), "signal 40");
        assert_eq!(describe(None, None), "unknown");
    }
}
