//! How to reach a pool through UCX, as a peer is told.

use prost::Message;
use twox_hash::XxHash3_64;

use super::library::fault;
use crate::FabricError;

/// Longest worker address and packed key that are looked at; real ones have some hundred bytes.
const MAX_BYTES: usize = 4096;
/// UCX takes the length of neither and reads on as the bytes themselves say, so zeros follow them. A key has at most 64 parts
/// of at most 255 bytes, and a part of zeros is empty; an address of zeros is refused at its 128th entry. Both end in here.
const PADDING: usize = 64 << 10;

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    /// Address of the pool's first byte.
    #[prost(uint64, tag = "3")]
    base: u64,
    /// What the messages of this peer begin with.
    #[prost(fixed64, tag = "4")]
    token: u64,
    #[prost(fixed64, tag = "5")]
    checksum: u64,
}

impl Wire {
    fn sum(&self) -> u64 {
        let numbers = [self.address.len() as u64, self.base, self.token].map(u64::to_le_bytes);
        XxHash3_64::oneshot(&[numbers.as_flattened(), &self.address, &self.key].concat())
    }
}

/// What a peer offered, checked as far as it can be.
///
/// What UCX does not check: that address and key are ones that it made. Of a garbled address it may make an assertion that
/// ends the process, so a checksum refuses garbled ones; forged ones must not come, and do not from the receiver that a
/// ticket names, whose control connection brings them. A range outside the peer's pool is not refused by the peer either on transports whose
/// "key" is a formality (tcp, posix, sysv, cma): this side keeps to the pool's length.
pub(super) struct Offered {
    /// Followed by [`PADDING`] zeros, as is the key.
    pub(super) address: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) base: u64,
    pub(super) token: u64,
}

pub(super) fn write(address: &[u8], key: &[u8], base: u64, token: u64) -> Vec<u8> {
    let mut wire = Wire { address: address.to_vec(), key: key.to_vec(), base, token, checksum: 0 };
    wire.checksum = wire.sum();
    wire.encode_to_vec()
}

pub(super) fn read(bytes: &[u8], region_bytes: u64) -> Result<Offered, FabricError> {
    let wire = Wire::decode(bytes).map_err(|error| fault("connect", &error))?;
    for (what, bytes) in [("address", &wire.address), ("key", &wire.key)] {
        if !(1..=MAX_BYTES).contains(&bytes.len()) {
            let reason = format!("the peer's {what} has {} bytes, not 1 to {MAX_BYTES}", bytes.len());
            return Err(fault("connect", &reason));
        }
    }
    if wire.checksum != wire.sum() {
        return Err(fault("connect", &"the peer's offer is garbled"));
    }
    if wire.base == 0 || wire.base.checked_add(region_bytes).is_none() {
        return Err(fault("connect", &"the peer's pool leaves the address space"));
    }
    let Wire { address, key, base, token, .. } = wire;
    Ok(Offered { address: padded(address), key: padded(key), base, token })
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len() + PADDING, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_read_back_and_odd_ones_are_refused() {
        let offered = read(&write(b"address", b"key", 4096, 7), 1 << 20).unwrap();
        assert_eq!(offered.address[..8], *b"address\0");
        assert_eq!(offered.key.len(), 3 + PADDING);
        assert_eq!((offered.base, offered.token), (4096, 7));
        let long = vec![1; MAX_BYTES + 1];
        let odd = [
            write(b"", b"key", 4096, 7),
            write(b"address", b"", 4096, 7),
            write(&long, b"key", 4096, 7),
            write(b"address", &long, 4096, 7),
            write(b"address", b"key", 0, 7),
            write(b"address", b"key", u64::MAX - 10, 7),
            b"\xff\xff".to_vec(),
        ];
        for bytes in odd {
            assert!(read(&bytes, 1 << 20).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_offer_with_any_other_byte_or_none_is_refused() {
        let sound = write(b"address", b"key", 4096, 7);
        for at in 0..sound.len() {
            let mut garbled = sound.clone();
            garbled[at] ^= 1;
            assert!(read(&garbled, 1 << 20).is_err(), "byte {at}");
            assert!(read(&sound[..at], 1 << 20).is_err(), "{at} bytes");
        }
    }
}
