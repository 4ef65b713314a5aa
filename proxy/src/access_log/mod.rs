//! The access log: one line per request, JSON or as Apache writes it.
//!
//! A request leaves its line in a bounded buffer ([`lines`]) and goes on; a thread writes. When what reads the log is too
//! slow the buffer fills, and lines are dropped and counted: a full pipe must never hold up requests.

mod apache;
mod file;
mod lines;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use prometheus::IntCounter;
use serde::{Serialize, Serializer};
use weir_config::model::{LogFormat, Thousandths};

use self::file::LogFile;

use self::lines::Lines;

/// Where requests leave their lines. Clones write to the same log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Option<Arc<Open>>,
    dropped: IntCounter,
    format: LogFormat,
    sample: Thousandths,
    reopen: Arc<AtomicBool>,
}

/// Closes the log when the last who could write to it is gone.
#[derive(Debug)]
struct Open(Arc<Lines>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The writing thread. It ends when every [`AccessLog`] of it is gone.
#[derive(Debug)]
pub struct AccessLogWriter(JoinHandle<io::Result<()>>);

/// One line; `None` where the request did not come that far.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Record<'a> {
    /// When the request's header was read, seconds since 1970, to the millisecond.
    pub(crate) ts: f64,
    /// `None`: the connection came over a Unix socket.
    #[serde(serialize_with = "client")]
    pub(crate) client: Option<std::net::IpAddr>,
    /// Who it is, where the route asks.
    pub(crate) user: Option<&'a str>,
    pub(crate) method: Option<&'a str>,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub(crate) protocol: Option<&'static str>,
    /// `TLSv1_2` or `TLSv1_3`; `None` in plain text.
    pub(crate) tls: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    /// Path and query as the client sent them.
    pub(crate) path: Option<&'a str>,
    /// What the client got; 499: it went away before.
    pub(crate) status: u16,
    pub(crate) route: Option<&'a str>,
    pub(crate) pool: Option<&'a str>,
    /// The VM that was asked last.
    pub(crate) vm: Option<u64>,
    /// `warm`, `clone` or `cold`.
    pub(crate) start: Option<&'static str>,
    /// How long the request waited for leases, all tries together.
    pub(crate) queue_ms: Option<f64>,
    /// From the request's header to the response's.
    pub(crate) ttfb_ms: Option<f64>,
    pub(crate) duration_ms: f64,
    /// Body bytes from the client.
    pub(crate) bytes_in: usize,
    /// Body bytes to the client.
    pub(crate) bytes_out: usize,
    pub(crate) trace_id: Option<&'a str>,
    /// A word of the `weir-error` header, `client_gone`, or `truncated`.
    pub(crate) error: Option<&'static str>,
    /// Path and query, the bytes; not part of JSON, as what follows.
    #[serde(skip)]
    pub(crate) target: Option<&'a [u8]>,
    #[serde(skip)]
    pub(crate) referer: Option<&'a [u8]>,
    #[serde(skip)]
    pub(crate) user_agent: Option<&'a [u8]>,
}

fn client<S: Serializer>(client: &Option<std::net::IpAddr>, to: S) -> Result<S::Ok, S::Error> {
    match client {
        Some(client) => client.serialize(to),
        None => to.serialize_str("unix"),
    }
}

impl AccessLog {
    /// Starts the thread that writes to `out`. `dropped` counts the lines that it was too slow for.
    ///
    /// # Errors
    ///
    /// If the thread cannot be made.
    pub fn start(
        out: impl Write + Send + 'static,
        dropped: IntCounter,
    ) -> io::Result<(Self, AccessLogWriter)> {
        Self::start_reopening(out, dropped, Arc::default())
    }

    /// Starts the thread that adds to the file `path`. As [`Self::start`], but that what cannot be written is dropped.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or the thread cannot be made.
    pub fn start_file(path: &Path, dropped: IntCounter) -> io::Result<(Self, AccessLogWriter)> {
        let reopen = Arc::<AtomicBool>::default();
        let file = LogFile::open(path, reopen.clone(), dropped.clone())?;
        Self::start_reopening(file, dropped, reopen)
    }

    fn start_reopening(
        out: impl Write + Send + 'static,
        dropped: IntCounter,
        reopen: Arc<AtomicBool>,
    ) -> io::Result<(Self, AccessLogWriter)> {
        let lines = Arc::new(Lines::default());
        // Also when it panics: nobody is to fill a buffer that nobody takes from.
        let taken = Open(Arc::clone(&lines));
        let thread =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&taken.0, out))?;
        let lines = Some(Arc::new(Open(lines)));
        let log = Self { lines, reopen, ..Self::keeping_nothing(dropped) };
        Ok((log, AccessLogWriter(thread)))
    }

    fn keeping_nothing(dropped: IntCounter) -> Self {
        let (format, sample) = (LogFormat::default(), Thousandths(1000));
        Self { lines: None, dropped, format, sample, reopen: Arc::default() }
    }

    /// The same log with lines of this format.
    #[must_use]
    pub fn with_format(self, format: LogFormat) -> Self {
        Self { format, ..self }
    }

    /// The same log, but of requests that end well it has only this share. Those that end with a status from 500 on it
    /// has all.
    #[must_use]
    pub fn with_sample(self, sample: Thousandths) -> Self {
        Self { sample, ..self }
    }

    /// Has a file opened again, since somebody has renamed it. Any other log stays what it is.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
        if let Some(lines) = &self.lines {
            lines.0.nudge();
        }
    }

    /// A log that keeps nothing.
    pub fn disabled() -> Self {
        let dropped =
            IntCounter::new("unused", "unused").expect("the name of a metric that is never registered");
        Self::keeping_nothing(dropped)
    }

    /// Whether a request with this status is to be written down; chance has a part in it.
    pub(crate) fn wants(&self, status: u16) -> bool {
        self.lines.is_some()
            && (self.sample.0 >= 1000 || status >= 500 || rand::random_range(0..1000) < self.sample.0)
    }

    pub(crate) fn write(&self, record: &Record<'_>) {
        let Some(lines) = &self.lines else { return };
        let mut line = Vec::with_capacity(512);
        let written = match self.format {
            LogFormat::Json => serde_json::to_writer(&mut line, record).map(|()| line.push(b'\n')).is_ok(),
            LogFormat::Common => apache::write(record, false, &mut line),
            LogFormat::Combined => apache::write(record, true, &mut line),
        };
        if !written || !lines.0.push(&line) {
            self.dropped.inc();
        }
    }
}

impl AccessLogWriter {
    /// Waits until every line is written. Only after the last [`AccessLog`] is gone does this return.
    ///
    /// # Errors
    ///
    /// What writing failed with; the lines from there on are lost.
    pub fn join(self) -> io::Result<()> {
        self.0.join().unwrap_or_else(|_| Err(io::Error::other("the access log's thread panicked")))
    }
}

/// Writes lines until nobody is left to leave any.
fn write(lines: &Lines, mut out: impl Write) -> io::Result<()> {
    let mut batch = Vec::new();
    while lines.take(&mut batch) {
        out.write_all(&batch)?;
        out.flush()?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Mutex, mpsc};

    use proptest::prelude::*;

    use super::*;

    /// A log to look into.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Page(pub(crate) Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("c", "c").unwrap()
    }

    fn record(path: &str) -> Record<'_> {
        Record { ts: 0.5, path: Some(path), status: 200, ..Record::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_line_is_one_object_whatever_the_path(path in any::<String>()) {
            let page = Page::default();
            let (log, writer) = AccessLog::start(page.clone(), counter()).unwrap();
            log.write(&record(&path));
            log.write(&record("/"));
            drop(log);
            writer.join().unwrap();
            let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
            let lines: Vec<serde_json::Value> =
                text.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect();
            prop_assert_eq!(lines.len(), 2);
            prop_assert_eq!(lines[0]["path"].as_str(), Some(path.as_str()));
        }
    }

    /// Holds the writer until the test lets it go.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error means that the test is over.
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_costs_lines_and_no_time() {
        let (release, stuck) = mpsc::channel();
        let dropped = counter();
        let (log, writer) = AccessLog::start(Stuck(stuck), dropped.clone()).unwrap();
        // One batch is in the writer's hands, the next fills the buffer; the surplus must be dropped, not waited for.
        let long = "/".repeat(lines::WAITING_MAX / 16);
        for _ in 0..2 * 16 {
            log.write(&record(&long));
        }
        assert!(dropped.get() > 0);
        drop((log, release));
        writer.join().unwrap();
    }

    #[test]
    fn a_sample_has_every_failure() {
        let (log, writer) = AccessLog::start(Page::default(), counter()).unwrap();
        assert!((0..1000).all(|_| log.wants(200)));
        let log = log.with_sample(Thousandths(500));
        assert!((0..1000).all(|_| log.wants(503)));
        // That chance is so one-sided, nobody will see.
        let written = (0..10_000).filter(|_| log.wants(200)).count();
        assert!((4000..6000).contains(&written), "{written}");
        drop(log);
        writer.join().unwrap();
        assert!(!AccessLog::disabled().wants(503));
    }

    #[test]
    fn a_file_is_opened_again_though_no_request_comes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let (log, writer) = AccessLog::start_file(&path, counter()).unwrap();
        let log = log.with_format(LogFormat::Common);
        log.write(&record("/before"));
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        drop(log);
        writer.join().unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap().lines().count(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_failing_writer_is_reported_and_harms_no_request() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dropped = counter();
        let (log, writer) = AccessLog::start(Broken, dropped.clone()).unwrap();
        log.write(&record("/"));
        assert_eq!(writer.join().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        log.write(&record("/"));
        assert_eq!(dropped.get(), 1);
    }
}
