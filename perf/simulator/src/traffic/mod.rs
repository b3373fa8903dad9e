//! What arrives: requests as the simulator takes them, prepared once and simulated many times.

mod plan;
mod prefix;

pub(crate) use prefix::Prefixes;

/// A request to be simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct SimRequest {
    /// When it is sent.
    pub start: Start,
    /// Tokens of its prompt; at least one.
    pub prompt_tokens: u32,
    /// Tokens of its answer; at least one.
    pub output_tokens: u32,
    /// What its prompt is made of, as far as anybody shares it: requests whose pieces begin the same share exactly that beginning. Their tokens may be
    /// fewer than the prompt's; the rest is nobody else's.
    pub pieces: Vec<PromptPiece>,
    /// When its client gives it up.
    pub cancel: Option<Cancel>,
}

/// A piece of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PromptPiece {
    /// What it says.
    pub id: u64,
    /// How long it is.
    pub tokens: u32,
    /// It is what this earlier request was answered, so who generated that has its keys and values.
    pub answer_of: Option<u32>,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// At a time, ms from the beginning.
    At(f64),
    /// As soon as fewer than [`Traffic::concurrency`] are under way, in order.
    WhenFree,
    /// After another one, which stands before it, has ended.
    After {
        /// Which.
        index: u32,
        /// ms after its end.
        think_ms: f64,
    },
}

/// When a client gives a request up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cancel {
    /// ms after it was sent.
    AfterMs(f64),
    /// Once so many tokens came.
    AfterTokens(u32),
}

/// A request that can't be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request {index}: {what}")]
pub struct TrafficError {
    /// Which, from 0.
    pub index: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Requests, prepared.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub(crate) requests: Vec<Prepared>,
    pub(crate) prefixes: Prefixes,
    // [index]: the first that waits for its end, then from each to the next.
    pub(crate) followers: Vec<u32>,
    pub(crate) next_follower: Vec<u32>,
    // In order of time.
    pub(crate) timed: Vec<u32>,
    pub(crate) when_free: Vec<u32>,
    concurrency: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Prepared {
    pub(crate) start: Start,
    pub(crate) prompt: u32,
    pub(crate) output: u32,
    pub(crate) path: (u32, u32),
    /// Its prompt and its answer, if another prompt begins so.
    pub(crate) answer: u32,
    pub(crate) cancel: Option<Cancel>,
}

/// No follower, no node.
pub(crate) const NONE: u32 = u32::MAX;

impl Traffic {
    /// Prepares `requests`; at most `concurrency` of those that start [`Start::WhenFree`] are under way at a time.
    ///
    /// # Errors
    /// [`TrafficError`]: a request without tokens, one that waits for a later one, or a time that is none.
    pub fn try_new(
        requests: impl IntoIterator<Item = SimRequest>,
        concurrency: usize,
    ) -> Result<Self, TrafficError> {
        let mut traffic = Self { concurrency: concurrency.max(1), ..Self::default() };
        let mut chains = prefix::Chains::default();
        for (index, request) in requests.into_iter().enumerate() {
            let wrong = |what| TrafficError { index, what };
            if index >= NONE as usize / 2 {
                return Err(wrong("there are at most two billion requests"));
            }
            if request.prompt_tokens == 0 || request.output_tokens == 0 {
                return Err(wrong("a request has at least one token of prompt and one of answer"));
            }
            let pieces: u64 = request.pieces.iter().map(|piece| u64::from(piece.tokens)).sum();
            if pieces > u64::from(request.prompt_tokens) {
                return Err(wrong("the pieces of a prompt have more tokens than the prompt"));
            }
            let mut output = request.output_tokens;
            let mut cancel = request.cancel;
            match cancel {
                Some(Cancel::AfterMs(ms)) if !ms.is_finite() || ms < 0.0 => {
                    return Err(wrong("a client gives up after a finite time"));
                }
                Some(Cancel::AfterTokens(tokens)) if tokens >= output => cancel = None,
                Some(Cancel::AfterTokens(tokens)) => output = tokens.max(1),
                _ => {}
            }
            traffic.followers.push(NONE);
            traffic.next_follower.push(NONE);
            match request.start {
                Start::At(at) if at.is_finite() && at >= 0.0 => traffic.timed.push(index as u32),
                Start::WhenFree => traffic.when_free.push(index as u32),
                Start::After { index: first, think_ms }
                    if (first as usize) < index && think_ms.is_finite() && think_ms >= 0.0 =>
                {
                    let next = std::mem::replace(&mut traffic.followers[first as usize], index as u32);
                    traffic.next_follower[index] = next;
                }
                _ => return Err(wrong("a request starts at a finite time or after an earlier request")),
            }
            chains.push(&request.pieces);
            traffic.requests.push(Prepared {
                start: request.start,
                prompt: request.prompt_tokens,
                output,
                path: (0, 0),
                answer: NONE,
                cancel,
            });
        }
        let requests = &traffic.requests;
        let at = |index: u32| match requests[index as usize].start {
            Start::At(at) => at,
            _ => f64::INFINITY,
        };
        traffic.timed.sort_by(|&a, &b| at(a).total_cmp(&at(b)));
        let prefix::Paths { prefixes, of_requests, answers } = chains.finish();
        traffic.prefixes = prefixes;
        for (request, node) in answers {
            if let Some(request) = traffic.requests.get_mut(request as usize) {
                request.answer = node;
            }
        }
        for (request, path) in traffic.requests.iter_mut().zip(of_requests) {
            request.path = path;
        }
        Ok(traffic)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Most requests of a closed loop at a time.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// The same with all times (but not think times) multiplied by `factor`: 0.5 sends twice as fast.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let mut scaled = self.clone();
        scaled.scale(factor);
        scaled
    }

    /// Multiplies all times (but not think times) by `factor`.
    pub fn scale(&mut self, factor: f64) {
        for request in &mut self.requests {
            if let Start::At(at) = &mut request.start {
                *at *= factor;
            }
        }
    }

    /// From the first to the last that has a time, ms.
    #[must_use]
    pub fn duration_ms(&self) -> f64 {
        let at = |index: Option<&u32>| match index.map(|&index| self.requests[index as usize].start) {
            Some(Start::At(at)) => at,
            _ => 0.0,
        };
        at(self.timed.last()) - at(self.timed.first())
    }

    /// Tokens of prompt and answer of request `index`.
    #[must_use]
    pub fn tokens(&self, index: usize) -> (u32, u32) {
        let request = &self.requests[index];
        (request.prompt, request.output)
    }

    pub(crate) fn path(&self, index: u32) -> &[u32] {
        self.prefixes.path(self.requests[index as usize].path)
    }
}
