//! The message that carries immediates: which writes of a peer are in the target's memory.
//!
//! Eight bytes of token, then four bytes of each immediate, little-endian. The target made the token up for one peer; it
//! says whose writes they are, and a message without a live one is not listened to.

/// Immediates in one message; it then fits one packet of every transport.
pub(super) const MAX_IMMEDIATES: usize = 1024;
const TOKEN_BYTES: usize = 8;
const IMMEDIATE_BYTES: usize = 4;
pub(super) const MAX_BYTES: usize = TOKEN_BYTES + MAX_IMMEDIATES * IMMEDIATE_BYTES;

/// Starts an empty message in `message`.
pub(super) fn begin(message: &mut Vec<u8>, token: u64) {
    message.clear();
    message.extend_from_slice(&token.to_le_bytes());
}

pub(super) fn add(message: &mut Vec<u8>, immediate: u32) {
    message.extend_from_slice(&immediate.to_le_bytes());
}

/// Takes a message apart: the token, and the immediates if they are sound. `None` when not even a token is there.
pub(super) fn parse(message: &[u8]) -> Option<(u64, Result<impl Iterator<Item = u32>, String>)> {
    let (token, rest) = message.split_first_chunk::<TOKEN_BYTES>()?;
    let (immediates, odd) = rest.as_chunks::<IMMEDIATE_BYTES>();
    let sound = odd.is_empty() && (1..=MAX_IMMEDIATES).contains(&immediates.len());
    let immediates = immediates.iter().copied().map(u32::from_le_bytes);
    let reason = || format!("a message of {} bytes is no list of immediates", message.len());
    Some((u64::from_le_bytes(*token), if sound { Ok(immediates) } else { Err(reason()) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(token: u64, immediates: &[u32]) -> Vec<u8> {
        let mut message = vec![7; 3];
        begin(&mut message, token);
        immediates.iter().for_each(|&immediate| add(&mut message, immediate));
        message
    }

    proptest! {
        #[test]
        fn immediates_read_back_as_written(
            token: u64,
            immediates in proptest::collection::vec(any::<u32>(), 1..=MAX_IMMEDIATES),
        ) {
            let message = written(token, &immediates);
            prop_assert!(message.len() <= MAX_BYTES);
            let (read, found) = parse(&message).unwrap();
            prop_assert_eq!((read, found.unwrap().collect::<Vec<_>>()), (token, immediates));
        }

        #[test]
        fn no_bytes_are_too_odd(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            match parse(&message) {
                None => prop_assert!(message.len() < TOKEN_BYTES),
                Some((_, Ok(immediates))) => {
                    prop_assert_eq!(TOKEN_BYTES + immediates.count() * IMMEDIATE_BYTES, message.len())
                }
                Some((_, Err(_))) => prop_assert!(message.len() == 8 || message.len() % 4 != 0),
            }
        }
    }

    #[test]
    fn too_many_or_no_immediates_are_refused() {
        for count in [0, MAX_IMMEDIATES + 1] {
            let message = written(1, &vec![5; count]);
            assert!(matches!(parse(&message), Some((1, Err(_)))), "{count}");
        }
    }
}
