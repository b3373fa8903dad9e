//! What the null server does, known beforehand.

use std::time::Duration;

use crate::clock::{Stamp, nanos};

/// The behaviour of a null server.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// From the last byte of a request to its first event.
    pub ttft: Duration,
    /// From a token to the next.
    pub itl: Duration,
    /// Tokens of an event, at least one.
    pub tokens_per_event: u32,
    /// Tokens of an answer whose length was not asked for.
    pub default_tokens: u32,
    /// Share of requests that get status 500, from 0 to 1.
    pub error_share: f64,
    /// When everything stands still.
    pub freeze: Option<Freeze>,
    /// Whether usage is shown in every event where a client asks for it; if not, such a request gets status 400.
    pub has_continuous_usage: bool,
    /// What it says it serves.
    pub model: String,
    /// Which requests fail.
    pub seed: u64,
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            ttft: Duration::from_millis(50),
            itl: Duration::from_millis(10),
            tokens_per_event: 1,
            default_tokens: 128,
            error_share: 0.0,
            freeze: None,
            has_continuous_usage: true,
            model: "null".to_owned(),
            seed: 0,
        }
    }
}

impl Truth {
    /// Whether the `number`th request fails.
    #[must_use]
    pub fn fails(&self, number: u64) -> bool {
        // SplitMix64 (Steele, Lea, Flood 2014): every request draws by its number alone.
        let mut z = self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 <= self.error_share && self.error_share > 0.0
    }

    /// The answer's events: tokens of each, and when it is due after `arrived`, freezes aside.
    #[must_use]
    pub fn event(&self, number: u32, tokens: u32) -> (u32, Duration) {
        let each = self.tokens_per_event.max(1);
        let before = number.saturating_mul(each).min(tokens);
        let own = each.min(tokens - before);
        // Timed from the last token of the first event, so that each event takes as long as the tokens in it.
        let since_first = (before + own).saturating_sub(each.min(tokens));
        (own, self.ttft + self.itl * since_first)
    }
}

/// Times at which a server does nothing at all: what was due is due that much later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// From the first request to the first of them.
    pub after: Duration,
    /// How long each lasts.
    pub length: Duration,
    /// From the end of one to the beginning of the next; `None`: there is one only.
    pub every: Option<Duration>,
}

impl Freeze {
    /// When `work` is done that was begun at `from`, in a server whose first request came at `began`.
    #[must_use]
    pub fn end_of(&self, began: Stamp, from: Stamp, work: Duration) -> Stamp {
        let awake = self.awake_at(from.since(began));
        began + self.wall_at(awake + work)
    }

    /// Time awake in the first `wall` of a server's life.
    fn awake_at(&self, wall: Duration) -> Duration {
        let Some(since) = wall.checked_sub(self.after) else { return wall };
        let Some(every) = self.every else { return self.after + since.saturating_sub(self.length) };
        let (round, rest) = divide(since, self.length + every);
        self.after + every * round + rest.saturating_sub(self.length)
    }

    /// The inverse, the earliest: work that ends with a freeze's beginning is done before it.
    fn wall_at(&self, awake: Duration) -> Duration {
        let Some(since) = awake.checked_sub(self.after).filter(|since| !since.is_zero()) else {
            return awake;
        };
        let Some(every) = self.every else { return awake + self.length };
        // Whole rounds done before this work's end; the freeze in front of the present one is counted, too.
        let round = divide(since - Duration::from_nanos(1), every).0;
        awake + self.length * (round + 1)
    }
}

/// Whole times that `part` goes into `whole`, and what is left.
fn divide(whole: Duration, part: Duration) -> (u32, Duration) {
    let (whole, part) = (nanos(whole), nanos(part).max(1));
    (u32::try_from(whole / part).unwrap_or(u32::MAX), Duration::from_nanos(whole % part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn truth(tokens_per_event: u32) -> Truth {
        Truth { tokens_per_event, ..Truth::default() }
    }

    fn due(truth: &Truth, tokens: u32) -> Vec<(u32, u128)> {
        let events = (0..).map(|number| truth.event(number, tokens)).take_while(|(own, _)| *own > 0);
        events.map(|(own, due)| (own, due.as_millis())).collect()
    }

    #[test]
    fn events_take_as_long_as_the_tokens_in_them() {
        assert_eq!(due(&truth(1), 3), [(1, 50), (1, 60), (1, 70)]);
        assert_eq!(due(&truth(8), 20), [(8, 50), (8, 130), (4, 170)]);
        assert_eq!(due(&truth(8), 3), [(3, 50)]);
    }

    #[test]
    fn a_share_of_requests_fails_and_the_same_ones_each_time() {
        let truth = Truth { error_share: 0.25, seed: 3, ..Truth::default() };
        let failed: Vec<u64> = (0..4000).filter(|number| truth.fails(*number)).collect();
        assert!((900..1100).contains(&failed.len()), "{} of 4000", failed.len());
        assert!((0..4000).all(|number| !Truth::default().fails(number)));
        assert!((0..4000).all(|number| Truth { error_share: 1.0, ..truth.clone() }.fails(number)));
    }

    #[test]
    fn a_freeze_moves_all_that_comes_after_it() {
        let once = Freeze { after: MS(100), length: MS(2000), every: None };
        let end =
            |from, work| once.end_of(Stamp(7), Stamp(7) + MS(from), MS(work)).since(Stamp(7)).as_millis();
        assert_eq!(end(0, 100), 100, "done just before it");
        assert_eq!(end(0, 101), 2101);
        assert_eq!(end(500, 10), 2110, "begun while it lasts");
        assert_eq!(end(2100, 10), 2110, "begun after it");
    }

    #[test]
    fn freezes_come_again() {
        let often = Freeze { after: MS(100), length: MS(50), every: Some(MS(200)) };
        let end =
            |from, work| often.end_of(Stamp(0), Stamp(0) + MS(from), MS(work)).since(Stamp(0)).as_millis();
        assert_eq!(end(0, 101), 151);
        assert_eq!(end(0, 300), 350, "the second begins at 350");
        assert_eq!(end(0, 301), 401);
        assert_eq!(end(360, 10), 410);
        assert_eq!(end(0, 1000), 1250, "five freezes: 100, 350, 600, 850, 1100");
    }
}
