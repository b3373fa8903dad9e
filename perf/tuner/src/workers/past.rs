//! What a fleet was sent so far, simulated as one: schedulers learn from it, so what a run gets depends on those before it.

use baton_simulator::{PromptPiece, Served, SimRequest, Start, Traffic};

use crate::{Search, Split, TuneError};

/// From the end of a run to the next one's beginning, about, ms.
const PAUSE_MS: f64 = 1_000.0;

/// Runs on one fleet, in order.
#[derive(Debug)]
pub(super) struct Past<'a> {
    search: &'a Search,
    split: Split,
    requests: Vec<SimRequest>,
    runs: u64,
    end_ms: f64,
}

impl<'a> Past<'a> {
    pub(super) fn new(search: &'a Search, split: Split) -> Self {
        Self { search, split, requests: Vec::new(), runs: 0, end_ms: 0.0 }
    }

    /// One more run: how its requests are served.
    ///
    /// # Errors
    /// [`TuneError`].
    pub(super) fn run(&mut self, requests: Vec<SimRequest>) -> Result<Vec<Served>, TuneError> {
        let before = self.requests.len();
        let begins = if before > 0 { self.end_ms + PAUSE_MS } else { 0.0 };
        self.requests
            .extend(requests.into_iter().map(|request| later(request, before as u32, begins, self.runs)));
        self.runs += 1;
        let traffic = Traffic::try_new(self.requests.iter().cloned(), 1)?;
        let simulated = self.search.simulate(self.split, &traffic, 0)?;
        self.end_ms = simulated.end_ms();
        Ok(simulated.served().skip(before).collect())
    }
}

/// With so many others before it, from this time on, in the words of this run.
fn later(request: SimRequest, before: u32, begins: f64, run: u64) -> SimRequest {
    let piece = |piece: PromptPiece| PromptPiece {
        id: piece.id ^ run << 56,
        answer_of: piece.answer_of.map(|index| index + before),
        ..piece
    };
    SimRequest {
        start: match request.start {
            Start::At(at) => Start::At(at + begins),
            Start::WhenFree => Start::At(begins),
            Start::After { index, think_ms } => Start::After { index: index + before, think_ms },
        },
        pieces: request.pieces.into_iter().map(piece).collect(),
        ..request
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use baton_profile::Estimate;
    use baton_simulator::Routing;

    use super::*;
    use crate::Objective;

    fn requests(shared_tokens: u32) -> Vec<SimRequest> {
        let request = |at: u32| SimRequest {
            start: Start::At(f64::from(at) * 100.0),
            prompt_tokens: 2_000,
            output_tokens: 20,
            pieces: vec![PromptPiece { id: 1, tokens: shared_tokens, answer_of: None }],
            cancel: None,
        };
        (0..20).map(request).collect()
    }

    #[test]
    fn a_run_comes_after_those_before_it_and_finds_none_of_their_words() {
        let estimate = Estimate::of("p5", "llama-3.1-8b").unwrap();
        let search = Search {
            profile: Arc::new(estimate.profile().unwrap()),
            objective: Objective::default(),
            routing: Routing::RoundRobin,
            max_tokens: None,
        };
        let mut past = Past::new(&search, Split { prefill: 1, decode: 1 });
        let runs = [0, 1].map(|_| past.run(requests(1_600)).unwrap());
        assert_eq!(runs[0].len(), 20);
        let ttft = |run: &[Served]| run.iter().map(|served| served.ttft_ms.unwrap()).collect::<Vec<_>>();
        let (first, second) = (ttft(&runs[0]), ttft(&runs[1]));
        assert!(first[1] < first[0] / 2.0, "what they share is computed once: {first:?}");
        for (first, second) in first.iter().zip(&second) {
            assert!((first - second).abs() < 1e-6, "{first} {second}");
        }
    }
}
