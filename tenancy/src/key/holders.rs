//! Finding who holds a key.

use std::collections::HashMap;

use subtle::Choice;

use super::hash::{KeyHash, Tag, tag_of};

/// Holders of keys, of whatever kind, by key.
#[derive(Debug)]
pub(crate) struct Holders<T> {
    by_tag: HashMap<Tag, (KeyHash, T)>,
    /// Compared with when there is no such key, so that it takes as long.
    decoy: KeyHash,
}

impl<T> Holders<T> {
    /// `decoy` is the hash of a key that nobody has.
    pub(crate) fn new(decoy: KeyHash) -> Self {
        Self { by_tag: HashMap::new(), decoy }
    }

    /// Gives back the one who holds the same key already.
    pub(crate) fn insert(&mut self, hash: KeyHash, holder: T) -> Option<T> {
        self.by_tag.insert(hash.tag(), (hash, holder)).map(|(_, former)| former)
    }

    /// Who holds `key`.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&T> {
        let found = self.by_tag.get(&tag_of(key));
        // One digest and one comparison in every case; only then is looked at what they say.
        let (hash, is_known) = match found {
            Some((hash, _)) => (hash, Choice::from(1)),
            None => (&self.decoy, Choice::from(0)),
        };
        let is_right = hash.matches(key) & is_known;
        found.map(|(_, holder)| holder).filter(|_| bool::from(is_right))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.by_tag.values().map(|(_, holder)| holder)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::hash::tests::DIGESTS, *};
    use crate::Secret;

    fn hash(secret: &Secret) -> KeyHash {
        KeyHash::of(secret).unwrap()
    }

    #[test]
    fn right_wrong_and_unknown_keys_take_the_same_work() {
        let [alice, bob, decoy] = [(); 3].map(|()| Secret::generate().unwrap());
        let mut holders = Holders::new(hash(&decoy));
        holders.insert(hash(&alice), "alice");
        // As if somebody's key had the tag of Alice's.
        let forged = bob.reveal().as_bytes();
        holders.insert(hash_with_tag(&alice, tag_of(forged)), "forged");

        let work = |key: &[u8]| {
            let before = DIGESTS.get();
            (holders.find(key).copied(), DIGESTS.get() - before)
        };
        assert_eq!(work(alice.reveal().as_bytes()), (Some("alice"), 1));
        assert_eq!(work(forged), (None, 1), "the tag alone opens nothing");
        assert_eq!(work(b"nobody's"), (None, 1));
        assert_eq!(work(decoy.reveal().as_bytes()), (None, 1), "not even the decoy's");
    }

    fn hash_with_tag(secret: &Secret, tag: Tag) -> KeyHash {
        use super::super::secret::hex;
        let text = hash(secret).to_string();
        let mut parts: Vec<String> = text.split(':').map(str::to_owned).collect();
        parts[1] = hex(&tag);
        parts.join(":").parse().unwrap()
    }
}
