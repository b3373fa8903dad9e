//! What agents tell each other over the control connection, and how far it is believed.

use std::ffi::CString;

use prost::Message;

use super::object::fault;
use crate::FabricError;

/// Bytes of an agent's name.
const MAX_NAME_BYTES: usize = 128;
/// Bytes of metadata: addresses on each device, and the keys of one region (some hundred bytes; a few KiB with many NICs).
const MAX_METADATA_BYTES: usize = 64 << 10;
/// How NIXL's metadata begins.
const METADATA_START: &[u8] = b"nixlSerDes|Agent";

/// How to reach a pool through NIXL.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OfferWire {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) agent: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) metadata: Vec<u8>,
    /// Address of the pool's first byte.
    #[prost(fixed64, tag = "3")]
    pub(super) base: u64,
}

/// An offer whose form is right. Whether the memory is registered there, NIXL sees from the metadata at each request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CheckedOffer {
    pub(super) agent: CString,
    pub(super) metadata: Vec<u8>,
    pub(super) base: u64,
}

impl CheckedOffer {
    pub(super) fn decode(bytes: &[u8], region_bytes: u64) -> Result<Self, FabricError> {
        let wire = OfferWire::decode(bytes).map_err(|error| fault("connect", &error))?;
        let agent = agent_name(&wire.agent)?;
        if wire.metadata.len() > MAX_METADATA_BYTES {
            let reason = format!("{} bytes of metadata, at most {MAX_METADATA_BYTES}", wire.metadata.len());
            return Err(fault("connect", &reason));
        }
        // Metadata under another peer's name would change what is known of that one.
        if named_in(&wire.metadata) != Some(&wire.agent[..]) {
            return Err(fault("connect", &"the metadata is not that of the agent which offers it"));
        }
        if wire.base == 0 || wire.base.checked_add(region_bytes).is_none() {
            return Err(fault("connect", &"the peer's pool leaves the address space"));
        }
        Ok(Self { agent, metadata: wire.metadata, base: wire.base })
    }
}

/// A name that can go through C, and into a log.
pub(super) fn agent_name(name: &[u8]) -> Result<CString, FabricError> {
    let sound = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    match CString::new(name) {
        Ok(name) if sound => Ok(name),
        _ => Err(fault("name a peer", &format!("{} bytes that are not an agent's name", name.len()))),
    }
}

/// The agent that a piece of NIXL metadata says it is of: tag, length as 8 bytes, text.
fn named_in(metadata: &[u8]) -> Option<&[u8]> {
    let (len, rest) = metadata.strip_prefix(METADATA_START)?.split_first_chunk()?;
    rest.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(name: &[u8]) -> Vec<u8> {
        [METADATA_START, &(name.len() as u64).to_le_bytes(), name, b"|Conns"].concat()
    }

    fn offer() -> OfferWire {
        OfferWire { agent: b"prefill-1".to_vec(), metadata: metadata(b"prefill-1"), base: 1 << 40 }
    }

    fn decode(wire: &OfferWire) -> Result<CheckedOffer, FabricError> {
        CheckedOffer::decode(&wire.encode_to_vec(), 4096)
    }

    #[test]
    fn an_offer_reads_back_as_made() {
        let checked = decode(&offer()).unwrap();
        assert_eq!((checked.agent.to_bytes(), checked.base), (&b"prefill-1"[..], 1 << 40));
        assert_eq!(checked.metadata, metadata(b"prefill-1"));
    }

    #[test]
    fn offers_of_an_odd_form_are_refused() {
        let bad = [
            OfferWire { agent: Vec::new(), ..offer() },
            OfferWire { agent: b"two words".to_vec(), ..offer() },
            OfferWire { agent: b"nul\0".to_vec(), ..offer() },
            OfferWire { agent: vec![b'a'; MAX_NAME_BYTES + 1], ..offer() },
            OfferWire { metadata: Vec::new(), ..offer() },
            OfferWire { metadata: metadata(b"decode-1"), ..offer() },
            OfferWire { metadata: metadata(b"prefill-1")[..20].to_vec(), ..offer() },
            OfferWire { metadata: [METADATA_START, &[0xff; 8], b"prefill-1"].concat(), ..offer() },
            OfferWire { metadata: vec![0; MAX_METADATA_BYTES + 1], ..offer() },
            OfferWire { base: 0, ..offer() },
            OfferWire { base: u64::MAX - 4095, ..offer() },
        ];
        for wire in bad {
            assert!(decode(&wire).is_err(), "{wire:?}");
        }
        assert!(CheckedOffer::decode(&[0xff; 9], 4096).is_err());
    }
}
