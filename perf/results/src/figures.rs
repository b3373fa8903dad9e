use crate::{Chunk, Micros, Outcome, Record, Slo};

/// What one complete request took, in milliseconds. What can't be known of it is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// From the intended send time to the first chunk with tokens.
    pub ttft: Option<f64>,
    /// The same from the actual send time.
    pub ttft_from_sent: Option<f64>,
    /// From the first chunk to the last token ÷ the tokens that came after the first chunk.
    pub tpot: Option<f64>,
    /// From the intended send time to the end.
    pub e2e: Option<f64>,
    /// The same from the actual send time.
    pub e2e_from_sent: Option<f64>,
    /// `e2e` ÷ output tokens.
    pub normalised: Option<f64>,
    /// The longest gap between two chunks.
    pub stall: Option<f64>,
}

/// The time between two chunks with tokens, and how many tokens ended it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// Milliseconds.
    pub millis: f64,
    /// Tokens of the chunk that ended it.
    pub tokens: f64,
}

impl Figures {
    /// Those of `record`; all absent if it is not complete. `streaming`: whether its chunks say when tokens came.
    pub fn of(record: &Record, streaming: bool) -> Self {
        let (Outcome::Complete { .. }, Some(end)) = (&record.outcome, record.end_us) else {
            return Self::default();
        };
        let e2e = end.since(record.intended_us).millis();
        let output = record.output_tokens();
        let mut figures = Self {
            e2e: Some(e2e),
            e2e_from_sent: record.sent_us.map(|sent| end.since(sent).millis()),
            normalised: (output > 0.0).then(|| e2e / output),
            ..Self::default()
        };
        let (Some(first), true) = (record.first_chunk(), streaming) else { return figures };
        figures.ttft = Some(first.at.since(record.intended_us).millis());
        figures.ttft_from_sent = record.sent_us.map(|sent| first.at.since(sent).millis());
        figures.tpot = tpot(record, first);
        figures.stall = record.gaps().map(|gap| gap.millis).reduce(f64::max);
        figures
    }

    /// Whether all that is asked was met. Who has no second chunk has no TPOT, and keeps any.
    pub fn meet(&self, slo: &Slo) -> bool {
        let within = |limit: Option<f64>, found: Option<f64>| {
            limit.is_none_or(|limit| found.is_some_and(|found| found <= limit))
        };
        let tpot = slo.tpot_ms.is_none_or(|limit| self.tpot.is_none_or(|found| found <= limit));
        self.e2e.is_some() && tpot && within(slo.ttft_ms, self.ttft) && within(slo.e2e_ms, self.e2e)
    }
}

fn tpot(record: &Record, first: Chunk) -> Option<f64> {
    let later = record.output_tokens() - f64::from(first.tokens) * record.tokens_per_counted();
    let last = record.token_chunks().last()?;
    (last.at > first.at && later > 0.0).then(|| last.at.since(first.at).millis() / later)
}

impl Record {
    /// Chunks that brought tokens.
    pub fn token_chunks(&self) -> impl DoubleEndedIterator<Item = Chunk> + '_ {
        self.chunks.iter().copied().filter(|chunk| chunk.tokens > 0)
    }

    /// The first of them.
    pub fn first_chunk(&self) -> Option<Chunk> {
        self.token_chunks().next()
    }

    /// Tokens of the answer: the total if known, else those of the chunks.
    pub fn output_tokens(&self) -> f64 {
        self.output.map_or(self.counted(), |count| f64::from(count.tokens))
    }

    /// What a token counted in a chunk stands for: where the total is known better than the chunks, the difference is spread
    /// over them evenly. 1 where they agree.
    pub fn tokens_per_counted(&self) -> f64 {
        let counted = self.counted();
        if counted > 0.0 && self.output_tokens() > 0.0 { self.output_tokens() / counted } else { 1.0 }
    }

    /// From each chunk with tokens to the next.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> + '_ {
        let worth = self.tokens_per_counted();
        let next = self.token_chunks().skip(1);
        self.token_chunks().zip(next).map(move |(one, other)| Gap {
            millis: other.at.since(one.at).millis(),
            tokens: f64::from(other.tokens) * worth,
        })
    }

    /// Tokens that came within `[start, end]`.
    pub fn tokens_between(&self, start: Micros, end: Micros) -> f64 {
        let within = self.chunks.iter().filter(|chunk| start <= chunk.at && chunk.at <= end);
        within.map(|chunk| f64::from(chunk.tokens)).sum::<f64>() * self.tokens_per_counted()
    }

    fn counted(&self) -> f64 {
        self.chunks.iter().map(|chunk| f64::from(chunk.tokens)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, complete};
    use crate::{Count, CountSource};

    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("there is a figure");
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    /// TTFT 20 ms and 5.0 ms a token, whatever the chunks: where clients that divide by N − 1 say 3.98 or 4.6.
    #[test]
    fn tpot_and_itl_do_not_depend_on_how_tokens_are_bundled() {
        for per_chunk in [1, 2, 8, 16] {
            let record = complete(&Answer { tokens_per_chunk: per_chunk, ..Answer::default() });
            let figures = Figures::of(&record, true);
            close(figures.ttft, 20.0);
            close(figures.tpot, 5.0);
            close(figures.stall, 5.0 * f64::from(per_chunk));
            for gap in record.gaps() {
                close(Some(gap.millis / gap.tokens), 5.0);
            }
        }
    }

    #[test]
    fn a_total_that_is_known_better_than_the_chunks_is_spread_over_them() {
        let mut record = complete(&Answer { tokens_per_chunk: 8, ..Answer::default() });
        for chunk in &mut record.chunks {
            chunk.tokens = 1;
        }
        record.chunk_tokens = CountSource::Assumed;
        record.output = Some(Count { tokens: 128, source: CountSource::Usage });
        close(Figures::of(&record, true).tpot, 5.0);
        close(Some(record.tokens_between(Micros(0), Micros(u64::MAX))), 128.0);
    }

    #[test]
    fn lateness_of_the_client_counts_from_the_intended_time_only() {
        let record = complete(&Answer { intended_us: 1_000, sent_us: 31_000, ..Answer::default() });
        let figures = Figures::of(&record, true);
        close(figures.ttft, 50.0);
        close(figures.ttft_from_sent, 20.0);
        close(figures.e2e, 30.0 + 20.0 + 127.0 * 5.0);
        close(figures.e2e_from_sent, 20.0 + 127.0 * 5.0);
        close(figures.normalised, (30.0 + 20.0 + 127.0 * 5.0) / 128.0);
    }

    #[test]
    fn an_answer_of_one_chunk_has_no_tpot_and_meets_any() {
        let record = complete(&Answer { tokens: 8, tokens_per_chunk: 8, ..Answer::default() });
        let figures = Figures::of(&record, true);
        assert_eq!((figures.tpot, figures.stall), (None, None));
        assert!(figures.meet(&Slo { tpot_ms: Some(0.1), ..Slo::default() }));
        assert!(!figures.meet(&Slo { ttft_ms: Some(0.1), ..Slo::default() }));
    }

    #[test]
    fn an_answer_that_was_not_streamed_has_an_end_but_no_first_token() {
        let record = complete(&Answer { tokens_per_chunk: 128, ..Answer::default() });
        let figures = Figures::of(&record, false);
        assert_eq!((figures.ttft, figures.tpot), (None, None));
        assert!(figures.e2e.is_some() && figures.normalised.is_some());
    }

    #[test]
    fn chunks_without_tokens_start_and_end_nothing() {
        let mut record = complete(&Answer::default());
        record.chunks.insert(0, Chunk { at: Micros(1), tokens: 0 });
        record.chunks.insert(2, Chunk { at: Micros(21_000), tokens: 0 });
        let figures = Figures::of(&record, true);
        close(figures.ttft, 20.0);
        close(figures.stall, 5.0);
    }

    #[test]
    fn who_failed_has_no_latency_and_misses_every_slo() {
        let mut record = complete(&Answer::default());
        record.outcome = Outcome::Failed { status: Some(503), message: "no room".into() };
        let figures = Figures::of(&record, true);
        assert_eq!(figures, Figures::default());
        assert!(!figures.meet(&Slo::default()));
    }
}
