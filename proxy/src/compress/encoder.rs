//! One body on its way through a compressor.
//!
//! What it takes is bounded whatever the body: windows are at most 128 KiB, tables are as large as they and the level
//! want them, and the output of one piece is little more than the piece.

use std::fmt;
use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use weir_config::model::Coding;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as ZstdEncoder;

/// Of zstd and brotli, as a power of two: 128 KiB. RFC 8878 wants clients to take 8 MiB, memory here wants less.
const WINDOW_LOG: u32 = 17;
/// Brotli hands its output over in pieces of so many bytes.
const BROTLI_PIECE: usize = 16 * 1024;

/// A compressor with the bytes that it has put out.
pub(super) struct Encoder {
    stream: Stream,
    /// After each piece what it means is sent: nobody knows when the next one comes.
    flushes: bool,
}

enum Stream {
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    /// Boxed, being several KiB large; `None`: finished.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// `length`: the body's, bytes, if it is known; then it is whole so soon that pieces need not be sent one by one.
    pub(super) fn new(coding: Coding, level: u8, length: Option<u64>) -> io::Result<Self> {
        let stream = match coding {
            Coding::Zstd => Stream::Zstd(zstd_encoder(level, length)?),
            Coding::Brotli => Stream::Brotli(Some(Box::new(brotli_encoder(level, length)))),
            Coding::Gzip => Stream::Gzip(GzEncoder::new(Vec::new(), Compression::new(u32::from(level)))),
        };
        Ok(Self { stream, flushes: length.is_none() })
    }

    /// The next bytes to send for the next bytes of the body; `None`: there are none yet. `ends`: it was the last piece.
    pub(super) fn encode(&mut self, piece: &[u8], ends: bool) -> io::Result<Option<Bytes>> {
        let output = match &mut self.stream {
            Stream::Zstd(encoder) => {
                encoder.write_all(piece)?;
                match ends {
                    true => encoder.do_finish()?,
                    false if self.flushes && !piece.is_empty() => encoder.flush()?,
                    false => {}
                }
                std::mem::take(encoder.get_mut())
            }
            Stream::Gzip(encoder) => {
                encoder.write_all(piece)?;
                match ends {
                    true => encoder.try_finish()?,
                    false if self.flushes && !piece.is_empty() => encoder.flush()?,
                    false => {}
                }
                std::mem::take(encoder.get_mut())
            }
            Stream::Brotli(writer) => encode_brotli(writer, piece, ends, self.flushes)?,
        };
        Ok((!output.is_empty()).then(|| output.into()))
    }
}

/// Brotli's end can only be had by giving the writer up.
fn encode_brotli(
    writer: &mut Option<Box<CompressorWriter<Vec<u8>>>>,
    piece: &[u8],
    ends: bool,
    flushes: bool,
) -> io::Result<Vec<u8>> {
    let Some(open) = writer else { return Ok(Vec::new()) };
    open.write_all(piece)?;
    if !ends {
        if flushes && !piece.is_empty() {
            open.flush()?;
        }
        return Ok(std::mem::take(open.get_mut()));
    }
    Ok(writer.take().map(|writer| writer.into_inner()).unwrap_or_default())
}

fn zstd_encoder(level: u8, length: Option<u64>) -> io::Result<ZstdEncoder<'static, Vec<u8>>> {
    let mut encoder = ZstdEncoder::new(Vec::new(), i32::from(level))?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    // Tables no larger than the body needs them.
    if length.is_some() {
        encoder.set_pledged_src_size(length)?;
    }
    Ok(encoder)
}

fn brotli_encoder(level: u8, length: Option<u64>) -> CompressorWriter<Vec<u8>> {
    let params = BrotliEncoderParams {
        quality: i32::from(level),
        lgwin: i32::try_from(WINDOW_LOG).expect("17 is an i32"),
        size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
        ..BrotliEncoderParams::default()
    };
    CompressorWriter::with_params(Vec::new(), BROTLI_PIECE, &params)
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coding = match self.stream {
            Stream::Zstd(_) => Coding::Zstd,
            Stream::Brotli(_) => Coding::Brotli,
            Stream::Gzip(_) => Coding::Gzip,
        };
        f.debug_struct("Encoder").field("coding", &coding).field("flushes", &self.flushes).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn decoded(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        match coding {
            Coding::Zstd => text = zstd::stream::decode_all(bytes)?,
            Coding::Brotli => drop(brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text)?),
            Coding::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut text)?),
        }
        Ok(text)
    }

    /// As much as can be read of the beginning of a body.
    fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut reader: Box<dyn Read> = match coding {
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        };
        let (mut text, mut byte) = (Vec::new(), [0]);
        while matches!(reader.read(&mut byte), Ok(1)) {
            text.push(byte[0]);
        }
        text
    }

    fn coding() -> impl Strategy<Value = Coding> {
        prop::sample::select(&[Coding::Zstd, Coding::Brotli, Coding::Gzip][..])
    }

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let noise = prop::collection::vec(any::<u8>(), 0..300);
        let text =
            ("[a-c ]{0,12}", 0_usize..20_000).prop_map(|(text, times)| text.repeat(times).into_bytes());
        prop::collection::vec(prop_oneof![noise, text], 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn what_was_compressed_is_what_was_sent(
            coding in coding(), level in 1_u8..=6, pieces in pieces(), known: bool, ends_empty: bool,
        ) {
            let whole = pieces.concat();
            let mut encoder = Encoder::new(coding, level, known.then_some(whole.len() as u64)).unwrap();
            let mut sent = Vec::new();
            let mut before = 0;
            for (index, piece) in pieces.iter().enumerate() {
                let ends = !ends_empty && index + 1 == pieces.len();
                let output = encoder.encode(piece, ends).unwrap();
                prop_assert!(output.as_ref().is_none_or(|output| !output.is_empty()), "an empty chunk is an end");
                sent.extend(output.unwrap_or_default());
                before += piece.len();
                if !known && !ends {
                    prop_assert_eq!(&decoded_so_far(coding, &sent)[..], &whole[..before], "nothing is held back");
                }
            }
            if ends_empty || pieces.is_empty() {
                sent.extend(encoder.encode(&[], true).unwrap().unwrap_or_default());
            }
            prop_assert_eq!(decoded(coding, &sent).unwrap(), whole.clone());
            prop_assert!(sent.len() <= whole.len() + whole.len() / 64 + 64 + 32 * pieces.len());
        }
    }

    #[test]
    fn a_body_that_is_not_as_long_as_it_said_is_an_error_or_whole() {
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            for said in [5, 50] {
                let mut encoder = Encoder::new(coding, 3, Some(said)).unwrap();
                let sent = encoder.encode(b"ten  bytes", true);
                if let Ok(Some(sent)) = sent {
                    assert_eq!(decoded(coding, &sent).unwrap(), b"ten  bytes");
                }
            }
        }
    }
}
