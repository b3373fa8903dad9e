//! What each scheduler said last, and which of it counts.

use std::collections::BTreeMap;

/// The last word of each scheduler, by name.
///
/// While at least one that has spoken is connected, only those count: one that has just started knows less than the others, and one
/// that is cut off knows what was. When none is connected, all that was said last still counts.
#[derive(Clone, Debug)]
pub struct LastWords<T> {
    by_name: BTreeMap<String, Word<T>>,
}

#[derive(Clone, Debug)]
struct Word<T> {
    said: T,
    is_connected: bool,
}

impl<T> Default for LastWords<T> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new() }
    }
}

impl<T> LastWords<T> {
    /// `name`, who is connected, says this.
    pub fn said(&mut self, name: &str, said: T) {
        self.by_name.insert(name.to_owned(), Word { said, is_connected: true });
    }

    /// The connection to `name` has ended.
    pub fn lost(&mut self, name: &str) {
        if let Some(word) = self.by_name.get_mut(name) {
            word.is_connected = false;
        }
    }

    /// `name` is no scheduler any more.
    pub fn forget(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// What counts, by name.
    pub fn counting(&self) -> impl Iterator<Item = &T> {
        let is_any_connected = self.by_name.values().any(|word| word.is_connected);
        let counts = move |word: &&Word<T>| word.is_connected || !is_any_connected;
        self.by_name.values().filter(counts).map(|word| &word.said)
    }

    /// What each said last, whether it is connected or not, by name.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.by_name.values().map(|word| &word.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(words: &LastWords<u32>) -> Vec<u32> {
        words.counting().copied().collect()
    }

    #[test]
    fn those_who_are_connected_count_and_without_them_all() {
        let mut words = LastWords::default();
        words.said("b", 1);
        words.said("a", 2);
        words.said("b", 3);
        assert_eq!(counting(&words), [2, 3]);
        words.lost("b");
        assert_eq!(counting(&words), [2]);
        words.lost("a");
        words.lost("nobody");
        assert_eq!(counting(&words), [2, 3], "nobody is there who could know better");
        words.said("b", 4);
        assert_eq!(counting(&words), [4]);
        assert_eq!(words.all().copied().collect::<Vec<_>>(), [2, 4]);
        words.forget("b");
        assert_eq!(counting(&words), [2]);
    }
}
