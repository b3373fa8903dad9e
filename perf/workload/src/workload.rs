//! The settings of a plan.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use crate::{
    arrivals::{RateProfile, Spacing},
    distribution::{Distribution, Seconds, Tokens},
    trace::TraceFormat,
};

/// What to plan. All random numbers come from `seed`.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The root of all random numbers.
    pub seed: u64,
    /// When requests start.
    pub load: Load,
    /// Most requests, a session's turns counted one by one. `None`: as many as `duration` or the load has room for.
    pub requests: Option<NonZeroU32>,
    /// No request starts after this time.
    pub duration: Option<Duration>,
    /// What they ask.
    pub source: Source,
    /// Which are cancelled.
    pub cancel: Option<CancelShare>,
}

/// When requests start.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// So many at any time, whatever the server does.
    Closed {
        /// Places that are always taken, each by one request or session.
        concurrency: NonZeroU32,
    },
    /// At times that do not depend on the server.
    Open {
        /// How many a second.
        profile: RateProfile,
        /// How irregularly.
        spacing: Spacing,
        /// A request whose time has come waits while so many are in flight.
        max_in_flight: Option<NonZeroU32>,
    },
    /// All at the beginning.
    AtOnce {
        /// A request waits while so many are in flight.
        max_in_flight: Option<NonZeroU32>,
    },
    /// When the trace says.
    Recorded {
        /// Over 0: what the trace's times are multiplied by. 0.5 replays twice as fast.
        time_scale: f64,
        /// Requests of one time stamp are spread evenly up to the next one.
        is_spread: bool,
        /// A request whose time has come waits while so many are in flight.
        max_in_flight: Option<NonZeroU32>,
    },
}

/// What requests ask.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one in a run")]
pub enum Source {
    /// Lengths from distributions.
    Synthetic(Synthetic),
    /// Requests out of a file.
    Trace(Trace),
}

/// Requests out of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The file.
    pub path: PathBuf,
    /// `None`: seen from its content.
    pub format: Option<TraceFormat>,
    /// Tokens of answers.
    pub output: TraceOutput,
    /// Over 0: what lengths of prompts and answers that the trace gives as numbers are multiplied by.
    pub token_scale: f64,
    /// Requests over it, prompt and answer together, are left out, with the turns after them.
    pub max_context_tokens: Option<NonZeroU32>,
    /// Where in the trace's own time to begin.
    pub skip: Duration,
    /// Turns after so many are left out.
    pub max_turns: NonZeroU32,
}

/// How long the answers to a trace's requests are.
#[derive(Clone, Debug, PartialEq)]
pub enum TraceOutput {
    /// As the trace says, and drawn from this where it does not.
    Recorded {
        /// For rows that say nothing.
        otherwise: Distribution<Tokens>,
    },
    /// Drawn.
    Drawn(Distribution<Tokens>),
}

/// Requests with lengths from distributions.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    /// Tokens of a prompt, after the prefix that it shares.
    pub input: Distribution<Tokens>,
    /// Tokens of an answer.
    pub output: Distribution<Tokens>,
    /// Prefixes that prompts share.
    pub prefixes: Option<PrefixGroups>,
    /// Conversations instead of single requests.
    pub sessions: Option<Sessions>,
}

/// Prompts begin with one of some prefixes, each as often as the others.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixGroups {
    /// How many prefixes there are.
    pub groups: NonZeroU32,
    /// Length of each.
    pub tokens: Distribution<Tokens>,
}

/// Conversations: each turn's prompt is all that was said before, and something new.
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    /// Turns of a session.
    pub turns: Distribution<Tokens>,
    /// Tokens that each turn after the first adds to the prompt.
    pub next_input: Distribution<Tokens>,
    /// From the end of an answer to the next turn.
    pub think: Distribution<Seconds>,
}

/// Requests whose client goes away.
#[derive(Clone, Debug, PartialEq)]
pub struct CancelShare {
    /// From 0 to 1.
    pub share: f64,
    /// When.
    pub after: CancelAfter,
}

/// When a client goes away.
#[derive(Clone, Debug, PartialEq)]
pub enum CancelAfter {
    /// After any number of tokens from 1 to what was asked for, each alike.
    AnyToken,
    /// After so many tokens; a request that asks for fewer is completed.
    Tokens(Distribution<Tokens>),
    /// So long after sending.
    Time(Distribution<Seconds>),
}
