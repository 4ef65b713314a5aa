//! A VM that reads HTTP/1.1 to the letter, and remembers what it read.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::backend::{Backend, Connection};
use crate::client::find;
use crate::site::until;

/// A request that came, or what came instead.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) target: String,
    pub(super) body: Vec<u8>,
    /// Its body came to its end.
    pub(super) whole: bool,
    /// It is no request.
    pub(super) garbage: bool,
}

pub(super) struct Recorder {
    backend: Backend,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Connections on which a request has begun and not ended.
    busy: Arc<AtomicUsize>,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let (seen, busy) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicUsize>::default());
        let (all, at_work) = (Arc::clone(&seen), Arc::clone(&busy));
        let backend = Backend::start(move |mut connection| {
            let (all, at_work) = (Arc::clone(&all), Arc::clone(&at_work));
            async move {
                let mut buffer = Vec::new();
                while fill(&mut connection, &mut buffer, |buffer| !buffer.is_empty()).await {
                    at_work.fetch_add(1, SeqCst);
                    let request = read(&mut connection, &mut buffer).await;
                    let goes_on = request.whole && !request.garbage;
                    all.lock().unwrap().push(request);
                    at_work.fetch_sub(1, SeqCst);
                    if !goes_on || !connection.answer(b"seen").await {
                        return;
                    }
                }
            }
        })
        .await;
        Self { backend, seen, busy }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// What came since this was asked last.
    pub(super) async fn take(&self) -> Vec<Seen> {
        until(|| self.busy.load(SeqCst) == 0).await;
        take(&mut *self.seen.lock().unwrap())
    }
}

/// Reads until there is `enough`; whether there is.
async fn fill(connection: &mut Connection, buffer: &mut Vec<u8>, enough: impl Fn(&[u8]) -> bool) -> bool {
    while !enough(buffer) {
        match connection.some().await {
            Some(more) => buffer.extend(more),
            None => return false,
        }
    }
    true
}

async fn read(connection: &mut Connection, buffer: &mut Vec<u8>) -> Seen {
    let has_head = |buffer: &[u8]| find(buffer, b"\r\n\r\n").is_some();
    if !fill(connection, buffer, has_head).await {
        return Seen { garbage: true, ..Seen::default() };
    }
    let end = find(buffer, b"\r\n\r\n").unwrap();
    let head: Vec<u8> = buffer.drain(..end + 4).collect();
    let Some((target, framing)) = parse(&head) else {
        return Seen {
            target: String::from_utf8_lossy(&head).into_owned(),
            garbage: true,
            ..Seen::default()
        };
    };
    let mut seen = Seen { target, ..Seen::default() };
    (seen.whole, seen.garbage) = match framing {
        Framing::Length(length) => {
            let whole = fill(connection, buffer, |buffer| buffer.len() >= length).await;
            seen.body = buffer.drain(..length.min(buffer.len())).collect();
            (whole, false)
        }
        Framing::Chunked => chunks(connection, buffer, &mut seen.body).await,
    };
    seen
}

enum Framing {
    Length(usize),
    Chunked,
}

/// Target and framing of a head that is one to the letter, and says how long its body is once.
fn parse(head: &[u8]) -> Option<(String, Framing)> {
    let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let [method, target, "HTTP/1.1"] = lines.next()?.split(' ').collect::<Vec<_>>()[..] else { return None };
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    if !is_token(method) || !target.starts_with('/') {
        return None;
    }
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        if !is_token(name) || value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                lengths.push(value.parse().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit()))?)
            }
            "transfer-encoding" => codings.push(value),
            "host" => hosts += 1,
            _ => {}
        }
    }
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::Length(0),
        ([length], []) => Framing::Length(*length),
        ([], ["chunked"]) => Framing::Chunked,
        _ => return None,
    };
    (hosts == 1).then(|| (target.to_owned(), framing))
}

/// A chunked body, to its end; whether it came to its end, and whether it is none.
async fn chunks(connection: &mut Connection, buffer: &mut Vec<u8>, body: &mut Vec<u8>) -> (bool, bool) {
    loop {
        if !fill(connection, buffer, |buffer| find(buffer, b"\r\n").is_some()).await {
            return (false, false);
        }
        let end = find(buffer, b"\r\n").unwrap();
        let line: Vec<u8> = buffer.drain(..end + 2).collect();
        let digits =
            std::str::from_utf8(&line[..end]).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(size) = digits.and_then(|text| usize::from_str_radix(text, 16).ok()) else {
            return (false, true);
        };
        if !fill(connection, buffer, |buffer| buffer.len() >= size + 2).await {
            return (false, false);
        }
        let chunk: Vec<u8> = buffer.drain(..size + 2).collect();
        body.extend_from_slice(&chunk[..size]);
        match (size, chunk.ends_with(b"\r\n")) {
            (_, false) => return (false, true),
            (0, true) => return (true, false),
            _ => {}
        }
    }
}
