//! libfabric's offers: an address that the library will read, and where to write.

use super::{Accepted, Refused, Verdict};
use crate::fabric::libfabric::fuzz;

/// Our own address, as a provider with addresses of one size has it.
const OWN: &[u8] = &[5; 16];
/// A large pool, and the largest.
const POOLS: [u64; 2] = [80 << 30, isize::MAX as u64];

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let mut verdict = Refused;
    for (string, pool) in [(true, POOLS[0]), (false, POOLS[0]), (true, POOLS[1]), (false, POOLS[1])] {
        let Ok(rails) = fuzz::check(bytes, OWN, string, pool) else { continue };
        verdict = Accepted;
        assert!((1..=32).contains(&rails.len()));
        for (address, base, _) in &rails {
            assert!(base.checked_add(pool).is_some(), "every byte of the pool has an address");
            if string {
                assert_eq!(address.iter().position(|&byte| byte == 0), Some(address.len() - 1), "one end");
                assert!((2..=256).contains(&address.len()));
            } else {
                assert_eq!(address.len(), OWN.len(), "the library reads as much as its own have");
            }
        }
        let again = fuzz::check(&fuzz::encode(&rails), OWN, string, pool);
        assert_eq!(again.ok(), Some(rails), "reads back as written");
    }
    verdict
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let rail = |base, key| (OWN.to_vec(), base, key);
    vec![
        ("fixed", fuzz::encode(&[rail(0, 7)])),
        ("virtual", fuzz::encode(&[rail(0x7f00_0000_0000, u64::MAX)])),
        ("string", fuzz::encode(&[(b"fi_shm://17:0:0\0".to_vec(), 0, 1)])),
        ("four_rails", fuzz::encode(&[1, 2, 3, 4].map(|key| rail(key << 32, key)))),
    ]
}
