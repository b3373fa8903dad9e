//! The few best candidates of a search.

use super::term::Candidate;

/// Candidates that a search keeps: enough for a choice among near equals, and for a record.
pub const KEPT: usize = 8;

/// The cheapest so far, cheapest first; of equals, those that came first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tops {
    kept: [Option<Candidate>; KEPT],
    len: usize,
}

impl Tops {
    /// What a candidate must cost less than to matter.
    pub(crate) fn bound(&self) -> f64 {
        if self.len < KEPT {
            f64::INFINITY
        } else {
            self.kept[KEPT - 1].map_or(f64::INFINITY, |last| last.cost)
        }
    }

    pub(crate) fn offer(&mut self, candidate: Candidate) {
        if candidate.cost.is_nan() || candidate.cost >= self.bound() {
            return;
        }
        let at = self.kept[..self.len]
            .iter()
            .position(|kept| kept.is_some_and(|kept| candidate.cost < kept.cost))
            .unwrap_or(self.len);
        let end = (self.len + 1).min(KEPT);
        self.kept.copy_within(at..end - 1, at + 1);
        self.kept[at] = Some(candidate);
        self.len = end;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Candidate> + '_ {
        self.kept[..self.len].iter().filter_map(|&kept| kept)
    }
}
