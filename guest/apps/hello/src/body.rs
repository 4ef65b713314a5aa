//! Where the bytes of a body are among the bytes of a connection (RFC 9112, 6 and 7.1).

use crate::head::Framing;

/// Most bytes of a chunk's size line, and of all trailer fields.
const LINE_MAX: u32 = 4096;

/// The framing of a body is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadChunk;

/// What the next bytes of the connection are: first `skip` bytes of framing, then `data` bytes of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) skip: usize,
    pub(crate) data: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a chunk's size, of which so many digits were read.
    Size {
        size: u64,
        digits: u8,
    },
    /// Behind `;` in a size line.
    Extension {
        size: u64,
    },
    /// Behind the CR of a size line.
    SizeEnd {
        size: u64,
    },
    /// In a chunk, or in a body of known length.
    Data {
        left: u64,
    },
    /// Behind a chunk: CR.
    ChunkCr,
    /// Behind a chunk: LF.
    ChunkLf,
    /// At the start of a trailer line.
    TrailerStart,
    /// In a trailer line.
    Trailer,
    /// Behind the CR of a trailer line.
    TrailerLf,
    /// Behind the CR of the empty line.
    LastLf,
    Done,
}

/// Walks through one body.
pub(crate) struct Decoder {
    state: State,
    chunked: bool,
    line: u32,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        let (state, chunked) = match framing {
            Framing::Length(0) => (State::Done, false),
            Framing::Length(left) => (State::Data { left }, false),
            Framing::Chunked => (State::Size { size: 0, digits: 0 }, true),
        };
        Self { state, chunked, line: 0 }
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What the start of `input` is. A piece that is shorter than `input` without data means that the body has ended.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<Piece, BadChunk> {
        for (skip, byte) in input.iter().enumerate() {
            match self.state {
                State::Done => return Ok(Piece { skip, data: 0 }),
                State::Data { left } => {
                    let rest = input.len() - skip;
                    let data = usize::try_from(left).map_or(rest, |left| left.min(rest));
                    self.advance(left - data as u64);
                    return Ok(Piece { skip, data });
                }
                framing => {
                    self.state = step(framing, *byte)?;
                    self.line += 1;
                    if self.line > LINE_MAX {
                        return Err(BadChunk);
                    }
                }
            }
        }
        Ok(Piece { skip: input.len(), data: 0 })
    }

    fn advance(&mut self, left: u64) {
        self.line = 0;
        self.state = match left {
            0 if self.chunked => State::ChunkCr,
            0 => State::Done,
            left => State::Data { left },
        };
    }
}

/// The state behind one byte of framing.
fn step(state: State, byte: u8) -> Result<State, BadChunk> {
    match (state, byte) {
        (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
            let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
            Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
        }
        (State::Size { size, digits: 1.. }, b';') => Ok(State::Extension { size }),
        (State::Size { size, digits: 1.. }, b'\r') => Ok(State::SizeEnd { size }),
        (State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
        (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Extension { size }),
        (State::SizeEnd { size: 0 }, b'\n') => Ok(State::TrailerStart),
        (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
        (State::ChunkCr, b'\r') => Ok(State::ChunkLf),
        (State::ChunkLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
        (State::TrailerStart, b'\r') => Ok(State::LastLf),
        (State::Trailer, b'\r') => Ok(State::TrailerLf),
        (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Trailer),
        (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
        (State::LastLf, b'\n') => Ok(State::Done),
        _ => Err(BadChunk),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A body, and what follows it; `None`: it has not ended.
    type Decoded<'a> = Option<(Vec<u8>, &'a [u8])>;

    /// Gives `input` to the decoder in parts of `step` bytes.
    fn decode(framing: Framing, input: &[u8], step: usize) -> Result<Decoded<'_>, BadChunk> {
        let mut decoder = Decoder::new(framing);
        let (mut body, mut at) = (Vec::new(), 0);
        while at < input.len() && !decoder.is_done() {
            let part = &input[at..input.len().min(at + step)];
            let Piece { skip, data } = decoder.next(part)?;
            body.extend_from_slice(&part[skip..skip + data]);
            at += skip + data;
        }
        Ok(decoder.is_done().then(|| (body, &input[at..])))
    }

    #[test]
    fn chunks_with_extensions_and_trailers_are_read_however_they_arrive() {
        let input = b"5\r\nhello\r\n00A;name=\"va\tlue\"\r\n0123456789\r\n0\r\nTrailer: yes\r\n\r\nnext";
        for step in 1..input.len() {
            let (body, rest) = decode(Framing::Chunked, input, step).unwrap().unwrap();
            assert_eq!((body.as_slice(), rest), (&b"hello0123456789"[..], &b"next"[..]));
        }
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        for input in [
            &b"\r\n"[..],
            b";x\r\n",
            b"+5\r\n",
            b"0x5\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"5\n",
            b"5\rX",
            b"g\r\n",
            b"00000000000000005\r\n",
            b"1\r\nab",
            b"1\r\na\n",
            b"0\r\n\n",
            b"0\r\nA: b\n",
            b"5;\n\r\n",
        ] {
            assert_eq!(decode(Framing::Chunked, input, 100), Err(BadChunk), "{input:?}");
        }
        let long = [&b"1;"[..], &[b'x'; 5000]].concat();
        assert_eq!(decode(Framing::Chunked, &long, 100), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn what_is_chunked_comes_back(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6), step in 1usize..50) {
            let mut input = Vec::new();
            for part in &parts {
                input.extend(std::format!("{:X}\r\n", part.len()).bytes());
                input.extend(part);
                input.extend(b"\r\n");
            }
            input.extend(b"0\r\n\r\n");
            let (body, rest) = decode(Framing::Chunked, &input, step).unwrap().unwrap();
            prop_assert_eq!(body, parts.concat());
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_decode_the_same_however_they_arrive(input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'0'), any::<u8>()], 0..60), step in 1usize..20) {
            prop_assert_eq!(decode(Framing::Chunked, &input, step), decode(Framing::Chunked, &input, 100));
            prop_assert_eq!(decode(Framing::Length(7), &input, step), decode(Framing::Length(7), &input, 100));
        }
    }
}
