//! A map from 64-bit keys to 64-bit values for tens of millions of entries, which must not stop for long to grow.
//!
//! It consists of many small sorted arrays ([`segment`]), chosen by the topmost bits of the key; each grows by 30 % for itself when it is
//! full, in some ten microseconds. At 16 bytes an entry and 62 to 80 % of the places in use, an entry takes 20 to 26 bytes.
//!
//! Keys have to be spread evenly: they are hashes. Many are looked up at once, in batches and in three steps, so that the waits for
//! memory overlap: [`Table::fetch`] for the batch after the next, [`Table::fetch_further`] for the next, then each of this batch.

mod segment;

use std::ops::{ControlFlow, Range};

pub(crate) use segment::Entry;
use segment::Segment;

pub(crate) struct Table {
    segments: Box<[Segment]>,
    /// Bits of a key that choose the segment.
    bits: u32,
    len: usize,
    bytes: usize,
}

/// Where an entry is, until the table changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    segment: u32,
    place: u32,
}

impl Table {
    /// With 2^`bits` segments, 1 at least.
    pub(crate) fn new(bits: u32) -> Self {
        debug_assert!((1..=24).contains(&bits));
        let segments: Box<[Segment]> = (0..1 << bits).map(|_| Segment::default()).collect();
        let bytes = size_of_val(&*segments);
        Self { segments, bits, len: 0, bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Memory that it has taken.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn segments(&self) -> usize {
        self.segments.len()
    }

    #[inline]
    fn segment_of(&self, key: u64) -> usize {
        (key >> (64 - self.bits)) as usize
    }

    /// Loads what a search for each of the keys looks at first.
    #[inline]
    pub(crate) fn fetch(&self, keys: &[u64]) {
        for &key in keys {
            let segment = &self.segments[self.segment_of(key)];
            let home = segment.home(key << self.bits);
            if let Some(line) = segment.line(home) {
                crate::prefetch::prefetch(line);
            }
        }
    }

    /// Loads what a search goes on with, for keys that were fetched some time ago; `inserts` if those that are not found are put in.
    #[inline]
    pub(crate) fn fetch_further(&self, keys: &[u64], inserts: bool) {
        for &key in keys {
            let segment = &self.segments[self.segment_of(key)];
            // One of ten that go on does so twice.
            segment
                .further(segment.home(key << self.bits), key, inserts)
                .iter()
                .for_each(crate::prefetch::prefetch);
        }
    }

    #[inline]
    pub(crate) fn find(&self, key: u64) -> Option<Place> {
        let segment = self.segment_of(key);
        let here = &self.segments[segment];
        let place = here.search(here.home(key << self.bits), key).ok()?;
        Some(Place { segment: segment as u32, place: place as u32 })
    }

    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<u64> {
        self.find(key).map(|place| self.value(place))
    }

    #[inline]
    pub(crate) fn value(&self, Place { segment, place }: Place) -> u64 {
        self.segments[segment as usize].value(place as usize)
    }

    #[inline]
    pub(crate) fn value_mut(&mut self, Place { segment, place }: Place) -> &mut u64 {
        self.segments[segment as usize].value_mut(place as usize)
    }

    /// The place of `key`, put in with value 0 if it was not there.
    #[inline]
    pub(crate) fn place(&mut self, key: u64) -> Place {
        debug_assert_ne!(key, 0, "0 marks gaps");
        let (index, bits) = (self.segment_of(key), self.bits);
        let segment = &mut self.segments[index];
        let found = segment.search(segment.home(key << bits), key).unwrap_or_else(|place| {
            self.len += 1;
            if segment.has_room() && segment.insert(place, Entry { key, value: 0 }) {
                return place;
            }
            let before = segment.bytes();
            let place = make_room_and_insert(segment, bits, key);
            self.bytes = self.bytes - before + segment.bytes();
            place
        });
        Place { segment: index as u32, place: found as u32 }
    }

    pub(crate) fn remove(&mut self, Place { segment, place }: Place) {
        let (segment, bits) = (&mut self.segments[segment as usize], self.bits);
        let before = segment.bytes();
        segment.remove(place as usize, |key| key << bits);
        self.bytes = self.bytes - before + segment.bytes();
        self.len -= 1;
    }

    /// Of one segment keeps what `keep` says, which may change values.
    pub(crate) fn retain(&mut self, segment: usize, keep: impl FnMut(u64, &mut u64) -> bool) {
        let (segment, bits) = (&mut self.segments[segment], self.bits);
        let before = (segment.bytes(), segment.len());
        segment.retain(|key| key << bits, keep);
        self.bytes = self.bytes - before.0 + segment.bytes();
        self.len -= before.1 - segment.len();
    }

    /// The entries of one segment.
    pub(crate) fn entries(&self, segment: usize) -> impl Iterator<Item = &Entry> {
        self.segments[segment].iter()
    }
}

#[cold]
fn make_room_and_insert(segment: &mut Segment, bits: u32, key: u64) -> usize {
    loop {
        segment.grow(|key| key << bits);
        let home = segment.home(key << bits);
        let (Ok(place) | Err(place)) = segment.search(home, key);
        if segment.insert(place, Entry { key, value: 0 }) {
            return place;
        }
    }
}

/// Three steps for each batch of `len` things, of `batch` at most, each step a batch behind the one before it; ends early when the last one
/// says so.
#[inline]
pub(crate) fn in_steps<T>(
    on: &mut T,
    len: usize,
    batch: usize,
    mut fetch: impl FnMut(&mut T, Range<usize>),
    mut further: impl FnMut(&mut T, Range<usize>),
    mut work: impl FnMut(&mut T, Range<usize>) -> ControlFlow<()>,
) {
    let batches = len.div_ceil(batch);
    let range = |turn: usize| turn * batch..len.min((turn + 1) * batch);
    for turn in 0..batches + 2 {
        if turn < batches {
            fetch(on, range(turn));
        }
        if turn >= 1 && turn <= batches {
            further(on, range(turn - 1));
        }
        if turn >= 2 && work(on, range(turn - 2)).is_break() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

    use super::*;

    /// Every entry is found, and nothing else is there.
    #[track_caller]
    fn check(table: &Table, expected: &BTreeMap<u64, u64>) {
        let all: Vec<(u64, u64)> = (0..table.segments())
            .flat_map(|segment| table.entries(segment))
            .map(|entry| (entry.key, entry.value))
            .collect();
        assert_eq!(all, expected.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>());
        assert_eq!(table.len(), expected.len());
        for (key, value) in expected {
            assert_eq!(table.get(*key), Some(*value), "{key:x}");
        }
    }

    /// Keys from a few crowded places as well as from everywhere, so that runs are long and reach the ends.
    fn key(rng: &mut SmallRng) -> u64 {
        match rng.random_range(0..4) {
            0 => (u64::MAX << 5) | rng.random_range(0..32),
            1 => rng.random_range(1..40),
            2 => (1 << 63) - 20 + rng.random_range(0..40),
            _ => rng.random_range(1..=u64::MAX),
        }
    }

    #[test]
    fn it_does_what_an_ordered_map_does() {
        for seed in 0..30 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut table, mut expected) = (Table::new(1 + seed as u32 % 4), BTreeMap::new());
            for step in 0..3000 {
                let key = key(&mut rng);
                // Grows for a while, then shrinks.
                if rng.random_bool(if step / 500 % 2 == 0 { 0.8 } else { 0.3 }) {
                    let place = table.place(key);
                    *table.value_mut(place) = step;
                    expected.insert(key, step);
                } else {
                    let key = expected.range(key..).next().map_or(key, |(key, _)| *key);
                    assert_eq!(table.get(key), expected.remove(&key));
                    if let Some(place) = table.find(key) {
                        table.remove(place);
                    }
                    assert_eq!(table.find(key), None);
                }
                if step % 700 == 699 {
                    let segment = rng.random_range(0..table.segments());
                    let within: Vec<u64> = table.entries(segment).map(|entry| entry.key).collect();
                    table.retain(segment, |key, value| {
                        *value += 1;
                        !key.is_multiple_of(3)
                    });
                    for key in within {
                        *expected.get_mut(&key).unwrap() += 1;
                        if key.is_multiple_of(3) {
                            expected.remove(&key);
                        }
                    }
                }
                if step % 50 == 0 {
                    check(&table, &expected);
                }
            }
            check(&table, &expected);
        }
    }

    #[test]
    fn an_entry_takes_as_little_as_promised() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut table = Table::new(6);
        for count in 1..=400_000 {
            table.place(rng.random_range(1..=u64::MAX));
            if count > 100_000 && count % 1000 == 0 {
                let each = table.bytes() as f64 / count as f64;
                assert!((19.0..28.0).contains(&each), "{each} bytes for each of {count}");
            }
        }
        for segment in 0..table.segments() {
            table.retain(segment, |key, _| key % 16 == 1);
        }
        let each = table.bytes() as f64 / table.len() as f64;
        assert!(each < 34.0, "{each} bytes for each of {} that are left", table.len());
    }
}
