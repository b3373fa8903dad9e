//! What travels between two processes: frames over a unix stream, little-endian.

/// EFA's kind of address: a GID, a queue pair's number, and a key that tells two of the same number apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(pub(crate) [u8; Address::BYTES]);

impl Address {
    pub(crate) const BYTES: usize = 32;
    /// One host, one GID.
    const GID: [u8; 16] = *b"\xfe\x80strict-nic-gid";

    pub(crate) fn new(qpn: u16, qkey: u32) -> Self {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&Self::GID);
        bytes[16..18].copy_from_slice(&qpn.to_le_bytes());
        bytes[20..24].copy_from_slice(&qkey.to_le_bytes());
        Self(bytes)
    }

    /// The name of the listening socket, in the abstract namespace: no file stays behind. Without the key, as packets find a
    /// queue pair by its number alone.
    pub(crate) fn socket(&self) -> Vec<u8> {
        let qpn = u16::from_le_bytes([self.0[16], self.0[17]]);
        format!("baton-strict-provider-{qpn}").into_bytes()
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let qkey = u32::from_le_bytes([self.0[20], self.0[21], self.0[22], self.0[23]]);
        write!(f, "qpn {} key {qkey:08x}", u16::from_le_bytes([self.0[16], self.0[17]]))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// First of a link: who calls, and whom it means.
    Hello {
        from: Address,
        to: Address,
    },
    Write {
        op: u64,
        delivery: bool,
        immediate: Option<u32>,
        key: u64,
        address: u64,
        payload: Vec<u8>,
    },
    Read {
        op: u64,
        key: u64,
        address: u64,
        len: u64,
    },
    /// Zero, or EFA's status.
    Ack {
        op: u64,
        status: u32,
    },
    Data {
        op: u64,
        payload: Vec<u8>,
    },
}

const HEADER_BYTES: usize = 5;

impl Frame {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let tag = match self {
            Self::Hello { from, to } => {
                out.extend_from_slice(&from.0);
                out.extend_from_slice(&to.0);
                1
            }
            Self::Write { op, delivery, immediate, key, address, payload } => {
                put(out, &[*op, *key, *address, u64::from(immediate.unwrap_or_default())]);
                out.push(u8::from(*delivery) | u8::from(immediate.is_some()) << 1);
                out.extend_from_slice(payload);
                2
            }
            Self::Read { op, key, address, len } => {
                put(out, &[*op, *key, *address, *len]);
                3
            }
            Self::Ack { op, status } => {
                put(out, &[*op, u64::from(*status)]);
                4
            }
            Self::Data { op, payload } => {
                put(out, &[*op]);
                out.extend_from_slice(payload);
                5
            }
        };
        let len = (out.len() - start - HEADER_BYTES) as u32;
        out[start] = tag;
        out[start + 1..start + HEADER_BYTES].copy_from_slice(&len.to_le_bytes());
    }

    /// The first frame of `input` and its length; `None` while it is not whole. `Err`: these are no frames of ours.
    pub(crate) fn decode(input: &[u8]) -> Result<Option<(Self, usize)>, ()> {
        let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let frame = Self::decode_body(header[0], body).ok_or(())?;
        Ok(Some((frame, HEADER_BYTES + len)))
    }

    fn decode_body(tag: u8, mut body: &[u8]) -> Option<Self> {
        let body = &mut body;
        Some(match tag {
            1 => Self::Hello { from: Address(chunk(body)?), to: Address(chunk(body)?) },
            2 => {
                let (op, key, address, data) = (word(body)?, word(body)?, word(body)?, word(body)?);
                let [bits] = chunk(body)?;
                let immediate = (bits & 2 != 0).then_some(data as u32);
                Self::Write { op, delivery: bits & 1 != 0, immediate, key, address, payload: body.to_vec() }
            }
            3 => Self::Read { op: word(body)?, key: word(body)?, address: word(body)?, len: word(body)? },
            4 => Self::Ack { op: word(body)?, status: word(body)? as u32 },
            5 => Self::Data { op: word(body)?, payload: body.to_vec() },
            _ => return None,
        })
    }
}

fn put(out: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

fn chunk<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*chunk)
}

fn word(body: &mut &[u8]) -> Option<u64> {
    chunk(body).map(u64::from_le_bytes)
}
