//! A map from 64-bit keys to 64-bit values for tens of millions of entries, which must not stop for long to grow.
//!
//! It is one sorted array with gaps, in which a key's own value says about where it is.
//!
//! ```text
//!   home      0                 1                 2                 spill
//!           [ 03 | 09 |    |   ][ 31 | 38 | 41 | 47 ][ 58 | 79 |    |   ][    |    |    |   ]     keys of 0..90 here, for reading
//!                                                      ▲ 58 is at home in the line before, which is full
//! ```
//! Open addressing with linear probing in which a key's home is a cache line, of four entries, and keys stay in order. So nine of ten
//! searches look at one line; each ends at the first larger key as well as at a gap, which keeps misses as short as hits. It
//! grows and shrinks where it is, a little with every few changes ([`resize`]). At 16 bytes an entry and 50 to 75 % of the places in use, an
//! entry takes 21 to 32 bytes.
//!
//! Keys have to be spread evenly: they are hashes. Many are looked up at once, in batches and in steps, so that the waits for
//! memory overlap: [`Table::fetch`] for all of them, then [`Table::fetch_further`], then each.

mod line;
mod resize;
#[cfg(test)]
mod tests;

use crate::pages::{Page, Spares};
pub(crate) use line::Entry;
use line::{LINE, Line};
use resize::Homes;

/// Lines that an insertion may go through: some microseconds. Where all parts are as full as each other, none goes through so many.
const FAR: usize = 512;

/// Lines that are fetched together.
const FETCHED: usize = 64;

/// Lines of a page, a power of two.
const PAGE: usize = Page::<Line>::ITEMS;

pub(crate) struct Table {
    /// The lines that keys are at home in, and some more; lines that are not there yet have no entries.
    pages: Vec<Option<Page<Line>>>,
    spares: Spares,
    homes: Homes,
    /// Bits of a key that choose its part.
    bits: u32,
    len: usize,
    /// For [`Self::step`].
    moving: Vec<Entry>,
    /// Whether parts may have been emptied more than others.
    is_uneven: bool,
    /// Whether entries were pushed too far from home.
    is_crowded: bool,
}

/// Where an entry is, until the table changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Table {
    /// With 2^`bits` parts for [`Self::retain`], 2 at least.
    pub(crate) fn new(bits: u32, spares: Spares) -> Self {
        debug_assert!((1..=24).contains(&bits));
        Self {
            pages: Vec::new(),
            spares,
            homes: Homes::default(),
            bits,
            len: 0,
            moving: Vec::new(),
            is_uneven: false,
            is_crowded: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Memory that it has taken.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.iter().flatten().count() * PAGE * size_of::<Line>()
    }

    pub(crate) fn parts(&self) -> usize {
        1 << self.bits
    }

    #[inline]
    fn line(&self, line: usize) -> Option<&Line> {
        self.pages.get(line / PAGE)?.as_ref().map(|page| &page.items()[line % PAGE])
    }

    /// The lines of a page, which may have to be made.
    #[inline]
    fn page_mut(&mut self, page: usize) -> &mut [Line] {
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        self.pages[page].get_or_insert_with(|| self.spares.take()).items_mut()
    }

    #[inline]
    fn line_mut(&mut self, line: usize) -> &mut Line {
        &mut self.page_mut(line / PAGE)[line % PAGE]
    }

    #[inline]
    fn entry(&self, place: usize) -> Entry {
        self.line(place / LINE).map_or(Entry::default(), |line| line.0[place % LINE])
    }

    #[inline]
    fn set_entry(&mut self, place: usize, entry: Entry) {
        self.line_mut(place / LINE).0[place % LINE] = entry;
    }

    /// Loads what a search for this key looks at first.
    #[inline]
    pub(crate) fn fetch_one(&self, key: u64) {
        if let Some(line) = self.line(self.homes.of(key)) {
            crate::prefetch::prefetch(line);
        }
    }

    /// The same for each of the keys.
    #[inline]
    pub(crate) fn fetch(&self, keys: &[u64]) {
        // In two rounds: the shorter the second one is, the more loads a core has under way.
        for keys in keys.chunks(FETCHED) {
            let mut homes = [0; FETCHED];
            for (home, key) in homes.iter_mut().zip(keys) {
                *home = self.homes.of(*key);
            }
            for home in &homes[..keys.len()] {
                if let Some(line) = self.line(*home) {
                    crate::prefetch::prefetch(line);
                }
            }
        }
    }

    /// Loads what a search goes on with, for keys that were fetched some time ago; `inserts` if those that are not found are put in.
    #[inline]
    pub(crate) fn fetch_further(&self, keys: &[u64], inserts: bool) {
        for &key in keys {
            let home = self.homes.of(key);
            let Some(here) = self.line(home) else { continue };
            let last = here.0[LINE - 1].key;
            let goes_on = if inserts { last != 0 } else { last.wrapping_sub(1) < key - 1 };
            // One of ten that go on does so twice.
            for after in 1..if goes_on { 3 } else { 1 } {
                if let Some(line) = self.line(home + after) {
                    crate::prefetch::prefetch(line);
                }
            }
        }
    }

    /// Where `key` is, or where it would have to be put in.
    #[inline]
    fn search(&self, key: u64) -> Result<usize, usize> {
        let mut line = self.homes.of(key);
        while let Some(here) = self.line(line) {
            let smaller = here.smaller(key);
            if smaller < LINE {
                let place = line * LINE + smaller;
                return if here.0[smaller].key == key { Ok(place) } else { Err(place) };
            }
            line += 1;
        }
        Err(line * LINE)
    }

    #[inline]
    pub(crate) fn find(&self, key: u64) -> Option<Place> {
        self.search(key).ok().map(Place)
    }

    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<u64> {
        self.find(key).map(|place| self.value(place))
    }

    #[inline]
    pub(crate) fn value(&self, place: Place) -> u64 {
        self.entry(place.0).value
    }

    #[inline]
    pub(crate) fn value_mut(&mut self, place: Place) -> &mut u64 {
        &mut self.line_mut(place.0 / LINE).0[place.0 % LINE].value
    }

    /// The place of `key`, put in with value 0 if it was not there.
    #[inline]
    pub(crate) fn place(&mut self, key: u64) -> Place {
        Place(self.insert_new(Entry { key, value: 0 }).unwrap_or_else(|place| place))
    }

    /// Gives `key` this value; the one that it had, or 0.
    #[inline]
    pub(crate) fn replace(&mut self, key: u64, value: u64) -> u64 {
        match self.insert_new(Entry { key, value }) {
            Ok(_) => 0,
            Err(place) => std::mem::replace(self.value_mut(Place(place)), value),
        }
    }

    /// Where this entry was put in, unless there is one with its key: then where that is.
    #[inline]
    fn insert_new(&mut self, entry: Entry) -> Result<usize, usize> {
        debug_assert_ne!(entry.key, 0, "0 marks gaps");
        let mut place = match self.search(entry.key) {
            Ok(place) => return Err(place),
            Err(place) => place,
        };
        if self.makes_room() {
            place = self.search(entry.key).unwrap_or_else(|place| place);
        }
        self.len += 1;
        self.insert(place, entry);
        Ok(place)
    }

    /// At a place that [`Self::search`] gave; what comes after it moves to the right, up to the next gap.
    #[inline]
    fn insert(&mut self, place: usize, entry: Entry) {
        let (mut line, mut slot, mut moved) = (place / LINE, place % LINE, entry);
        loop {
            moved = self.line_mut(line).insert(slot, moved);
            if moved.key == 0 {
                self.is_crowded |= line - place / LINE > FAR;
                return;
            }
            (line, slot) = (line + 1, 0);
        }
    }

    /// Takes an entry out, and moves those to its right that are not at home one to the left.
    pub(crate) fn remove(&mut self, Place(place): Place) {
        let mut gap = place;
        loop {
            let next = self.entry(gap + 1);
            if next.key == 0 || self.homes.of(next.key) * LINE > gap {
                break;
            }
            self.set_entry(gap, next);
            gap += 1;
        }
        self.set_entry(gap, Entry::default());
        self.len -= 1;
        self.makes_less_room();
    }

    /// Of one part keeps what `keep` says, which may change values. [`Self::retained`] has to follow when this was done with all parts.
    pub(crate) fn retain(&mut self, part: usize, mut keep: impl FnMut(u64, &mut u64) -> bool) {
        let mut leaving = Vec::new();
        for place in self.places(part).collect::<Vec<_>>() {
            let entry = &mut self.line_mut(place / LINE).0[place % LINE];
            if !keep(entry.key, &mut entry.value) {
                leaving.push(entry.key);
            }
        }
        self.is_uneven |= !leaving.is_empty();
        for key in leaving {
            if let Some(place) = self.find(key) {
                self.remove(place);
            }
        }
    }

    /// All parts are as full as each other again.
    pub(crate) fn retained(&mut self) {
        self.is_uneven = false;
        self.makes_less_room();
    }

    /// The entries of one part, in the order of their keys.
    pub(crate) fn entries(&self, part: usize) -> impl Iterator<Item = Entry> {
        self.places(part).map(|place| self.entry(place))
    }

    /// Where they are. A part is what has the same topmost bits in its keys, so that it stays the same when entries move.
    fn places(&self, part: usize) -> impl Iterator<Item = usize> {
        let first = (part as u64) << (64 - self.bits);
        let last = first | (u64::MAX >> self.bits);
        let end = (self.homes.of(last) + 1) * LINE;
        (self.homes.of(first) * LINE..self.pages.len() * PAGE * LINE)
            .map(|place| (place, self.entry(place).key))
            .take_while(move |(place, key)| *key <= last && (*key != 0 || *place < end))
            .filter(move |(_, key)| *key >= first.max(1))
            .map(|(place, _)| place)
    }
}
