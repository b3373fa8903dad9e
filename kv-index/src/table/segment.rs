//! A sorted array with gaps: a key's own value says about where it is.
//!
//! ```text
//!   home      0    1    2    3    4    5    6    7    spill
//!           [ 03 | 09 |    | 41 | 44 | 47 | 79 |    |    |    ]      keys of 0..100 here, for reading
//!                              ▲ 44 is at home at 3, where 41 is, so it is one further
//! ```
//! Open addressing with linear probing in which keys stay in order. So a search ends at the first larger key as well as at a
//! gap, which keeps misses as short as hits, and moving to a larger array is one pass from left to right.

/// Entries at home in 20 places when another one makes the array grow.
const MOST_IN_20: usize = 17;
/// Entries for 20 places below which it shrinks.
const FEWEST_IN_20: usize = 12;
/// Places for 20 entries of a new array.
const PLACES_FOR_20: usize = 27;

/// Places below which shrinking is not worth its while.
const SMALL: u32 = 32;

/// 0 is no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: u64,
    pub(crate) value: u64,
}

#[derive(Default)]
pub(crate) struct Segment {
    /// The places, and some more after the last.
    entries: Box<[Entry]>,
    places: u32,
    len: u32,
}

impl Segment {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.entries)
    }

    /// Where the search for a key begins; `spread` are the bits of the key that distinguish it within this segment, topmost first.
    #[inline]
    pub(crate) fn home(&self, spread: u64) -> usize {
        ((u128::from(spread) * u128::from(self.places)) >> 64) as usize
    }

    #[inline]
    pub(crate) fn entry(&self, place: usize) -> Option<&Entry> {
        self.entries.get(place)
    }

    #[inline]
    pub(crate) fn value_mut(&mut self, place: usize) -> &mut u64 {
        &mut self.entries[place].value
    }

    /// Where `key` is, or where it would have to be put in.
    #[inline]
    pub(crate) fn search(&self, home: usize, key: u64) -> Result<usize, usize> {
        let mut place = home;
        while let Some(entry) = self.entries.get(place) {
            if entry.key >= key {
                return if entry.key == key { Ok(place) } else { Err(place) };
            }
            if entry.key == 0 {
                return Err(place);
            }
            place += 1;
        }
        Err(place)
    }

    /// Whether there is room for another one.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        (self.len() + 1) * 20 <= self.places as usize * MOST_IN_20
    }

    /// At a place that [`Self::search`] gave; false if there is no gap to the right of it.
    #[inline]
    pub(crate) fn insert(&mut self, place: usize, entry: Entry) -> bool {
        let Some(gap) = self.entries.get(place..).and_then(|right| right.iter().position(|e| e.key == 0)) else {
            return false;
        };
        self.entries.copy_within(place..place + gap, place + 1);
        self.entries[place] = entry;
        self.len += 1;
        true
    }

    /// Takes an entry out, and moves those to its right that are not at home one to the left.
    pub(crate) fn remove(&mut self, place: usize, spread: impl Fn(u64) -> u64) {
        let mut last = place;
        while let Some(next) = self.entries.get(last + 1)
            && next.key != 0
            && self.home(spread(next.key)) <= last
        {
            last += 1;
        }
        self.entries.copy_within(place + 1..last + 1, place);
        self.entries[last] = Entry::default();
        self.len -= 1;
        if self.is_sparse() {
            self.rebuild(spread);
        }
    }

    /// Keeps what `keep` says, which may change values.
    pub(crate) fn retain(&mut self, spread: impl Fn(u64) -> u64, mut keep: impl FnMut(u64, &mut u64) -> bool) {
        let before = self.len;
        let (mut from, mut run) = (0, 0);
        // Within each run without gaps, what stays moves to the left, but not beyond its home.
        while from < self.entries.len() {
            let mut entry = self.entries[from];
            if entry.key == 0 {
                run = from + 1;
            } else if keep(entry.key, &mut entry.value) {
                let to = run.max(self.home(spread(entry.key)));
                self.entries[from] = Entry::default();
                self.entries[to] = entry;
                run = to + 1;
            } else {
                self.entries[from] = Entry::default();
                self.len -= 1;
            }
            from += 1;
        }
        if self.len < before && self.is_sparse() {
            self.rebuild(spread);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.key != 0)
    }

    fn is_sparse(&self) -> bool {
        self.places > SMALL && self.len() * 20 < self.places as usize * FEWEST_IN_20
    }

    /// Into an array of the size that fits.
    fn rebuild(&mut self, spread: impl Fn(u64) -> u64) {
        let places = if self.len == 0 { 0 } else { (self.len() + 1) * PLACES_FOR_20 / 20 + 4 };
        self.lay_out(places, spill(places), &spread);
    }

    /// For one more entry than there is room for.
    pub(crate) fn grow(&mut self, spread: impl Fn(u64) -> u64) {
        let places = self.places as usize;
        if self.has_room() {
            // There were only too many at the end.
            self.lay_out(places, 2 * (self.entries.len() - places), &spread);
        } else {
            let places = places * 6 / 5 + 8;
            self.lay_out(places, spill(places), &spread);
        }
    }

    /// With so many places behind the others, or more if those do not suffice, which takes bad luck or bad will.
    fn lay_out(&mut self, places: usize, spill: usize, spread: &impl Fn(u64) -> u64) {
        let entries = vec![Entry::default(); places + spill].into_boxed_slice();
        let mut new = Self { entries, places: places as u32, len: self.len };
        let mut next = 0;
        for entry in self.entries.iter().filter(|entry| entry.key != 0) {
            let place = next.max(new.home(spread(entry.key)));
            let Some(at) = new.entries.get_mut(place) else {
                return self.lay_out(places, 2 * spill + 4, spread);
            };
            *at = *entry;
            next = place + 1;
        }
        *self = new;
    }
}

fn spill(places: usize) -> usize {
    if places == 0 { 0 } else { 4 + (places / 16).min(60) }
}
