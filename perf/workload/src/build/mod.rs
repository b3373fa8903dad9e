//! From settings to a plan.

mod rows;
mod schedule;
mod synthetic;
#[cfg(test)]
mod tests;
mod trace;

use std::path::PathBuf;

use crate::{
    content::CountTokens,
    plan::{Cancel, Pacing, Plan, Planned, Text},
    random::{Purpose, Stream},
    trace::TraceError,
    workload::{CancelAfter, CancelShare, Load, Source, Synthetic, Workload},
};

/// More would not fit into memory beside what is measured.
pub const MAX_REQUESTS: u32 = 20_000_000;

/// Most turns of a session.
pub const MAX_TURNS: u32 = 1000;

/// Settings that make no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nothing ends the plan.
    #[error("nothing ends this load: say how many requests, or for how long")]
    Endless,
    /// Each turn's prompt lists all before it, so that plans of long sessions would not fit into memory.
    #[error("sessions could have {turns} turns: let there be at most {MAX_TURNS}, with max= if need be")]
    TooManyTurns {
        /// The most that the distribution gives.
        turns: u32,
    },
    /// The file.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A replay of times that are not there.
    #[error("{} has no times to replay: give a rate or a concurrency", .path.display())]
    NoTimes {
        /// The file, or nothing for lengths from distributions.
        path: PathBuf,
    },
    /// Nothing arrives in time.
    #[error("no request would start: the time is too short for the rate, or all of the file was left out")]
    Empty,
}

/// What a source gives.
#[derive(Default)]
struct Built {
    requests: Vec<Planned>,
    texts: Vec<Text>,
    left_out: u64,
}

impl Workload {
    /// All requests, decided by the seed; `texts` counts the tokens of texts that come from files.
    ///
    /// # Errors
    /// Settings that make no plan.
    pub fn plan(&self, texts: &dyn CountTokens) -> Result<Plan, PlanError> {
        self.check_turns()?;
        let mut built = match &self.source {
            Source::Synthetic(synthetic) => {
                let requests =
                    synthetic::requests(synthetic, schedule::slots(self, None)?, self.limit(), self.seed);
                Built { requests, ..Built::default() }
            }
            Source::Trace(trace) => trace::requests(self, trace, texts)?,
        };
        let requests = &mut built.requests;
        if requests.is_empty() {
            return Err(PlanError::Empty);
        }
        if let Some(cancel) = &self.cancel {
            requests.iter_mut().for_each(|request| request.cancel = cancel_of(cancel, request, self.seed));
        }
        Ok(Plan::new(built.requests, built.texts, self.pacing(), self.seed).with_left_out(built.left_out))
    }

    fn check_turns(&self) -> Result<(), PlanError> {
        let Source::Synthetic(Synthetic { sessions: Some(sessions), .. }) = &self.source else {
            return Ok(());
        };
        let turns = sessions.turns.max() as u32;
        if turns > MAX_TURNS { Err(PlanError::TooManyTurns { turns }) } else { Ok(()) }
    }

    fn limit(&self) -> usize {
        self.requests.map_or(MAX_REQUESTS, |requests| requests.get().min(MAX_REQUESTS)) as usize
    }

    fn pacing(&self) -> Pacing {
        let (concurrency, max_in_flight) = match self.load {
            Load::Closed { concurrency } => (Some(concurrency), None),
            Load::Open { max_in_flight, .. }
            | Load::AtOnce { max_in_flight }
            | Load::Recorded { max_in_flight, .. } => (None, max_in_flight),
        };
        Pacing {
            concurrency: concurrency.map(Into::into),
            max_in_flight: max_in_flight.map(Into::into),
            duration: self.duration,
        }
    }
}

fn cancel_of(cancel: &CancelShare, request: &Planned, seed: u64) -> Option<Cancel> {
    let stream = |purpose| Stream::new(seed, purpose, u64::from(request.index));
    if stream(Purpose::IsCancelled).unit() >= cancel.share {
        return None;
    }
    let mut stream = stream(Purpose::CancelAfter);
    match &cancel.after {
        CancelAfter::AnyToken => {
            Some(Cancel::AfterTokens(1 + stream.below(u64::from(request.output_tokens)) as u32))
        }
        CancelAfter::Tokens(tokens) => {
            let tokens = tokens.tokens(&mut stream);
            (tokens < request.output_tokens).then_some(Cancel::AfterTokens(tokens))
        }
        CancelAfter::Time(time) => Some(Cancel::AfterTime(time.time(&mut stream))),
    }
}
