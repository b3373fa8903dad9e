//! Runs in a row: one, a sweep, a search, a comparison.

mod compare;
mod describe;
mod goodput;
mod sweep;

use std::{collections::BTreeMap, io, sync::Arc};

use baton_results::{Calibration, Document, NotComparable, Slo, Trim};
use baton_workload::{Load, Plan, PlanError, RateInvalid, RateProfile, Spacing, Start, Workload};
use tokio_util::sync::CancellationToken;

pub use compare::compare;
pub use goodput::{Goodput, goodput};
pub use sweep::{Axis, sweep};

use crate::{
    Bench, BenchError, Bounds, CalibrationError, Form, Intensity, Live, NoTokenIds, Progress, Title,
    calibrate, content,
};

/// What is the same in all runs of a mode.
#[derive(Clone)]
pub struct Measure {
    /// What tables call the server.
    pub name: String,
    /// The command line, without secrets.
    pub command: Vec<String>,
    /// How prompts are sent.
    pub form: Form,
    /// What prompts are made of.
    pub made: Arc<baton_workload::Content>,
    /// What requests should meet.
    pub slo: Slo,
    /// What is left out at both ends.
    pub trim: Trim,
    /// Requests that are left out at the beginning, if that is more.
    pub warm_up_requests: u32,
    /// What else a reader should know.
    pub notes: BTreeMap<String, String>,
    /// Runs are preceded by one against the built-in null server; without it they are invalid.
    pub calibrates: bool,
    /// Shows on standard error how it goes.
    pub shows_progress: bool,
    /// Ends the run that goes on, and what would follow it.
    pub interrupt: CancellationToken,
}

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error that it holds")]
pub enum ModeError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Rate(#[from] RateInvalid),
    #[error(transparent)]
    TokenIds(#[from] NoTokenIds),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    #[error(transparent)]
    NotComparable(#[from] NotComparable),
    #[error("progress can't be shown: {0}")]
    Progress(#[source] io::Error),
}

/// Plans `workload`, calibrates the client for it, and runs it. Blocks.
///
/// # Errors
/// [`ModeError`].
pub fn run(bench: &Bench, workload: &Workload, measure: &Measure) -> Result<Document, ModeError> {
    run_at(bench, workload, measure, None, 0)
}

/// As [`run`], of a workload with this rate; each round has other words, so that none finds in caches what another has left there.
fn run_at(
    bench: &Bench,
    workload: &Workload,
    measure: &Measure,
    rate: Option<f64>,
    round: u64,
) -> Result<Document, ModeError> {
    let prepared = Prepared::new(workload, measure, rate, round)?;
    let calibration = prepared.calibrate(bench, measure)?;
    prepared.run(bench, measure, calibration)
}

/// `workload`, at `rate` requests a second that come as they would have.
fn with_rate(workload: &Workload, rate: f64) -> Result<Workload, RateInvalid> {
    let (spacing, max_in_flight) = match &workload.load {
        Load::Open { spacing, max_in_flight, .. } => (*spacing, *max_in_flight),
        Load::AtOnce { max_in_flight } | Load::Recorded { max_in_flight, .. } => {
            (Spacing::POISSON, *max_in_flight)
        }
        Load::Closed { .. } => (Spacing::POISSON, None),
    };
    let load = Load::Open { profile: RateProfile::constant(rate)?, spacing, max_in_flight };
    Ok(Workload { load, ..workload.clone() })
}

/// A workload that was planned, and what its prompts say.
struct Prepared {
    plan: Arc<Plan>,
    content: Arc<dyn crate::Content>,
    load: baton_results::Load,
}

impl Prepared {
    fn new(workload: &Workload, measure: &Measure, rate: Option<f64>, round: u64) -> Result<Self, ModeError> {
        let plan = workload.plan(&*measure.made)?;
        let content = content(measure.form, &measure.made.in_round(round))?;
        Ok(Self { load: describe::load(workload, &plan, rate), plan: Arc::new(plan), content })
    }

    fn say_other_words(&mut self, measure: &Measure, round: u64) -> Result<(), ModeError> {
        self.content = content(measure.form, &measure.made.in_round(round))?;
        Ok(())
    }

    fn calibrate(&self, bench: &Bench, measure: &Measure) -> Result<Option<Calibration>, ModeError> {
        if !measure.calibrates || measure.interrupt.is_cancelled() {
            return Ok(None);
        }
        let shape = bench.manner().shape;
        Ok(Some(calibrate(self.intensity(), shape, bench.limits(), &measure.interrupt)?))
    }

    /// How much the client will have to do.
    fn intensity(&self) -> Intensity {
        let pacing = self.plan.pacing();
        let number = self.plan.requests().len();
        if let Some(concurrency) = pacing.concurrency {
            return Intensity::Streams(concurrency);
        }
        match self.last_start().filter(|last| !last.is_zero()) {
            Some(last) => Intensity::Rate(number as f64 / last.as_secs_f64()),
            None => Intensity::Streams(
                u32::try_from(number).unwrap_or(u32::MAX).min(pacing.max_in_flight.unwrap_or(u32::MAX)),
            ),
        }
    }

    fn last_start(&self) -> Option<std::time::Duration> {
        let at = |start: &Start| match start {
            Start::At(time) => Some(*time),
            Start::WhenFree | Start::After { .. } => None,
        };
        self.plan.requests().iter().filter_map(|request| at(&request.start)).max()
    }

    fn run(
        &self,
        bench: &Bench,
        measure: &Measure,
        calibration: Option<Calibration>,
    ) -> Result<Document, ModeError> {
        let live = Arc::new(Live::default());
        let bounds = Bounds {
            requests: u32::try_from(self.plan.requests().len()).unwrap_or(u32::MAX),
            duration: self.plan.pacing().duration,
            last_start: self.last_start(),
        };
        let progress =
            measure.shows_progress.then(|| Progress::start(live.clone(), bounds, measure.name.clone()));
        let progress = progress.transpose().map_err(ModeError::Progress)?;
        let title = Title {
            name: measure.name.clone(),
            command: measure.command.clone(),
            load: self.load.clone(),
            slo: measure.slo,
            trim: measure.trim,
            warm_up_requests: measure.warm_up_requests,
            notes: measure.notes.clone(),
            calibration,
        };
        let measured = bench.run(&self.plan, &self.content, title, &measure.interrupt, &live)?;
        drop(progress);
        Ok(Document::new(measured))
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use baton_workload::{Content, Distribution, IdContent, Source, Synthetic, TextContent};

    use super::*;
    use crate::{Answers, Prompt, trim};

    #[test]
    fn rounds_send_the_same_plan_in_other_words() {
        let measure = Measure {
            name: String::new(),
            command: Vec::new(),
            form: Form::TokenIds,
            made: Arc::new(Content {
                tokenizer: None,
                text: TextContent::with_common_words(1.0, 1),
                ids: Some(IdContent::with_vocabulary(1_000, 1).unwrap()),
            }),
            slo: Slo::default(),
            trim: trim(Duration::ZERO, Duration::ZERO),
            warm_up_requests: 0,
            notes: BTreeMap::new(),
            calibrates: false,
            shows_progress: false,
            interrupt: CancellationToken::new(),
        };
        let workload = Workload {
            seed: 1,
            load: Load::Closed { concurrency: NonZeroU32::MIN },
            requests: NonZeroU32::new(3),
            duration: None,
            source: Source::Synthetic(Synthetic {
                input: Distribution::fixed(40),
                output: Distribution::fixed(2),
                prefixes: None,
                sessions: None,
            }),
            cancel: None,
        };
        let sent = |round: u64| {
            let prepared = Prepared::new(&workload, &measure, None, round).unwrap();
            let prompt = |request| prepared.content.prompt(&prepared.plan, request, &Answers::new());
            let prompts: Vec<Prompt> = prepared.plan.requests().iter().map(prompt).collect();
            (prepared.plan.sha256().to_string(), prompts)
        };
        let (first, second) = (sent(0), sent(1));
        assert_eq!(first, sent(0));
        assert_eq!(first.0, second.0);
        for (one, other) in first.1.iter().zip(&second.1) {
            let (Prompt::Tokens(one), Prompt::Tokens(other)) = (one, other) else { panic!("{one:?}") };
            assert_ne!(one[0], other[0]);
        }
    }
}
