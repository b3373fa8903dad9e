//! Growing and shrinking in place, some lines at a time.
//!
//! ```text
//!   growing      old homes              ▼ moved ──► from here on, new homes
//!              [ 03 | 09 |  ][ 31 | 38 |   ][        ][ 58 | 79 |   ][ 81 |    |   ]
//! ```
//! All entries keep their order, so those of larger keys can have their new homes while those of smaller ones still have the old: to grow, entries move
//! to the right, beginning with the largest; to shrink, to the left, beginning with the smallest. So no change waits for more than some lines to be moved, and there
//! are never two arrays.

use std::ops::{Range, RangeInclusive};

use super::{Entry, LINE, PAGE, Table};

/// Entries at home in 20 places when another one makes the array grow.
const MOST_IN_20: usize = 15;
/// The same where some parts have more entries than others. Not more, as larger ones do not help against bad will.
const MOST_IF_CROWDED: usize = 6;
/// Entries for 20 places below which it shrinks.
const FEWEST_IN_20: usize = 8;
/// Places for 20 entries of one that shrinks.
const PLACES_FOR_20: usize = 32;

/// Lines of the smallest array.
const SMALLEST: usize = 8;
/// Lines below which an array doubles.
const SMALL: usize = 1024;

/// Old lines that are moved at once,
const STEP: usize = 16;
/// and changes from one step to the next. An array grows by half, and has grown before it has a sixth more entries.
const CHANGES: u32 = 8;

/// The lines that keys are at home in.
#[derive(Clone, Copy, Default)]
pub(super) struct Homes {
    lines: usize,
    /// Before they became more or fewer; the same, unless entries are being moved.
    old: usize,
    /// Keys that are at home in this one of the old lines, or after it, are where they belong if the array grows; those before it if it shrinks.
    moved: usize,
    changes: u32,
}

#[inline]
fn home(key: u64, lines: usize) -> usize {
    ((u128::from(key) * lines as u128) >> 64) as usize
}

/// The keys that are at home in some of so many lines; no gap's.
fn keys(of: &Range<usize>, lines: usize) -> RangeInclusive<u64> {
    let first = |line: usize| ((line as u128) << 64).div_ceil(lines as u128);
    first(of.start).max(1) as u64..=(first(of.end) - 1) as u64
}

impl Homes {
    /// The line where the search for a key begins. Larger keys have no smaller ones.
    #[inline]
    pub(super) fn of(&self, key: u64) -> usize {
        if !self.is_moving() {
            return home(key, self.lines);
        }
        let old = home(key, self.old);
        // Without a branch, as no branch predictor could know it.
        let lines = if (old >= self.moved) == self.grows() { self.lines } else { self.old };
        home(key, lines)
    }

    #[inline]
    fn is_moving(&self) -> bool {
        self.lines != self.old
    }

    #[inline]
    fn grows(&self) -> bool {
        self.lines > self.old
    }

    fn has_room(&self, len: usize, is_crowded: bool) -> bool {
        let most_in_20 = if is_crowded { MOST_IF_CROWDED } else { MOST_IN_20 };
        len * 20 <= self.lines * LINE * most_in_20
    }

    fn is_sparse(&self, len: usize) -> bool {
        self.lines > SMALLEST && len * 20 < self.lines * LINE * FEWEST_IN_20
    }

    fn begin(&mut self, lines: usize) {
        (self.old, self.lines) = (self.lines, lines);
        self.moved = if self.grows() { self.old } else { 0 };
        if self.old == 0 {
            self.old = lines;
        }
    }

    /// The old lines that are moved next.
    fn next(&self) -> Range<usize> {
        if self.grows() {
            self.moved.saturating_sub(STEP)..self.moved
        } else {
            self.moved..self.old.min(self.moved + STEP)
        }
    }

    fn end_step(&mut self, done: &Range<usize>) {
        self.moved = if self.grows() { done.start } else { done.end };
        if self.moved == if self.grows() { 0 } else { self.old } {
            self.old = self.lines;
        }
    }
}

impl Table {
    /// Sees to it that there is room for one more. Whether entries were moved.
    #[inline]
    pub(super) fn makes_room(&mut self) -> bool {
        let has_room = self.homes.has_room(self.len + 1, self.is_crowded);
        if has_room && !self.homes.is_moving() {
            return false;
        }
        self.changed(has_room)
    }

    /// What there is no need of is given back, but not while some parts are emptier than others: those would have no room.
    #[inline]
    pub(super) fn makes_less_room(&mut self) {
        if self.homes.is_moving() {
            self.changed(true);
        } else if !self.is_uneven && self.homes.is_sparse(self.len) {
            self.homes.begin((self.len * PLACES_FOR_20 / 20).div_ceil(LINE).max(SMALLEST));
        }
    }

    #[cold]
    fn changed(&mut self, has_room: bool) -> bool {
        if !self.homes.is_moving() {
            let lines = self.homes.lines;
            let more = if lines < SMALL { lines.max(SMALLEST) } else { lines / 2 };
            self.homes.begin(lines + more);
            self.is_crowded = false;
            return true;
        }
        self.homes.changes += 1;
        let steps = self.homes.changes >= CHANGES || !has_room;
        if steps {
            self.homes.changes = 0;
            self.step();
        }
        steps
    }

    /// Moves the entries of some lines.
    fn step(&mut self) {
        let lines = self.homes.next();
        let mut moving = std::mem::take(&mut self.moving);
        self.take_out(&lines, &mut moving);
        self.homes.end_step(&lines);
        self.put_back(&moving);
        moving.clear();
        self.moving = moving;
        if self.homes.is_moving() {
            self.fetch_next();
        } else {
            self.drop_pages();
        }
    }

    /// Puts entries, by their keys, where they belong now.
    fn put_back(&mut self, mut entries: &[Entry]) {
        const PLACES: usize = PAGE * LINE;
        let homes = self.homes;
        let mut next = 0;
        let place = |entry: &Entry, next: usize| next.max(homes.of(entry.key) * LINE);
        while let Some(first) = entries.first() {
            let page = place(first, next) / PLACES;
            let lines = self.page_mut(page);
            let taken = entries.iter().position(|entry| {
                let at = place(entry, next);
                let there = &mut lines[at / LINE % PAGE].0[at % LINE];
                let is_free = at / PLACES == page && there.key == 0;
                if is_free {
                    *there = *entry;
                    next = at + 1;
                }
                !is_free
            });
            entries = taken.map_or(&[], |taken| &entries[taken..]);
            if let Some((entry, rest)) = entries.split_first()
                && place(entry, next) / PLACES == page
            {
                // Others have come as far as here.
                let (Ok(place) | Err(place)) = self.search(entry.key);
                self.insert(place, *entry);
                (next, entries) = (place + 1, rest);
            }
        }
    }

    /// Takes out what is at home in some of the old lines, and those after it that are only where they are because of it.
    fn take_out(&mut self, lines: &Range<usize>, moving: &mut Vec<Entry>) {
        let keys = keys(lines, self.homes.old);
        let mut at = lines.start;
        let after = loop {
            let line = self.line_mut(at);
            let has_gap = line.0[LINE - 1].key == 0;
            let larger = line.0.iter().position(|entry| entry.key > *keys.end());
            for entry in line.0.iter_mut().filter(|entry| keys.contains(&entry.key)) {
                moving.push(std::mem::take(entry));
            }
            match larger {
                Some(slot) => break at * LINE + slot,
                None if has_gap && at >= lines.end => return,
                None => at += 1,
            }
        };
        for place in after.. {
            let entry = self.entry(place);
            if entry.key == 0 || self.homes.of(entry.key) * LINE >= place {
                return;
            }
            moving.push(entry);
            self.set_entry(place, Entry::default());
        }
    }

    /// Those behind the last entry.
    fn drop_pages(&mut self) {
        let mut end = self.homes.lines;
        while self.line(end).is_some_and(|line| line.0[0].key != 0) {
            end += 1;
        }
        self.pages.truncate(end / PAGE + 1);
    }

    /// Loads what the next step begins with.
    fn fetch_next(&self) {
        let Homes { lines, old, .. } = self.homes;
        let from = self.homes.next();
        let to = from.start * lines / old..from.end * lines / old;
        for Range { start, end } in [from, to] {
            // Where another page begins, it is left out.
            let page = self.pages.get(start / PAGE).and_then(Option::as_ref);
            let lines = page.map_or(&[][..], |page| &page.items()[start % PAGE..]);
            lines[..lines.len().min(end - start)].iter().for_each(crate::prefetch::prefetch);
        }
    }
}
