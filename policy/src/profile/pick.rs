//! Which of the cheapest places a request gets.

use crate::{dice::Dice, estimate::Candidate, view::Ms};

/// Chooses among candidates, cheapest first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Picker {
    /// The cheapest; equals take turns by the request's dice.
    #[default]
    Best,
    /// One of those that cost at most this much more than the cheapest; the cheaper, the likelier.
    NearBest {
        /// How much more.
        within_ms: Ms,
    },
    /// The cheaper of two drawn at random of either role: for many schedulers that do not know of each other.
    PowerOfTwo,
}

impl Picker {
    /// The index of the winner in `candidates`; `None` when there are none.
    #[must_use]
    pub fn pick(&self, candidates: &[Candidate], dice: &mut Dice) -> Option<usize> {
        let best = candidates.first()?.cost;
        match *self {
            Self::Best | Self::PowerOfTwo => Some(0),
            Self::NearBest { within_ms } => {
                let weight = |candidate: &Candidate| (within_ms - (candidate.cost - best)).max(0.0);
                let sum: f64 = candidates.iter().map(weight).sum();
                if sum <= 0.0 {
                    return Some(0);
                }
                let mut left = dice.unit() * sum;
                let drawn = candidates.iter().position(|candidate| {
                    left -= weight(candidate);
                    left < 0.0
                });
                Some(drawn.unwrap_or(0))
            }
        }
    }
}
