//! The plan: requests as they will be sent.

use std::time::Duration;

use crate::digest::{Sha256, digest};

/// One request as it is planned. Times are offsets from the start of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its place in the plan, from 0.
    pub index: u32,
    /// When it is sent.
    pub start: Start,
    /// Which conversation it belongs to; `None` for a request that stands alone.
    pub session: Option<u32>,
    /// Its place in the conversation, from 0.
    pub turn: u32,
    /// What it says, with all that was said before in its session.
    pub prompt: Prompt,
    /// Tokens that it asks for, at least 1. The server is told to write exactly as many, where it can be told.
    pub output_tokens: u32,
    /// Whether the client goes away before the answer is complete.
    pub cancel: Option<Cancel>,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this time after the start of the run, whatever the server does: open loop.
    At(Duration),
    /// As soon as one of the plan's concurrent places is free: closed loop.
    WhenFree,
    /// So long after the answer to an earlier request of the same session is complete. In a closed loop the session keeps its place
    /// meanwhile. When the earlier request fails or is cancelled, this one is not sent.
    After {
        /// Index of the earlier request.
        index: u32,
        /// The reader's time to think.
        think: Duration,
    },
}

/// When the client hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// As soon as so many tokens have come, at least 1.
    AfterTokens(u32),
    /// So long after sending, unless the answer is complete by then.
    AfterTime(Duration),
}

/// A prompt in pieces: requests whose prompts begin with equal pieces share exactly that prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// In order; never empty in a plan.
    pub pieces: Vec<Piece>,
}

/// A part of a prompt. Of two pieces with the same id the shorter is the beginning of the longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// What it says: equal ids say the same. Ids are dense, from 0.
    pub id: u64,
    /// How long it is, at least 1; an estimate where the plan's texts could not be counted.
    pub tokens: u32,
    /// Where its content comes from.
    pub fill: Fill,
}

/// Where a piece's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Made from the seed and the piece's id; said by the user.
    Made,
    /// What the server answered to an earlier request of the session, of which `tokens` is what it was asked for.
    Answer {
        /// Index of the earlier request.
        index: u32,
    },
    /// A text out of a file: one message.
    Text(TextId),
}

/// A text of the plan, for [`Plan::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextId(pub u32);

/// A literal message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    /// Who says it.
    pub role: Role,
    /// What is said, as it stands in the file.
    pub text: String,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The operator.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// How the plan's requests get their turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pacing {
    /// Closed loop: places that are always taken, each by one request or session. `None`: requests start at their times.
    pub concurrency: Option<u32>,
    /// Open loop: a request whose time has come waits while so many are in flight (its latency counts from its time all the same).
    pub max_in_flight: Option<u32>,
    /// After this time no request is started.
    pub duration: Option<Duration>,
}

/// Everything that will be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    requests: Vec<Planned>,
    texts: Vec<Text>,
    pacing: Pacing,
    seed: u64,
    sha256: Sha256,
    left_out: u64,
}

impl Plan {
    /// A plan of these requests, whose indices are their places.
    ///
    /// # Panics
    /// In debug builds, when a request's index is not its place, its prompt is empty, it waits for a later one, or a text is missing.
    pub fn new(requests: Vec<Planned>, texts: Vec<Text>, pacing: Pacing, seed: u64) -> Self {
        debug_assert!(
            requests.iter().enumerate().all(|(place, request)| request.is_sound(place, texts.len()))
        );
        let sha256 = digest(&requests, &texts, pacing, seed);
        Self { requests, texts, pacing, seed, sha256, left_out: 0 }
    }

    /// The requests: in an open loop by their start (a session's later turns come right after its first), else in the order of sending.
    pub fn requests(&self) -> &[Planned] {
        &self.requests
    }

    /// A literal message.
    ///
    /// # Panics
    /// When the id is another plan's.
    pub fn text(&self, id: TextId) -> &Text {
        &self.texts[id.0 as usize]
    }

    /// How requests get their turn.
    pub fn pacing(&self) -> Pacing {
        self.pacing
    }

    /// The root of all random numbers, which content is made from too.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Requests of the file that are not in the plan because they are longer than what was allowed.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    pub(crate) fn with_left_out(self, left_out: u64) -> Self {
        Self { left_out, ..self }
    }

    /// SHA-256 over the whole plan in a canonical form: what two runs must have in common to be the same traffic.
    pub fn sha256(&self) -> Sha256 {
        self.sha256
    }
}

impl Prompt {
    /// Tokens of all pieces.
    pub fn tokens(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.tokens)).sum()
    }
}

impl Planned {
    fn is_sound(&self, place: usize, texts: usize) -> bool {
        let earlier = |index: u32| (index as usize) < place;
        self.index as usize == place
            && !self.prompt.pieces.is_empty()
            && self.output_tokens > 0
            && !matches!(self.start, Start::After { index, .. } if !earlier(index))
            && self.prompt.pieces.iter().all(|piece| {
                piece.tokens > 0
                    && match piece.fill {
                        Fill::Made => true,
                        Fill::Answer { index } => earlier(index),
                        Fill::Text(id) => (id.0 as usize) < texts,
                    }
            })
    }
}
