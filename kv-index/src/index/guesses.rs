//! How long guesses count.
//!
//! Time is cut into periods. A guess is marked with its period's bit, and counts until the end of the next period: for one to two
//! periods. Nothing has to be remembered for each guess: at the turn of a period all guesses of a bit end at once, and the next
//! pass of [`super::sweep`] takes the bit out.

use crate::holders::{GUESSES, TOLD, Tiers};

pub(crate) struct Guesses {
    period_seconds: u64,
    ends_at: u64,
    /// Periods so far.
    turns: u64,
    /// Ended, but perhaps still somewhere.
    dirty: Tiers,
    /// Whether there are any of this period, and of the one before.
    made: bool,
    made_before: bool,
}

impl Guesses {
    pub(crate) fn new(period_seconds: u64) -> Self {
        let period_seconds = period_seconds.max(1);
        Self { period_seconds, ends_at: period_seconds, turns: 0, dirty: 0, made: false, made_before: false }
    }

    fn bit(&self, turns_from_now: u64) -> Tiers {
        GUESSES[((self.turns + turns_from_now) % 3) as usize]
    }

    /// The bit for a guess made now.
    pub(crate) fn make(&mut self) -> Tiers {
        self.made = true;
        self.bit(0)
    }

    /// Tiers that count: this period's guesses and those of the one before, and what workers said.
    #[inline]
    pub(crate) fn counting(&self) -> Tiers {
        TOLD | self.bit(0) | self.bit(2)
    }

    /// What has ended.
    pub(crate) fn dirty(&self) -> Tiers {
        self.dirty
    }

    /// None of those are left.
    pub(crate) fn cleaned(&mut self, bits: Tiers) {
        self.dirty &= !bits;
    }

    /// Whether the period has ended.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        now >= self.ends_at
    }

    /// The bit of the period after this one, which has to be clean by then.
    pub(crate) fn next(&self) -> Tiers {
        self.bit(1)
    }

    /// The next period begins.
    pub(crate) fn turn(&mut self) {
        debug_assert_eq!(self.dirty & self.next(), 0, "old guesses would count again");
        if self.made_before {
            self.dirty |= self.bit(2);
        }
        self.made_before = std::mem::take(&mut self.made);
        self.turns += 1;
        self.ends_at += self.period_seconds;
    }

    /// After all that were made have ended, however long ago.
    pub(crate) fn skip_to(&mut self, now: u64) {
        self.ends_at = self.ends_at.max(now + self.period_seconds);
    }
}
