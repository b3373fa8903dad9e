//! A plan in a few numbers.

use std::{collections::HashMap, fmt, time::Duration};

use crate::plan::{Fill, Plan, Prompt, Start};

/// What is in a plan; shown as a few lines of text.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanStats {
    /// Requests, each turn of a session counted.
    pub requests: u64,
    /// Sessions; 0 when each request stands alone.
    pub sessions: u64,
    /// Requests that will be cancelled.
    pub cancelled: u64,
    /// Requests of the file that are too long for the plan.
    pub left_out: u64,
    /// Open loop: the start of the last request whose time is planned.
    pub last_start: Option<Duration>,
    /// Open loop: starts a second up to the last, where there is a time between the first and the last.
    pub starts_per_second: Option<f64>,
    /// Tokens of prompts, with all that was said before.
    pub input_tokens: Percentiles,
    /// Tokens asked for.
    pub output_tokens: Percentiles,
    /// Share of prompt tokens, from 0 to 1, that a cache of unlimited size would have when its request comes, were each computed
    /// before the next in the plan: prefixes that prompts share, and answers in the next turn's prompt.
    pub reusable_share: f64,
}

/// A spread of token counts, by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    /// Of all.
    pub sum: u64,
    /// On average.
    pub mean: f64,
    /// The smallest.
    pub min: u64,
    /// The median.
    pub p50: u64,
    /// 90 % are not over it.
    pub p90: u64,
    /// 99 % are not over it.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

impl Plan {
    /// What is in it.
    pub fn stats(&self) -> PlanStats {
        let requests = self.requests();
        let count = |is_it: &dyn Fn(&crate::Planned) -> bool| {
            requests.iter().filter(|request| is_it(request)).count() as u64
        };
        let starts = || requests.iter().filter_map(|request| at(request.start));
        let (first, last) = (starts().min(), starts().max());
        let length = first.zip(last).map(|(first, last)| (last - first).as_secs_f64());
        let input_tokens = Percentiles::of(requests.iter().map(|request| request.prompt.tokens()));
        let mut cache = Cache::default();
        let reusable: u64 = requests.iter().map(|request| cache.reusable(&request.prompt)).sum();
        PlanStats {
            requests: requests.len() as u64,
            sessions: count(&|request| request.session.is_some() && request.turn == 0),
            cancelled: count(&|request| request.cancel.is_some()),
            left_out: self.left_out(),
            last_start: last,
            starts_per_second: length
                .filter(|&length| length > 0.0)
                .map(|length| (starts().count() - 1) as f64 / length),
            reusable_share: reusable as f64 / (input_tokens.sum.max(1)) as f64,
            input_tokens,
            output_tokens: Percentiles::of(requests.iter().map(|request| request.output_tokens.into())),
        }
    }
}

fn at(start: Start) -> Option<Duration> {
    match start {
        Start::At(at) => Some(at),
        Start::WhenFree | Start::After { .. } => None,
    }
}

impl Percentiles {
    fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else { return Self::default() };
        let rank = |percent: usize| values[(values.len() * percent).div_ceil(100) - 1];
        let sum = values.iter().sum();
        Self {
            sum,
            mean: sum as f64 / values.len() as f64,
            min,
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max,
        }
    }
}

/// All prompts so far as a tree; node 0 is the empty prompt.
#[derive(Default)]
struct Cache {
    // By what a prompt has said (a node), the next piece's id and its length: what it has said then.
    next: HashMap<(u32, u64, u32), u32>,
    // By node and id: the longest such piece, of which shorter ones are the beginning.
    longest: HashMap<(u32, u64), u32>,
}

impl Cache {
    /// Tokens at the prompt's beginning that an earlier one began with. Remembers this one.
    fn reusable(&mut self, prompt: &Prompt) -> u64 {
        let (mut node, mut reusable, mut is_prefix) = (0, 0, true);
        for piece in &prompt.pieces {
            let is_answer = matches!(piece.fill, Fill::Answer { .. });
            let longest =
                self.longest.entry((node, piece.id)).or_insert(if is_answer { piece.tokens } else { 0 });
            if is_prefix {
                reusable += u64::from(piece.tokens.min(*longest));
                is_prefix = piece.tokens <= *longest;
            }
            *longest = piece.tokens.max(*longest);
            let new = self.next.len() as u32 + 1;
            let next = self.next.entry((node, piece.id, piece.tokens)).or_insert(new);
            // A piece that was only the beginning of a longer one has said something new by its end.
            is_prefix &= *next != new || is_answer;
            node = *next;
        }
        reusable
    }
}

impl fmt::Display for PlanStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "requests        {}", self.requests)?;
        let parts = [
            (self.sessions, "sessions"),
            (self.cancelled, "to be cancelled"),
            (self.left_out, "left out as too long"),
        ];
        for (count, what) in parts.iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        writeln!(f)?;
        if let Some(last) = self.last_start {
            write!(f, "starts          within {:.1} s", last.as_secs_f64())?;
            if let Some(rate) = self.starts_per_second {
                write!(f, ", {rate:.2} a second")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "input tokens    {}", self.input_tokens)?;
        writeln!(f, "output tokens   {}", self.output_tokens)?;
        write!(
            f,
            "reusable prefix {:.1} % of input tokens, with a cache of unlimited size",
            100.0 * self.reusable_share
        )
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sum, mean, min, p50, p90, p99, max } = self;
        write!(f, "{sum} in all; mean {mean:.0}, min {min}, p50 {p50}, p90 {p90}, p99 {p99}, max {max}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Pacing, Piece, Planned};

    fn plan(prompts: &[&[(u64, u32)]]) -> Plan {
        let requests = prompts.iter().zip(0..).map(|(pieces, index)| Planned {
            index,
            start: Start::At(Duration::from_secs(index.into())),
            session: None,
            turn: 0,
            prompt: Prompt {
                pieces: pieces.iter().map(|&(id, tokens)| Piece { id, tokens, fill: Fill::Made }).collect(),
            },
            output_tokens: 10 + index,
            cancel: None,
        });
        Plan::new(requests.collect(), Vec::new(), Pacing::default(), 0)
    }

    fn check_reusable(prompts: &[&[(u64, u32)]], tokens: u64) {
        let stats = plan(prompts).stats();
        let got = stats.reusable_share * stats.input_tokens.sum as f64;
        assert!((got - tokens as f64).abs() < 1e-6, "{prompts:?}: {got}, not {tokens}");
    }

    #[test]
    fn only_a_common_beginning_is_reusable() {
        check_reusable(&[&[(0, 5), (1, 7)], &[(2, 5), (1, 7)]], 0);
        check_reusable(&[&[(0, 5), (1, 7)], &[(0, 5), (2, 7)]], 5);
        check_reusable(&[&[(0, 5), (1, 7)], &[(0, 5), (1, 7), (2, 9)]], 12);
        check_reusable(&[&[(0, 5), (1, 7)], &[(0, 5), (1, 7)], &[(0, 5)]], 17);
    }

    #[test]
    fn of_equal_ids_the_shorter_is_the_longers_beginning() {
        check_reusable(&[&[(0, 5)], &[(0, 7)]], 5);
        check_reusable(&[&[(0, 7)], &[(0, 5)]], 5);
        // After a part of piece 0 nothing else is common.
        check_reusable(&[&[(0, 7), (1, 9)], &[(0, 5), (1, 9)]], 5);
        check_reusable(&[&[(0, 5), (1, 9)], &[(0, 7), (1, 9)], &[(0, 7), (1, 8)]], 5 + 15);
    }

    #[test]
    fn numbers_are_of_all_requests() {
        let stats = plan(&[&[(0, 1)], &[(1, 3)], &[(2, 2)], &[(3, 4)], &[(4, 100)]]).stats();
        let expected = Percentiles { sum: 110, mean: 22.0, min: 1, p50: 3, p90: 100, p99: 100, max: 100 };
        assert_eq!(stats.input_tokens, expected);
        assert_eq!((stats.requests, stats.output_tokens.p50), (5, 12));
        assert_eq!((stats.last_start, stats.starts_per_second), (Some(Duration::from_secs(4)), Some(1.0)));
        let text = stats.to_string();
        assert!(
            text.contains("within 4.0 s, 1.00 a second") && text.contains("reusable prefix 0.0 %"),
            "{text}"
        );
    }
}
