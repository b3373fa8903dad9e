//! A sorted array with gaps: a key's own value says about where it is.
//!
//! ```text
//!   home      0                 1                 2                 spill
//!           [ 03 | 09 |    |   ][ 31 | 38 | 41 | 47 ][ 58 | 79 |    |   ][    |    |    |   ]     keys of 0..90 here, for reading
//!                                                      ▲ 58 is at home in the line before, which is full
//! ```
//! Open addressing with linear probing in which a key's home is a cache line, of four entries, and keys stay in order. So nine of ten
//! searches look at one line; each ends at the first larger key as well as at a gap, which keeps misses as short as hits; and moving to a
//! larger array is one pass from left to right.

use bytemuck::{Pod, Zeroable};

/// Entries at home in 20 places when another one makes the array grow.
const MOST_IN_20: usize = 16;
/// Entries for 20 places below which it shrinks.
const FEWEST_IN_20: usize = 10;
/// Places for 20 entries of a new array.
const PLACES_FOR_20: usize = 29;

/// Lines below which shrinking is not worth its while.
const SMALL: u32 = 8;

/// 0 is no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) key: u64,
    pub(crate) value: u64,
}

/// Entries of a cache line.
const LINE: usize = 4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([Entry; LINE]);

#[derive(Default)]
pub(crate) struct Segment {
    /// The lines that keys are at home in, and some more.
    lines: Box<[Line]>,
    /// Lines without those.
    homes: u32,
    len: u32,
}

impl Line {
    /// Entries with smaller keys; gaps, which are at the end, have larger ones. Counted without a branch, as no branch predictor could know
    /// it.
    #[inline]
    fn smaller(&self, key: u64) -> usize {
        self.0.iter().map(|entry| usize::from(entry.key.wrapping_sub(1) < key - 1)).sum()
    }

    #[inline]
    fn used(&self) -> usize {
        self.0.iter().map(|entry| usize::from(entry.key != 0)).sum()
    }
}

impl Segment {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// The line where the search for a key begins; `spread` are the bits of the key that distinguish it within this segment, topmost
    /// first.
    #[inline]
    pub(crate) fn home(&self, spread: u64) -> usize {
        ((u128::from(spread) * u128::from(self.homes)) >> 64) as usize
    }

    #[inline]
    pub(crate) fn line(&self, line: usize) -> Option<&Line> {
        self.lines.get(line)
    }

    #[inline]
    pub(crate) fn value(&self, place: usize) -> u64 {
        self.entries()[place].value
    }

    #[inline]
    pub(crate) fn value_mut(&mut self, place: usize) -> &mut u64 {
        &mut self.entries_mut()[place].value
    }

    #[inline]
    fn entries(&self) -> &[Entry] {
        bytemuck::cast_slice(&self.lines)
    }

    #[inline]
    fn entries_mut(&mut self) -> &mut [Entry] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }

    /// The two lines after a key's home, if a search goes on there, or an insertion, too.
    #[inline]
    pub(crate) fn further(&self, home: usize, key: u64, inserts: bool) -> &[Line] {
        let Some(here) = self.lines.get(home) else { return &[] };
        let last = here.0[LINE - 1].key;
        let goes_on = if inserts { last != 0 } else { last.wrapping_sub(1) < key - 1 };
        let after = if goes_on { 2 } else { 0 };
        &self.lines[home + 1..(home + 1 + after).min(self.lines.len())]
    }

    /// Where `key` is, or where it would have to be put in.
    #[inline]
    pub(crate) fn search(&self, home: usize, key: u64) -> Result<usize, usize> {
        let mut line = home;
        while let Some(here) = self.lines.get(line) {
            let smaller = here.smaller(key);
            if smaller < LINE {
                let place = line * LINE + smaller;
                return if here.0[smaller].key == key { Ok(place) } else { Err(place) };
            }
            line += 1;
        }
        Err(line * LINE)
    }

    /// Whether there is room for another one.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        (self.len() + 1) * 20 <= self.homes as usize * LINE * MOST_IN_20
    }

    /// At a place that [`Self::search`] gave; false if there is no gap to the right of it.
    #[inline]
    pub(crate) fn insert(&mut self, place: usize, entry: Entry) -> bool {
        let mut line = place / LINE;
        let gap = loop {
            let Some(here) = self.lines.get(line) else { return false };
            let used = here.used();
            if used < LINE {
                break line * LINE + used;
            }
            line += 1;
        };
        let entries = self.entries_mut();
        entries.copy_within(place..gap, place + 1);
        entries[place] = entry;
        self.len += 1;
        true
    }

    /// Takes an entry out, and moves those to its right that are not at home one to the left.
    pub(crate) fn remove(&mut self, place: usize, spread: impl Fn(u64) -> u64) {
        let mut last = place;
        while let Some(next) = self.entries().get(last + 1)
            && next.key != 0
            && self.home(spread(next.key)) * LINE <= last
        {
            last += 1;
        }
        self.entries_mut().copy_within(place + 1..last + 1, place);
        self.entries_mut()[last] = Entry::default();
        self.len -= 1;
        if self.is_sparse() {
            self.rebuild(spread);
        }
    }

    /// Keeps what `keep` says, which may change values.
    pub(crate) fn retain(
        &mut self,
        spread: impl Fn(u64) -> u64,
        mut keep: impl FnMut(u64, &mut u64) -> bool,
    ) {
        let before = self.len;
        let (mut from, mut run) = (0, 0);
        // Within each run without gaps, what stays moves to the left, but not beyond its home.
        while from < self.entries().len() {
            let mut entry = self.entries()[from];
            if entry.key == 0 {
                run = from + 1;
            } else if keep(entry.key, &mut entry.value) {
                let to = run.max(self.home(spread(entry.key)) * LINE);
                self.entries_mut()[from] = Entry::default();
                self.entries_mut()[to] = entry;
                run = to + 1;
            } else {
                self.entries_mut()[from] = Entry::default();
                self.len -= 1;
            }
            from += 1;
        }
        if self.len < before && self.is_sparse() {
            self.rebuild(spread);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries().iter().filter(|entry| entry.key != 0)
    }

    fn is_sparse(&self) -> bool {
        self.homes > SMALL && self.len() * 20 < self.homes as usize * LINE * FEWEST_IN_20
    }

    /// Into an array of the size that fits.
    fn rebuild(&mut self, spread: impl Fn(u64) -> u64) {
        let homes = (self.len() * PLACES_FOR_20 / 20).div_ceil(LINE);
        self.lay_out(homes, spill(homes), &spread);
    }

    /// For one more entry than there is room for.
    pub(crate) fn grow(&mut self, spread: impl Fn(u64) -> u64) {
        let homes = self.homes as usize;
        if self.has_room() {
            // There were only too many at the end.
            self.lay_out(homes, 2 * (self.lines.len() - homes), &spread);
        } else {
            let homes = homes * 13 / 10 + 2;
            self.lay_out(homes, spill(homes), &spread);
        }
    }

    /// With so many lines behind the others, or more if those do not suffice, which takes bad luck or bad will.
    fn lay_out(&mut self, homes: usize, spill: usize, spread: &impl Fn(u64) -> u64) {
        let lines = vec![Line::zeroed(); homes + spill].into_boxed_slice();
        let mut new = Self { lines, homes: homes as u32, len: self.len };
        let (mut next, end) = (0, new.entries().len());
        for entry in self.iter() {
            let place = next.max(new.home(spread(entry.key)) * LINE);
            next = place + 1;
            if place == end {
                break;
            }
            new.entries_mut()[place] = *entry;
        }
        if next > end {
            return self.lay_out(homes, 2 * spill + 1, spread);
        }
        *self = new;
    }
}

fn spill(homes: usize) -> usize {
    1 + (homes / 16).min(15)
}
