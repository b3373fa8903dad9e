//! A key as it is kept: `sha256:TAG:SALT:DIGEST`, in hexadecimal digits.
//!
//! The digest is SHA-256 over salt and key. The tag, by which a key is looked up, is the beginning of another SHA-256 over the
//! key: whoever tries keys cannot steer it, so that how long a look-up takes says nothing about a key.

use std::{fmt, str::FromStr};

use rand::{TryRngCore as _, rngs::OsRng};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::secret::{Secret, hex};

const SCHEME: &str = "sha256";
const TAG_BYTES: usize = 8;
const SALT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
/// Set the two hashes apart.
const FOR_TAG: &[u8] = b"baton api key, tag\0";
const FOR_DIGEST: &[u8] = b"baton api key, digest\0";

/// By which a key is found.
pub(crate) type Tag = [u8; TAG_BYTES];

/// A key's salted hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHash {
    tag: Tag,
    salt: [u8; SALT_BYTES],
    digest: [u8; DIGEST_BYTES],
}

/// A text that is no hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no hash of a key, which looks like sha256:TAG:SALT:DIGEST: make one with `baton key new` or `baton key hash`"
)]
pub struct NoKeyHash;

impl KeyHash {
    /// The hash of `secret` with a new salt.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn of(secret: &Secret) -> std::io::Result<Self> {
        let mut salt = [0; SALT_BYTES];
        OsRng.try_fill_bytes(&mut salt).map_err(std::io::Error::other)?;
        let key = secret.reveal().as_bytes();
        Ok(Self { tag: tag_of(key), salt, digest: digest(salt, key) })
    }

    /// One that no key has, where none is looked for.
    pub(crate) fn of_nothing() -> Self {
        Self { tag: Tag::default(), salt: [0; SALT_BYTES], digest: [0; DIGEST_BYTES] }
    }

    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// Whether `key` is the one; takes as long for every key of a length.
    pub(crate) fn matches(&self, key: &[u8]) -> Choice {
        digest(self.salt, key).ct_eq(&self.digest)
    }
}

pub(crate) fn tag_of(key: &[u8]) -> Tag {
    let whole = Sha256::new().chain_update(FOR_TAG).chain_update(key).finalize();
    let mut tag = Tag::default();
    tag.copy_from_slice(&whole[..TAG_BYTES]);
    tag
}

fn digest(salt: [u8; SALT_BYTES], key: &[u8]) -> [u8; DIGEST_BYTES] {
    #[cfg(test)]
    tests::DIGESTS.set(tests::DIGESTS.get() + 1);
    Sha256::new().chain_update(FOR_DIGEST).chain_update(salt).chain_update(key).finalize().into()
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}:{}:{}:{}", hex(&self.tag), hex(&self.salt), hex(&self.digest))
    }
}

impl FromStr for KeyHash {
    type Err = NoKeyHash;

    fn from_str(text: &str) -> Result<Self, NoKeyHash> {
        let mut parts = text.trim().split(':');
        let scheme = parts.next();
        let hash =
            Self { tag: bytes(parts.next())?, salt: bytes(parts.next())?, digest: bytes(parts.next())? };
        if scheme == Some(SCHEME) && parts.next().is_none() { Ok(hash) } else { Err(NoKeyHash) }
    }
}

fn bytes<const N: usize>(digits: Option<&str>) -> Result<[u8; N], NoKeyHash> {
    let digits = digits.filter(|digits| digits.len() == 2 * N && digits.is_ascii()).ok_or(NoKeyHash)?;
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| NoKeyHash)?;
    }
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Digests computed by this thread.
        pub(crate) static DIGESTS: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn a_hash_is_read_back_as_it_was_written_and_knows_its_key_alone() {
        let secret = Secret::generate().unwrap();
        let hash = KeyHash::of(&secret).unwrap();
        let text = hash.to_string();
        assert_eq!(text.parse::<KeyHash>(), Ok(hash.clone()));
        assert!(!text.contains(&secret.reveal()[9..]));
        assert!(bool::from(hash.matches(secret.reveal().as_bytes())));
        let mut wrong = secret.reveal().as_bytes().to_vec();
        *wrong.last_mut().unwrap() ^= 1;
        assert!(!bool::from(hash.matches(&wrong)));
        assert_ne!(KeyHash::of(&secret).unwrap(), hash, "another salt");
        assert_eq!(KeyHash::of(&secret).unwrap().tag(), hash.tag());
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let good = KeyHash::of(&Secret::generate().unwrap()).unwrap().to_string();
        let cut = &good[..good.len() - 1];
        let longer = format!("{good}:00");
        for text in [
            "",
            "sha256",
            "sk-baton-12",
            cut,
            &longer,
            &good.replace("sha256", "md5"),
            &good.replace('a', "é"),
        ] {
            if text != good {
                assert_eq!(text.parse::<KeyHash>(), Err(NoKeyHash), "{text}");
            }
        }
    }
}
