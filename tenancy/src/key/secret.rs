//! A key in the clear: made by us, or sent by a client. It is never shown by accident.

use std::{collections::BTreeSet, fmt};

use rand::{TryRngCore as _, rngs::OsRng};

/// Secret scanners know a key by it; clients of OpenAI expect "sk-".
const PREFIX: &str = "sk-baton-";
const SECRET_BYTES: usize = 32;
/// Longer ones are no keys; nobody is made to hash a megabyte.
const MOST_KEY_BYTES: usize = 512;
/// What a key of somebody else's making must have at least.
const LEAST_BITS: f64 = 128.0;

/// A key in the clear. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(String);

/// A key that could be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key could be guessed: {characters} characters, {distinct} different ones; make one with `baton key new`, or use at \
     least 32 random characters"
)]
pub struct WeakKey {
    characters: usize,
    distinct: usize,
}

impl Secret {
    /// A new key: 256 bits of the system's randomness.
    ///
    /// # Errors
    /// The system has none.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        OsRng.try_fill_bytes(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", hex(&bytes))))
    }

    /// A key that somebody brings along.
    ///
    /// # Errors
    /// [`WeakKey`]: one that could be guessed is none.
    pub fn try_new(text: &str) -> Result<Self, WeakKey> {
        let distinct = text.bytes().collect::<BTreeSet<_>>().len();
        let weak = WeakKey { characters: text.len(), distinct };
        let is_sendable = text.len() <= MOST_KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        let bits = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX))
            * f64::from(u32::try_from(distinct).unwrap_or(u32::MAX)).log2();
        if is_sendable && bits >= LEAST_BITS { Ok(Self(text.to_owned())) } else { Err(weak) }
    }

    /// The key itself: to show it once to whoever will use it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What an `Authorization` header may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer<'a> {
    /// Nothing: clients without a key send no header, or an empty one.
    Nothing,
    /// Something that may be a key.
    Key(&'a [u8]),
    /// No key for sure.
    Nonsense,
}

/// Reads the value of an `Authorization` header.
pub(crate) fn bearer(header: Option<&[u8]>) -> Bearer<'_> {
    let header = header.unwrap_or_default().trim_ascii();
    let space = header.iter().position(u8::is_ascii_whitespace).unwrap_or(header.len());
    let (scheme, key) = header.split_at(space);
    let key = key.trim_ascii();
    if scheme.is_empty() || (scheme.eq_ignore_ascii_case(b"bearer") && key.is_empty()) {
        Bearer::Nothing
    } else if scheme.eq_ignore_ascii_case(b"bearer") && key.len() <= MOST_KEY_BYTES {
        Bearer::Key(key)
    } else {
        Bearer::Nonsense
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_long_never_the_same_and_not_shown_by_debug() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(one.reveal().len(), PREFIX.len() + 2 * SECRET_BYTES);
        assert!(Secret::try_new(one.reveal()).is_ok());
        assert!(!format!("{one:?}").contains(&one.reveal()[PREFIX.len()..]));
    }

    #[test]
    fn a_key_that_could_be_guessed_is_refused_with_what_to_do() {
        let long_but_poor = "ab".repeat(60);
        let not_sendable = "x7Q!".repeat(200);
        for weak in ["", "secret", "correct horse battery staple 123", &long_but_poor, &not_sendable] {
            let error = Secret::try_new(weak).unwrap_err().to_string();
            assert!(error.contains("baton key new"), "{error}");
            assert!(weak.is_empty() || !error.contains(weak), "{error}");
        }
        assert!(Secret::try_new("0f1e2d3c4b5a69788796a5b4c3d2e1f0").is_ok());
    }

    #[test]
    fn a_header_is_a_key_nothing_or_nonsense() {
        let long = [b"Bearer ".as_slice(), &[b'x'; MOST_KEY_BYTES + 1]].concat();
        for (header, expected) in [
            (&b"Bearer abc"[..], Bearer::Key(b"abc")),
            (b" bearer   abc ", Bearer::Key(b"abc")),
            (b"", Bearer::Nothing),
            (b"Bearer", Bearer::Nothing),
            (b"Bearer ", Bearer::Nothing),
            (b"abc", Bearer::Nonsense),
            (b"Basic abc", Bearer::Nonsense),
            (&long, Bearer::Nonsense),
        ] {
            assert_eq!(bearer(Some(header)), expected, "{:?}", String::from_utf8_lossy(header));
        }
        assert_eq!(bearer(None), Bearer::Nothing);
    }
}
