//! What becomes smaller on its way to clients.

/// `route.compress`: which responses are compressed for clients that take it, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// In the order of preference, each once and not none.
    pub algorithms: Vec<Coding>,
    /// Responses that say that they are shorter stay as they are, bytes.
    pub min_length: u64,
    /// Media types in lower case, without parameters.
    pub types: Vec<String>,
    /// 1 to 6, on each algorithm's own scale.
    pub level: u8,
}

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}
