//! Content codings (RFC 9110, section 8.4): decoding requests whole, and replies piece by piece on a copy.

use http::{HeaderMap, header};

/// A content coding that we decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    #[cfg(feature = "compression")]
    Gzip,
    #[cfg(feature = "compression")]
    Deflate,
    #[cfg(feature = "compression")]
    Brotli,
    #[cfg(feature = "compression")]
    Zstd,
}

/// The message has a coding that we do not decode, or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsupported;

/// Why a body was not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "compression"), expect(dead_code, reason = "only decoders make them"))]
pub(crate) enum DecodeError {
    /// It is larger than the limit when decoded.
    TooLarge,
    /// It grows as no text does.
    Bomb,
    /// It is not what its coding says, or ends early.
    Corrupt,
}

/// The coding of a message; `None` for identity.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Unsupported> {
    let mut codings = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    let Some(name) = codings.next() else { return Ok(None) };
    if codings.next().is_some() {
        return Err(Unsupported);
    }
    Coding::from_name(name).map(Some)
}

#[cfg(feature = "compression")]
pub(crate) use codecs::{Decoder, decode};
#[cfg(not(feature = "compression"))]
pub(crate) use without::{Decoder, decode};

#[cfg(not(feature = "compression"))]
mod without {
    use bytes::Bytes;

    use super::{Coding, DecodeError, Unsupported};

    impl Coding {
        pub(super) fn from_name(_: &[u8]) -> Result<Self, Unsupported> {
            Err(Unsupported)
        }
    }

    pub(crate) fn decode(coding: Coding, _: &Bytes, _: usize) -> Result<Bytes, DecodeError> {
        match coding {}
    }

    /// Without the feature there is no coding, so there is no decoder.
    pub(crate) struct Decoder(Coding);

    impl Decoder {
        pub(crate) fn new(coding: Coding, _: usize) -> Self {
            Self(coding)
        }

        pub(crate) fn push(&mut self, _: &[u8]) -> Result<Vec<u8>, DecodeError> {
            match self.0 {}
        }
    }
}

#[cfg(feature = "compression")]
mod codecs {
    use std::io::{self, Read, Write};

    use bytes::Bytes;
    use flate2::{read, write};

    use super::{Coding, DecodeError, Unsupported};

    impl Coding {
        pub(super) fn from_name(name: &[u8]) -> Result<Self, Unsupported> {
            match name.to_ascii_lowercase().as_slice() {
                b"gzip" | b"x-gzip" => Ok(Self::Gzip),
                b"deflate" => Ok(Self::Deflate),
                b"br" => Ok(Self::Brotli),
                b"zstd" => Ok(Self::Zstd),
                _ => Err(Unsupported),
            }
        }
    }

    /// A body may grow to this size whatever its ratio; beyond it, by at most [`MAX_RATIO`].
    const FREE_BYTES: usize = 1024 * 1024;
    /// JSON with long repetitions packs 50 to 1; a bomb of zeros 1,000 to 1 and more.
    const MAX_RATIO: usize = 200;
    const BUFFER: usize = 16 * 1024;
    /// Windows of up to 8 MiB, as RFC 9659 limits them for HTTP.
    const ZSTD_WINDOW_LOG: u32 = 23;

    /// Decodes a whole body to at most `limit` bytes.
    pub(crate) fn decode(coding: Coding, body: &Bytes, limit: usize) -> Result<Bytes, DecodeError> {
        let cap = limit.min(FREE_BYTES.max(body.len().saturating_mul(MAX_RATIO)));
        let mut decoded = Vec::new();
        // One byte more than the cap tells a body that fits from one that does not.
        let most = (cap as u64).saturating_add(1);
        let read = match coding {
            Coding::Gzip => read::MultiGzDecoder::new(&body[..]).take(most).read_to_end(&mut decoded),
            Coding::Deflate if is_zlib(body) => {
                read::ZlibDecoder::new(&body[..]).take(most).read_to_end(&mut decoded)
            }
            Coding::Deflate => read::DeflateDecoder::new(&body[..]).take(most).read_to_end(&mut decoded),
            Coding::Brotli => {
                brotli::Decompressor::new(&body[..], BUFFER).take(most).read_to_end(&mut decoded)
            }
            Coding::Zstd => zstd_reader(body).and_then(|reader| reader.take(most).read_to_end(&mut decoded)),
        };
        match read {
            Ok(length) if length > cap && cap < limit => Err(DecodeError::Bomb),
            Ok(length) if length > cap => Err(DecodeError::TooLarge),
            Ok(_) => Ok(decoded.into()),
            Err(_) => Err(DecodeError::Corrupt),
        }
    }

    fn zstd_reader(body: &[u8]) -> io::Result<zstd::Decoder<'static, &[u8]>> {
        let mut reader = zstd::Decoder::with_buffer(body)?;
        reader.window_log_max(ZSTD_WINDOW_LOG)?;
        Ok(reader)
    }

    /// `deflate` means the zlib format, but some senders leave its header out (RFC 9110, section 8.4.1.2).
    fn is_zlib(body: &[u8]) -> bool {
        matches!(body, [cmf, flags, ..] if cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flags]) % 31 == 0)
    }

    /// Decodes a copy of a reply as its pieces come. Boxed: replies are rarely compressed, and each has room for one.
    pub(crate) struct Decoder(Box<Kind>);

    enum Kind {
        Gzip(write::MultiGzDecoder<Capped>),
        /// Which deflate it is shows in its first two bytes.
        DeflateStart(Vec<u8>, usize),
        Zlib(write::ZlibDecoder<Capped>),
        Deflate(write::DeflateDecoder<Capped>),
        Brotli(Box<brotli::DecompressorWriter<Capped>>),
        Zstd(zstd::stream::write::Decoder<'static, Capped>),
        Broken,
    }

    impl Decoder {
        /// A decoder that gives at most `limit` bytes in all.
        pub(crate) fn new(coding: Coding, limit: usize) -> Self {
            let sink = Capped::new(limit);
            Self(Box::new(match coding {
                Coding::Gzip => Kind::Gzip(write::MultiGzDecoder::new(sink)),
                Coding::Deflate => Kind::DeflateStart(Vec::new(), limit),
                Coding::Brotli => Kind::Brotli(Box::new(brotli::DecompressorWriter::new(sink, BUFFER))),
                Coding::Zstd => zstd::stream::write::Decoder::new(sink)
                    .and_then(|mut decoder| decoder.window_log_max(ZSTD_WINDOW_LOG).map(|()| decoder))
                    .map_or(Kind::Broken, Kind::Zstd),
            }))
        }

        /// What these bytes decode to, as far as it is known yet.
        pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
            if let Kind::DeflateStart(start, limit) = &mut *self.0 {
                start.extend_from_slice(bytes);
                if start.len() < 2 {
                    return Ok(Vec::new());
                }
                let (start, sink) = (std::mem::take(start), Capped::new(*limit));
                *self.0 = if is_zlib(&start) {
                    Kind::Zlib(write::ZlibDecoder::new(sink))
                } else {
                    Kind::Deflate(write::DeflateDecoder::new(sink))
                };
                return self.push(&start);
            }
            match &mut *self.0 {
                Kind::Gzip(decoder) => pump(decoder, bytes, write::MultiGzDecoder::get_mut),
                Kind::Zlib(decoder) => pump(decoder, bytes, write::ZlibDecoder::get_mut),
                Kind::Deflate(decoder) => pump(decoder, bytes, write::DeflateDecoder::get_mut),
                Kind::Brotli(decoder) => pump(&mut **decoder, bytes, brotli::DecompressorWriter::get_mut),
                Kind::Zstd(decoder) => pump(decoder, bytes, zstd::stream::write::Decoder::get_mut),
                Kind::DeflateStart(..) | Kind::Broken => Err(DecodeError::Corrupt),
            }
        }
    }

    fn pump<W: Write>(
        writer: &mut W,
        bytes: &[u8],
        sink: fn(&mut W) -> &mut Capped,
    ) -> Result<Vec<u8>, DecodeError> {
        let written = writer.write_all(bytes).and_then(|()| writer.flush());
        let sink = sink(writer);
        match written {
            Ok(()) => Ok(std::mem::take(&mut sink.decoded)),
            Err(_) if sink.full => Err(DecodeError::TooLarge),
            Err(_) => Err(DecodeError::Corrupt),
        }
    }

    /// Takes bytes up to a limit and then fails.
    struct Capped {
        decoded: Vec<u8>,
        room: usize,
        full: bool,
    }

    impl Capped {
        fn new(limit: usize) -> Self {
            Self { decoded: Vec::new(), room: limit, full: false }
        }
    }

    impl Write for Capped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Some(room) = self.room.checked_sub(bytes.len()) else {
                self.full = true;
                return Err(io::ErrorKind::FileTooLarge.into());
            };
            self.room = room;
            self.decoded.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
