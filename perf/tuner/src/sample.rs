//! Requests to be simulated, drawn again and changed: other seeds, burstier, longer.

use baton_policy::dice::Dice;
use baton_simulator::{SimRequest, Start, Traffic, TrafficError};

/// A trace is cut into so many windows for another order of them.
const WINDOWS: usize = 16;
/// Gaps between requests are multiplied by a quarter or by four, so that their mean stays.
const BURST: [(f64, f64); 2] = [(0.8, 0.25), (0.2, 4.0)];

/// Requests.
#[derive(Clone, Debug)]
pub struct Sample {
    requests: Vec<SimRequest>,
    concurrency: usize,
}

impl Sample {
    /// These; at most `concurrency` of those that start when there is room are under way.
    #[must_use]
    pub fn new(requests: Vec<SimRequest>, concurrency: usize) -> Self {
        Self { requests, concurrency }
    }

    /// The requests.
    #[must_use]
    pub fn requests(&self) -> &[SimRequest] {
        &self.requests
    }

    /// How many a second, over the time in which they come; none, if they have no times of their own.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        let times = self.requests.iter().filter_map(|request| match request.start {
            Start::At(at) => Some(at),
            Start::WhenFree | Start::After { .. } => None,
        });
        let (first, last) =
            times.fold((f64::INFINITY, 0.0_f64), |(first, last), at| (first.min(at), last.max(at)));
        (last > first).then(|| (self.requests.len() - 1) as f64 / (last - first) * 1e3)
    }

    /// The first `most` of them.
    #[must_use]
    pub fn first(mut self, most: usize) -> Self {
        self.requests.truncate(most);
        self
    }

    /// The same requests with their windows of time in another order; `0` leaves them. Where requests follow on others nothing changes.
    #[must_use]
    pub fn shuffled(&self, seed: u64) -> Self {
        let only_timed = self.requests.iter().all(|request| matches!(request.start, Start::At(_)));
        let at = |request: &SimRequest| match request.start {
            Start::At(at) => at,
            Start::WhenFree | Start::After { .. } => 0.0,
        };
        if seed == 0 || !only_timed || self.requests.len() < 2 * WINDOWS {
            return self.clone();
        }
        let mut requests = self.requests.clone();
        requests.sort_by(|a, b| at(a).total_cmp(&at(b)));
        let begin = at(&requests[0]);
        let length = (at(&requests[requests.len() - 1]) - begin) / WINDOWS as f64;
        let mut dice = Dice::new(seed);
        let mut order: Vec<usize> = (0..WINDOWS).collect();
        (1..WINDOWS).rev().for_each(|last| order.swap(last, dice.below(last + 1)));
        // [window]: where it comes.
        let mut place = [0; WINDOWS];
        order.iter().enumerate().for_each(|(at, &window)| place[window] = at);
        for request in &mut requests {
            let window = (((at(request) - begin) / length) as usize).min(WINDOWS - 1);
            let shift = (place[window] as f64 - window as f64) * length;
            request.start = Start::At((at(request) + shift).max(0.0));
        }
        requests.sort_by(|a, b| at(a).total_cmp(&at(b)));
        Self { requests, ..*self }
    }

    /// Burstier, at the same mean rate.
    #[must_use]
    pub fn burstier(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xb0_057);
        let mut requests = self.requests.clone();
        let (mut before, mut now) = (0.0, 0.0);
        for request in &mut requests {
            if let Start::At(at) = &mut request.start {
                let factor = if dice.unit() < BURST[0].0 { BURST[0].1 } else { BURST[1].1 };
                now += (*at - before).max(0.0) * factor;
                before = *at;
                *at = now;
            }
        }
        Self { requests, ..*self }
    }

    /// With prompts and answers so many times as long.
    #[must_use]
    pub fn stretched(&self, prompts: f64, answers: f64) -> Self {
        let times = |tokens: u32, factor: f64| ((f64::from(tokens) * factor).round() as u32).max(1);
        let mut requests = self.requests.clone();
        for request in &mut requests {
            let pieces: u32 = request.pieces.iter().map(|piece| piece.tokens).sum();
            let rest = request.prompt_tokens - pieces.min(request.prompt_tokens);
            request.pieces.iter_mut().for_each(|piece| piece.tokens = times(piece.tokens, prompts));
            let pieces: u32 = request.pieces.iter().map(|piece| piece.tokens).sum();
            request.prompt_tokens = pieces + if rest > 0 { times(rest, prompts) } else { 0 };
            request.output_tokens = times(request.output_tokens, answers);
        }
        Self { requests, ..*self }
    }

    /// As the simulator takes them.
    ///
    /// # Errors
    /// [`TrafficError`].
    pub fn traffic(&self) -> Result<Traffic, TrafficError> {
        Traffic::try_new(self.requests.iter().cloned(), self.concurrency)
    }
}
