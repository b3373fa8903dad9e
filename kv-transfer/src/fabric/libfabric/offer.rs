//! What ends of a connection tell each other: the addresses of their rails, and how to reach the pool through each.

use prost::Message;

use super::fault;
use crate::FabricError;
use crate::fabric::MAX_RAILS;

/// Longest address that is a string.
const MAX_ADDRESS_BYTES: usize = 256;

/// The rails of a node that will write.
#[derive(Clone, PartialEq, prost::Message)]
struct AddressesWire {
    #[prost(bytes = "vec", repeated, tag = "1")]
    addresses: Vec<Vec<u8>>,
}

/// The rails of a node that is written to.
#[derive(Clone, PartialEq, prost::Message)]
struct OfferWire {
    #[prost(message, repeated, tag = "1")]
    rails: Vec<RailOffer>,
}

/// How to reach a pool through one rail.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RailOffer {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) address: Vec<u8>,
    /// Address of the pool's first byte: virtual, or zero where the provider counts from the region's start.
    #[prost(uint64, tag = "2")]
    pub(super) base: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) key: u64,
}

pub(super) fn encode_addresses(addresses: Vec<Vec<u8>>) -> Vec<u8> {
    AddressesWire { addresses }.encode_to_vec()
}

/// The rails' addresses; each is still to be checked.
pub(super) fn decode_addresses(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FabricError> {
    let wire = AddressesWire::decode(bytes).map_err(|error| fault("accept", &error))?;
    check_count("accept", wire.addresses.len())?;
    Ok(wire.addresses)
}

pub(super) fn encode_offers(rails: Vec<RailOffer>) -> Vec<u8> {
    OfferWire { rails }.encode_to_vec()
}

/// An offer of a pool of so many bytes; its addresses are still to be checked.
pub(super) fn decode_offers(bytes: &[u8], pool_bytes: u64) -> Result<Vec<RailOffer>, FabricError> {
    let wire = OfferWire::decode(bytes).map_err(|error| fault("connect", &error))?;
    check_count("connect", wire.rails.len())?;
    if wire.rails.iter().any(|rail| rail.base.checked_add(pool_bytes).is_none()) {
        return Err(fault("connect", &"the peer's pool leaves the address space"));
    }
    Ok(wire.rails)
}

fn check_count(operation: &'static str, rails: usize) -> Result<(), FabricError> {
    if (1..=MAX_RAILS).contains(&rails) {
        return Ok(());
    }
    Err(fault(operation, &format!("the peer names {rails} rails; 1 to {MAX_RAILS} are possible")))
}

/// The provider reads as many bytes as its own addresses have, or up to the NUL: make sure they are there.
pub(super) fn check_address(address: &[u8], own: &[u8], string: bool) -> Result<(), FabricError> {
    let first_nul = address.iter().position(|&byte| byte == 0);
    let sound = if string {
        address.len() <= MAX_ADDRESS_BYTES && first_nul == address.len().checked_sub(1) && address.len() > 1
    } else {
        address.len() == own.len()
    };
    if sound {
        return Ok(());
    }
    let reason =
        format!("the peer's address has {} bytes, an odd form beside ours of {}", address.len(), own.len());
    Err(fault("fi_av_insert", &reason))
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    //! What the fuzz target of offers needs: no fabric, so no library.
    use super::*;

    /// Address, base and key of one rail.
    pub(crate) type Rail = (Vec<u8>, u64, u64);

    /// Whether an offer would be used; its rails if so.
    pub(crate) fn check(bytes: &[u8], own: &[u8], string: bool, pool: u64) -> Result<Vec<Rail>, FabricError> {
        let rails = decode_offers(bytes, pool)?;
        rails.iter().try_for_each(|rail| check_address(&rail.address, own, string))?;
        Ok(rails.into_iter().map(|RailOffer { address, base, key }| (address, base, key)).collect())
    }

    pub(crate) fn encode(rails: &[Rail]) -> Vec<u8> {
        let offer =
            |(address, base, key): &Rail| RailOffer { address: address.clone(), base: *base, key: *key };
        encode_offers(rails.iter().map(offer).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_be_read_past_their_end_are_refused() {
        let own = [0u8; 16];
        assert!(check_address(&[1; 16], &own, false).is_ok());
        for len in [0, 15, 17] {
            assert!(check_address(&vec![1; len], &own, false).is_err());
        }
        assert!(check_address(b"fi_shm://1:0:0\0", b"x\0", true).is_ok());
        for bad in [&b""[..], b"\0", b"no end", b"two\0\0", b"in\0side\0", &[b'a'; 300]] {
            assert!(check_address(bad, b"x\0", true).is_err());
        }
    }

    #[test]
    fn no_rails_and_too_many_are_refused() {
        for (count, fits) in [(0, false), (1, true), (MAX_RAILS, true), (MAX_RAILS + 1, false)] {
            let addresses = encode_addresses(vec![vec![1; 16]; count]);
            assert_eq!(decode_addresses(&addresses).is_ok(), fits, "{count}");
            let offers = encode_offers(vec![RailOffer::default(); count]);
            assert_eq!(decode_offers(&offers, 1 << 30).is_ok(), fits, "{count}");
        }
    }
}
