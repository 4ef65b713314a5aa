//! The requests, and what may come of them.

/// What may come of a request. The text is the body that the VM has to see.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// An error status, the connection's end, and no VM hears of it.
    Refused,
    /// An error status, and no VM hears of it. Where it ends is beyond doubt, so that the next one may be served.
    Answered,
    /// One request, and the client's next one behind it or the connection's end.
    Forwarded(&'static str),
    Either(&'static str),
    /// As either, but behind it the connection ends (RFC 9112 §6.3).
    Last(&'static str),
    /// What is wrong is in a body that is being forwarded: its end does not come, and nothing after it.
    CutOff,
}

use Outcome::{Answered, CutOff, Either, Forwarded, Last, Refused};

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    request: Request,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Whole(&'static [u8]),
    /// Begin, what is repeated how often, end.
    Repeated(&'static str, &'static str, usize, &'static str),
}

impl Case {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self.request {
            Request::Whole(bytes) => bytes.to_vec(),
            Request::Repeated(begin, middle, times, end) => {
                [begin, &middle.repeat(times), end].concat().into_bytes()
            }
        }
    }
}

const fn case(name: &'static str, bytes: &'static [u8], outcome: Outcome) -> Case {
    Case { name, request: Request::Whole(bytes), outcome }
}

/// A POST with these header lines and this body.
macro_rules! post {
    ($name:literal, $lines:literal, $body:literal, $outcome:expr) => {
        case(
            $name,
            concat!("POST /case HTTP/1.1\r\nhost: a\r\n", $lines, "\r\n\r\n", $body).as_bytes(),
            $outcome,
        )
    };
}

/// A GET with these header lines.
macro_rules! get {
    ($name:literal, $lines:literal, $outcome:expr) => {
        case($name, concat!("GET /case HTTP/1.1\r\n", $lines, "\r\n\r\n").as_bytes(), $outcome)
    };
}

/// A request line with a Host.
macro_rules! line {
    ($name:literal, $line:literal, $outcome:expr) => {
        case($name, concat!($line, "\r\nhost: a\r\n\r\n").as_bytes(), $outcome)
    };
}

/// A chunked POST of this.
macro_rules! chunked {
    ($name:literal, $body:literal, $outcome:expr) => {
        case(
            $name,
            concat!("POST /case HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", $body).as_bytes(),
            $outcome,
        )
    };
}

/// Who reads the one length sees a request where who reads the other sees a body.
pub(super) const AMBIGUOUS: &[Case] = &[
    post!("CL.TE", "content-length: 6\r\ntransfer-encoding: chunked", "0\r\n\r\nX", Last("")),
    post!(
        "TE.CL",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "2d\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\nx: 123456789\r\n0\r\n\r\n",
        Last("GET /smuggled HTTP/1.1\r\nhost: a\r\nx: 123456789")
    ),
    post!("CL 0 and TE", "content-length: 0\r\ntransfer-encoding: chunked", "0\r\n\r\n", Last("")),
    post!(
        "TE.TE, another coding behind",
        "transfer-encoding: chunked\r\ntransfer-encoding: x",
        "0\r\n\r\n",
        Refused
    ),
    post!(
        "TE.TE, another coding before",
        "transfer-encoding: x\r\ntransfer-encoding: chunked",
        "0\r\n\r\n",
        Refused
    ),
    post!("TE twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n", Refused),
    post!("TE unknown", "transfer-encoding: xchunked", "0\r\n\r\n", Refused),
    post!("TE identity", "transfer-encoding: identity", "", Refused),
    post!(
        "TE list that does not end in chunked",
        "transfer-encoding: chunked, identity",
        "0\r\n\r\n",
        Refused
    ),
    post!("TE list with another coding", "transfer-encoding: gzip, chunked", "0\r\n\r\n", Refused),
    post!("TE quoted", "transfer-encoding: \"chunked\"", "0\r\n\r\n", Refused),
    post!("TE with a parameter", "transfer-encoding: chunked;x=y", "0\r\n\r\n", Refused),
    post!("TE with a space before the colon", "transfer-encoding : chunked", "0\r\n\r\n", Refused),
    post!("TE after a tab", "transfer-encoding:\tchunked", "5\r\nhello\r\n0\r\n\r\n", Either("hello")),
    post!("TE in capitals", "TRANSFER-ENCODING: CHUNKED", "5\r\nhello\r\n0\r\n\r\n", Either("hello")),
    post!("TE after a vertical tab", "transfer-encoding:\u{b}chunked", "0\r\n\r\n", Refused),
    post!("TE with a NUL", "transfer-encoding: chunked\0", "0\r\n\r\n", Refused),
    post!("TE in a folded line", "x: y\r\n transfer-encoding: chunked", "0\r\n\r\n", Refused),
    post!("TE folded", "transfer-encoding:\r\n chunked", "0\r\n\r\n", Refused),
    post!("TE after a bare CR", "x: y\rtransfer-encoding: chunked", "0\r\n\r\n", Refused),
    post!(
        "TE after a bare LF, CL",
        "x: y\ntransfer-encoding: chunked\r\ncontent-length: 5",
        "0\r\n\r\n",
        Last("")
    ),
    post!(
        "TE with an underscore",
        "transfer_encoding: chunked\r\ncontent-length: 5",
        "0\r\n\r\n",
        Either("0\r\n\r\n")
    ),
    post!("TE empty", "transfer-encoding:", "", Refused),
    case(
        "TE in HTTP/1.0",
        b"POST /case HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    post!("CL twice, different", "content-length: 5\r\ncontent-length: 0", "hello", Refused),
    post!("CL twice, equal", "content-length: 5\r\ncontent-length: 5", "hello", Refused),
    post!("CL list", "content-length: 5, 5", "hello", Refused),
    post!("CL with a sign", "content-length: +5", "hello", Refused),
    post!("CL negative", "content-length: -1", "", Refused),
    post!("CL hexadecimal", "content-length: 0x5", "hello", Refused),
    post!("CL with a fraction", "content-length: 5.0", "hello", Refused),
    post!("CL with a space inside", "content-length: 1 0", "hello", Refused),
    post!("CL empty", "content-length:", "", Refused),
    post!("CL beyond 64 bits", "content-length: 18446744073709551617", "x", Refused),
    post!("CL with a space before the colon", "content-length : 5", "hello", Refused),
    post!("CL in a folded line", "content-length:\r\n 5", "hello", Refused),
    post!("CL with zeroes before", "content-length: 0005", "hello", Either("hello")),
    post!("CL with spaces around", "content-length:   5  ", "hello", Forwarded("hello")),
    post!(
        "CL named by Connection",
        "content-length: 5\r\nconnection: content-length",
        "hello",
        Either("hello")
    ),
    post!(
        "TE named by Connection",
        "transfer-encoding: chunked\r\nconnection: transfer-encoding",
        "5\r\nhello\r\n0\r\n\r\n",
        Either("hello")
    ),
];

pub(super) const HEADS: &[Case] = &[
    case("all lines end in LF", b"GET /case HTTP/1.1\nhost: a\n\n", Either("")),
    get!("a NUL in a value", "host: a\r\nx: a\0b", Refused),
    get!("a bare CR in a value", "host: a\r\nx: a\rb", Refused),
    get!("a folded line", "host: a\r\nx: a\r\n b", Refused),
    get!("a folded first line", " x: y\r\nhost: a", Refused),
    get!("no colon", "host: a\r\nnocolon", Refused),
    get!("no name", "host: a\r\n: x", Refused),
    get!("a space in a name", "host: a\r\nx y: z", Refused),
    get!("a space before a colon", "host: a\r\nx : z", Refused),
    get!("a parenthesis in a name", "host: a\r\nx(y): z", Refused),
    get!("a control character in a name", "host: a\r\nx\u{1}: z", Refused),
    get!("a name that is not ASCII", "host: a\r\n\u{fc}: z", Refused),
    get!("a control character in a value", "host: a\r\nx: \u{1b}[2J", Refused),
    case("an empty line before", b"\r\nGET /case HTTP/1.1\r\nhost: a\r\n\r\n", Either("")),
    case("a space before", b" GET /case HTTP/1.1\r\nhost: a\r\n\r\n", Refused),
    line!("no version", "GET /case", Refused),
    line!("a version in small letters", "GET /case http/1.1", Refused),
    line!("a version far ahead", "GET /case HTTP/9.9", Refused),
    line!("version 2 in version 1's words", "GET /case HTTP/2.0", Refused),
    line!("version 1.2", "GET /case HTTP/1.2", Either("")),
    line!("something behind the version", "GET /case HTTP/1.1 x", Refused),
    line!("two spaces", "GET  /case HTTP/1.1", Answered),
    line!("tabs for spaces", "GET\t/case\tHTTP/1.1", Refused),
    line!("no method", " /case HTTP/1.1", Refused),
    line!("a method that is none", "G(T /case HTTP/1.1", Refused),
    line!("a method in small letters", "get /case HTTP/1.1", Either("")),
    case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused),
    case("a TLS hello", b"\x16\x03\x01\x00\x05hello\r\n\r\n", Refused),
    get!(
        "an upgrade to h2c",
        "host: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__",
        Either("")
    ),
];

pub(super) const TARGETS: &[Case] = &[
    get!("no Host", "x: y", Answered),
    get!("two Hosts", "host: a\r\nhost: b", Refused),
    get!("the same Host twice", "host: a\r\nhost: a", Refused),
    get!("a list of Hosts", "host: a, b", Answered),
    get!("a Host with a space", "host: a b", Answered),
    get!("a Host with a path", "host: a/b", Answered),
    get!("a Host with a user", "host: u@a", Refused),
    get!("a Host with a port that is none", "host: a:b", Answered),
    get!("a Host with a NUL", "host: a\0b", Refused),
    get!(
        "a Host that is too long",
        "host: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        Answered
    ),
    get!("a Host behind a space before the colon", "host : a", Refused),
    line!("absolute, another host", "GET http://b/case HTTP/1.1", Refused),
    line!("absolute, a user", "GET http://u@a/case HTTP/1.1", Refused),
    line!("absolute, the same host", "GET http://a/case HTTP/1.1", Forwarded("")),
    line!("absolute, another scheme", "GET ftp://a/case HTTP/1.1", Either("")),
    line!("an authority for a GET", "GET a:80 HTTP/1.1", Answered),
    line!("an asterisk for a GET", "GET * HTTP/1.1", Answered),
    line!("a target without a slash", "GET case HTTP/1.1", Answered),
    line!("a space in the target", "GET /ca se HTTP/1.1", Either("")),
    line!("no target", "GET HTTP/1.1", Refused),
    line!("a NUL in the target", "GET /ca\0se HTTP/1.1", Answered),
    line!("an escaped NUL in the target", "GET /ca%00se HTTP/1.1", Answered),
    line!("a control character in the target", "GET /ca\u{1}se HTTP/1.1", Either("")),
    line!("dots", "GET /a/../case HTTP/1.1", Answered),
    line!("escaped dots", "GET /a/%2e%2e/case HTTP/1.1", Answered),
    line!("CONNECT", "CONNECT a:443 HTTP/1.1", Answered),
];

pub(super) const BODIES: &[Case] = &[
    case("CL.0", b"GET /case HTTP/1.1\r\nhost: a\r\ncontent-length: 37\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: abcde\r\n", Forwarded("GET /smuggled HTTP/1.1\r\nhost: abcde\r\n")),
    case("a chunked GET", b"GET /case HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Forwarded("hello")),
    case("a HEAD with a body", b"HEAD /case HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", Either("hello")),
    case("a TRACE with a body", b"TRACE /case HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", Either("hello")),
    case("a POST without a length", b"POST /case HTTP/1.1\r\nhost: a\r\n\r\n", Either("")),
    post!("a body that is expected", "content-length: 5\r\nexpect: 100-continue", "hello", Forwarded("hello")),
    post!("an expectation that nobody knows", "content-length: 5\r\nexpect: miracles", "hello", Either("hello")),
];

pub(super) const CHUNKS: &[Case] = &[
    chunked!("an extension", "5;a=b\r\nhello\r\n0\r\n\r\n", Forwarded("hello")),
    chunked!("a quoted extension", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", Forwarded("hello")),
    chunked!("a line's end within an extension", "5;a=\"\r\nhello\r\n0\r\n\r\n", Either("hello")),
    chunked!("a bare LF within an extension", "5;a=b\nhello\r\n0\r\n\r\n", CutOff),
    chunked!("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n", CutOff),
    chunked!("a negative size", "-5\r\nhello\r\n0\r\n\r\n", CutOff),
    chunked!("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n", CutOff),
    // What reads it for pingora takes no digits for a zero. What follows is a trailer, to an empty line.
    chunked!("no size", "\r\nhello\r\n0\r\n\r\n", Forwarded("")),
    chunked!("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n", CutOff),
    chunked!("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n", CutOff),
    chunked!("a space before the size", " 5\r\nhello\r\n0\r\n\r\n", CutOff),
    chunked!("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n", CutOff),
    chunked!("a bare CR behind the size", "5\rhello\r\n0\r\n\r\n", CutOff),
    chunked!("more data than the size says", "5\r\nhelloGET /smuggled HTTP/1.1\r\n0\r\n\r\n", CutOff),
    chunked!("a bare LF behind the data", "5\r\nhello\n0\r\n\r\n", CutOff),
    chunked!("capitals", "A\r\nhellohello\r\n0\r\n\r\n", Forwarded("hellohello")),
    chunked!("zeroes before the size", "0005\r\nhello\r\n000\r\n\r\n", Either("hello")),
    chunked!("a trailer", "5\r\nhello\r\n0\r\nx: y\r\n\r\n", Either("hello")),
    chunked!("a trailer that is a length", "5\r\nhello\r\n0\r\ncontent-length: 50\r\n\r\n", Either("hello")),
];

pub(super) const LARGE: &[Case] = &[
    Case {
        name: "a long target",
        request: Request::Repeated("GET /", "a", 1 << 16, " HTTP/1.1\r\nhost: a\r\n\r\n"),
        outcome: Refused,
    },
    Case {
        name: "a long value",
        request: Request::Repeated("GET /case HTTP/1.1\r\nhost: a\r\nx: ", "a", 1 << 16, "\r\n\r\n"),
        outcome: Answered,
    },
    Case {
        name: "a long name",
        request: Request::Repeated("GET /case HTTP/1.1\r\nhost: a\r\n", "a", 1 << 16, ": x\r\n\r\n"),
        outcome: Refused,
    },
    Case {
        name: "many fields",
        request: Request::Repeated("GET /case HTTP/1.1\r\nhost: a\r\n", "x: y\r\n", 10_000, "\r\n"),
        outcome: Refused,
    },
    Case {
        name: "a head without end",
        request: Request::Repeated("GET /case HTTP/1.1\r\nhost: a\r\n", "x: y\r\n", 300_000, ""),
        outcome: Refused,
    },
    Case {
        name: "a long extension of a chunk",
        request: Request::Repeated(
            "POST /case HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;",
            "a",
            1 << 20,
            "\r\nhello\r\n0\r\n\r\n",
        ),
        outcome: CutOff,
    },
    Case {
        name: "a long trailer",
        request: Request::Repeated(
            "POST /case HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            "x: y\r\n",
            200_000,
            "\r\n",
        ),
        outcome: CutOff,
    },
];
