//! Length-prefixed frames with a bound on what is believed.

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::messages::{Body, Frame};

/// Bytes read at a time: an alleged length allocates no more than this before its bytes are here.
const READ_STEP_BYTES: usize = 64 << 10;

/// A frame that cannot be used; the connection is of no further use either.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("a frame of {len} bytes is over the limit of {limit}")]
    TooLong { len: usize, limit: usize },
    #[error("a frame does not decode: {0}")]
    Garbled(#[from] prost::DecodeError),
    #[error("a frame is empty, or of a kind that this version does not know")]
    Unknown,
    #[error(transparent)]
    Io(std::io::Error),
}

impl From<std::io::Error> for FrameError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// `len: u32 LE | protobuf`.
pub(crate) fn encode(body: Body) -> Vec<u8> {
    let frame = Frame { body: Some(body) };
    let len = frame.encoded_len();
    let mut bytes = Vec::with_capacity(4 + len);
    bytes.extend_from_slice(&(len as u32).to_le_bytes());
    frame.encode(&mut bytes).expect("a Vec grows");
    bytes
}

/// Reads exactly one frame and not a byte more (descriptors may follow it).
pub(crate) async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    limit: usize,
) -> Result<Body, FrameError> {
    let len = reader.read_u32_le().await? as usize;
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let step = READ_STEP_BYTES.min(len - bytes.len());
        let start = bytes.len();
        bytes.resize(start + step, 0);
        reader.read_exact(&mut bytes[start..]).await?;
    }
    Frame::decode(bytes.as_slice())?.body.ok_or(FrameError::Unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::messages::Key;
    use super::super::*;
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = block_on(read_frame(&mut bytes.as_slice(), 1 << 20));
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
            bytes.extend(body);
            let _ = block_on(read_frame(&mut bytes.as_slice(), 1 << 20));
        }

        #[test]
        fn frames_read_back_as_written(slot: u32, generation: u32, writes: u32, hashes: Vec<u8>) {
            let body = Body::Manifest(Manifest { key: Key { slot, generation }, writes, hashes, ..Manifest::default() });
            let mut wire = encode(body.clone());
            wire.push(b'!');
            let mut reader = wire.as_slice();
            prop_assert_eq!(block_on(read_frame(&mut reader, 1 << 20)).unwrap(), body);
            prop_assert_eq!(reader, b"!", "the byte after the frame is left alone");
        }
    }

    #[test]
    fn an_alleged_length_allocates_nothing() {
        let mut reader: &[u8] = &[0xff, 0xff, 0xff, 0x7f, 1];
        let error = block_on(read_frame(&mut reader, 100)).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { limit: 100, .. }), "{error}");
        let mut reader: &[u8] = &[50, 0, 0, 0, 1];
        assert!(matches!(block_on(read_frame(&mut reader, 100)), Err(FrameError::Closed)));
    }
}
