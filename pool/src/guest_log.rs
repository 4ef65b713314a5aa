//! A guest's log lines as events of weir's own log.
//!
//! A guest may write what it likes, as much as it likes: control characters are escaped, so that it cannot forge
//! lines or drive a terminal, and beyond [`LINES_PER_SECOND`] lines are dropped and counted.

use std::time::Duration;

use tokio::time::Instant;
use weir_vmm::VmId;

/// More than this is noise, not a log.
const LINES_PER_SECOND: u32 = 200;

/// One VM's log.
#[derive(Debug)]
pub(crate) struct GuestLog {
    pool: String,
    vm: VmId,
    second: Instant,
    lines: u32,
    dropped: u64,
}

impl GuestLog {
    pub(crate) fn new(pool: &str, vm: VmId, now: Instant) -> Self {
        Self { pool: pool.to_owned(), vm, second: now, lines: 0, dropped: 0 }
    }

    /// Logs `text` as one line, unless there were too many.
    pub(crate) fn line(&mut self, text: &str, now: Instant) {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.report_dropped();
            (self.second, self.lines) = (now, 0);
        }
        if self.lines >= LINES_PER_SECOND {
            self.dropped += 1;
            return;
        }
        self.lines += 1;
        tracing::info!(target: "guest", pool = self.pool, vm = %self.vm, "{}", printable(text));
    }

    fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            tracing::warn!(target: "guest", pool = self.pool, vm = %self.vm, dropped, "guest logs too much");
        }
    }
}

impl Drop for GuestLog {
    fn drop(&mut self) {
        self.report_dropped();
    }
}

/// `text`, which a guest wrote, as one line that is safe on a terminal.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\t' => printable.push(c),
            c if c.is_control() => printable.extend(c.escape_default()),
            c => printable.push(c),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            printable("a\tü\n2026 ERROR forged\x1b[2J\u{9b}\n"),
            "a\tü\\n2026 ERROR forged\\u{1b}[2J\\u{9b}"
        );
    }

    #[test]
    fn too_many_lines_are_counted_not_logged() {
        let start = Instant::now();
        let mut log = GuestLog::new("p", VmId(1), start);
        for _ in 0..LINES_PER_SECOND + 7 {
            log.line("x", start);
        }
        assert_eq!((log.lines, log.dropped), (LINES_PER_SECOND, 7));
        log.line("x", start + Duration::from_secs(1));
        assert_eq!((log.lines, log.dropped), (1, 0));
    }
}
