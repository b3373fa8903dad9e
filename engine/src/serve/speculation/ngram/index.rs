//! Where each n-gram of a sequence ended last, for n-grams of several lengths.

/// Finds the latest place of a sequence's last tokens; kept as the sequence grows.
pub(super) struct NgramIndex {
    least: usize,
    seed: u64,
    /// For each length from `least` on.
    tables: Vec<Table>,
    /// n-grams that end up to here are in the tables.
    indexed: usize,
}

/// Ends of n-grams by hash, with open addressing. Holds positions only: whether it is the n-gram that is looked for, the
/// sequence's tokens say.
struct Table {
    /// 0: empty, as no n-gram ends there. A power of two of them, at most half in use.
    slots: Vec<u32>,
    used: usize,
}

impl NgramIndex {
    /// Of n-grams of `least` to `most` tokens.
    pub(super) fn new(least: usize, most: usize, seed: u64) -> Self {
        let table = || Table { slots: vec![0; 64], used: 0 };
        Self { least, seed, tables: (least..=most).map(|_| table()).collect(), indexed: 0 }
    }

    /// Takes in at most `count` more tokens; says whether all are in. `tokens` begins with what it was the last time.
    pub(super) fn extend(&mut self, tokens: &[u32], count: usize) -> bool {
        // The last n-gram is what is looked for, and must not be found where it stands.
        let end = tokens.len().saturating_sub(1);
        let until = end.min(self.indexed + count);
        for position in self.indexed + 1..=until {
            for (n, table) in (self.least..).zip(&mut self.tables) {
                if n <= position {
                    table.insert(tokens, n, position, self.seed);
                }
            }
        }
        self.indexed = self.indexed.max(until);
        self.indexed == end
    }

    /// Where the longest end of `tokens` that occurs before ended there, at the latest of its places.
    pub(super) fn find_latest(&self, tokens: &[u32]) -> Option<usize> {
        let mut tables = self.tables.iter().enumerate().rev();
        tables.find_map(|(longer, table)| {
            let before = tokens.len().checked_sub(self.least + longer)?;
            let end = table.slots[table.slot_of(tokens, &tokens[before..], self.seed)];
            (end != 0).then_some(end as usize)
        })
    }
}

impl Table {
    /// The n-gram that ends at `end` was not seen later.
    fn insert(&mut self, tokens: &[u32], n: usize, end: usize, seed: u64) {
        let slot = self.slot_of(tokens, &tokens[end - n..end], seed);
        let Ok(place) = u32::try_from(end) else { return };
        self.used += usize::from(self.slots[slot] == 0);
        self.slots[slot] = place;
        if 2 * self.used > self.slots.len() {
            self.double(tokens, n, seed);
        }
    }

    fn double(&mut self, tokens: &[u32], n: usize, seed: u64) {
        let slots = vec![0; 2 * self.slots.len()];
        for end in std::mem::replace(&mut self.slots, slots).into_iter().filter(|end| *end != 0) {
            let slot = self.slot_of(tokens, &tokens[end as usize - n..end as usize], seed);
            self.slots[slot] = end;
        }
    }

    /// The slot of `gram`, or the empty one where it would go.
    fn slot_of(&self, tokens: &[u32], gram: &[u32], seed: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(gram, seed) as usize & mask;
        loop {
            let end = self.slots[slot] as usize;
            if end == 0 || tokens[end - gram.len()..end] == *gram {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// 2^64 / golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies and folds a token at a time, as wyhash does.
fn hash(gram: &[u32], seed: u64) -> u64 {
    gram.iter().fold(seed, |hash, token| {
        let product = u128::from(hash ^ u64::from(*token)) * u128::from(MULTIPLIER);
        (product >> 64) as u64 ^ product as u64
    })
}
