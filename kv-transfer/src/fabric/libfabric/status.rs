//! The efa provider's status codes, as what they mean to whoever reads a log.
//!
//! Numbers and meaning: prov/efa/src/efa_errno.h of libfabric. Below 4096 they are the device's, from there the provider's.

/// What a status of an efa completion says, and whose fault that is. Unknown ones are left to the provider's own text.
pub(super) fn meaning(status: i32) -> Option<&'static str> {
    Some(match status {
        1 => "cancelled: the endpoint was closed, or the peer removed, before it was done",
        5 => "our own registration does not cover the source (a bug here)",
        6 | 11 => "the message is longer than the device takes (a bug here)",
        7 => {
            "the peer's key or address is not valid there: the pool was registered anew, or the offer was wrong"
        }
        9 => "the peer's queue pair is gone: its process was restarted",
        8 | 13 | 4124 => "the peer does not respond any more: it died, or its host is cut off",
        14 => "the peer does not know this worker's address yet (it must insert it before the first write)",
        15 | 4126 => {
            "the peer never responded: it is gone, or security groups do not let EFA traffic through"
        }
        10 => "the peer is not ready to receive: its receive queue is empty, it does not poll",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_gone_peers_bad_keys_and_unready_receivers_are_told_apart() {
        for gone in [13, 15, 4124, 4126] {
            let text = meaning(gone).unwrap();
            assert!(text.contains("respond"), "{text}");
        }
        assert!(meaning(7).unwrap().contains("key"));
        assert!(meaning(10).unwrap().contains("not ready"));
        assert!(meaning(14).unwrap().contains("insert"));
        assert_eq!(meaning(4105), None, "left to the provider's own text");
    }
}
