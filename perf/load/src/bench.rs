//! A server that was found ready, and runs against it.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use baton_results::{Calibration, Invalid, Load, Measured, Micros, Origin, Record, Run, Slo, Trim, Validity};
use baton_workload::Plan;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::{
    Content, Limits, Live, Manner, ProbeError, Target, TlsSetupError, TokenEnds,
    clock::Stamp,
    drive::{Driven, Job, drive},
    fetch::{Fetched, fetch},
    http::{Pool, Server},
    phases, probe, record,
    schedule::most_in_flight,
};

/// Whom to put under load, and how it is spoken to.
#[derive(Clone)]
pub struct Setup {
    /// The server.
    pub target: Target,
    /// Certificates that the server's is checked against, instead of the system's.
    pub ca: Option<PathBuf>,
    /// How requests are written. Of its extras, what the server refuses is left out; an empty model: the first that the server names.
    pub manner: Manner,
    /// How requests are sent.
    pub limits: Limits,
    /// Counts tokens of events where the server does not.
    pub token_ends: Option<Arc<dyn TokenEnds>>,
    /// The server is asked afterwards where requests' time went.
    pub asks_for_phases: bool,
}

/// What a run is called, and what is asked of it.
#[derive(Clone, Debug)]
pub struct Title {
    /// What tables call it.
    pub name: String,
    /// The command line, without secrets.
    pub command: Vec<String>,
    /// The load, in words and figures.
    pub load: Load,
    /// What requests should meet.
    pub slo: Slo,
    /// What is left out at both ends.
    pub trim: Trim,
    /// At the beginning so many requests are left out, if that is more.
    pub warm_up_requests: u32,
    /// What else a reader should know.
    pub notes: BTreeMap<String, String>,
    /// The client's floor; without it the run is invalid.
    pub calibration: Option<Calibration>,
}

/// There is nothing to measure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// The server.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// This machine.
    #[error("the client could not be started: {0}")]
    Start(#[from] io::Error),
}

/// Something beside answers was asked for, and did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{target}{path}: {why}")]
pub struct GetError {
    target: String,
    path: String,
    why: String,
}

/// A server that answers, and what it was found to take.
pub struct Bench {
    setup: Setup,
    server: Arc<Server>,
    manner: Arc<Manner>,
}

/// For each request that finds out about the server, and for a model that is slow to begin.
const PATIENCE: Duration = Duration::from_secs(60);

impl Bench {
    /// Asks the server for its model, if none is named, and for two tokens. Blocks.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn open(setup: Setup) -> Result<Self, BenchError> {
        let server = Arc::new(Server::new(setup.target.clone(), setup.ca.as_deref())?);
        let pool = Arc::new(Pool::new(server.clone()));
        let mut manner = setup.manner.clone();
        runtime()?.block_on(async {
            if manner.model.is_empty() {
                manner.model = probe::model(&pool, &manner, PATIENCE).await?;
            }
            manner.extras = probe::extras(&pool, &manner, PATIENCE).await?;
            Ok::<_, ProbeError>(())
        })?;
        Ok(Self { setup, server, manner: Arc::new(manner) })
    }

    /// How requests are written.
    #[must_use]
    pub fn manner(&self) -> &Manner {
        &self.manner
    }

    /// What the server says at `path`, spoken to as in runs. Blocks.
    ///
    /// # Errors
    /// [`GetError`].
    pub fn get(&self, path: &str) -> Result<Vec<u8>, GetError> {
        let failed =
            |why: String| GetError { target: self.server.target().to_string(), path: path.to_owned(), why };
        let pool = Arc::new(Pool::new(self.server.clone()));
        let request = self.manner.get(pool.target(), path);
        let runtime = runtime().map_err(|error| failed(error.to_string()))?;
        let fetched = runtime.block_on(fetch(&pool, &request, PATIENCE));
        let Fetched { status, body } = fetched.map_err(|error| failed(error.to_string()))?;
        if status == 200 { Ok(body) } else { Err(failed(format!("it answers {status}"))) }
    }

    /// How requests are sent.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.setup.limits
    }

    /// Sends `plan`, and waits for the answers, or for `interrupt`. Blocks.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn run(
        &self,
        plan: &Arc<Plan>,
        content: &Arc<dyn Content>,
        title: Title,
        interrupt: &CancellationToken,
        live: &Live,
    ) -> Result<Measured, BenchError> {
        let job = Job {
            plan: plan.clone(),
            content: content.clone(),
            manner: self.manner.clone(),
            server: self.server.clone(),
            limits: self.setup.limits,
            keeps_output: self.setup.token_ends.is_some(),
            // Servers keep what they know of a request under its id: each run has its own.
            id: format!("baton-{:x}", Stamp::now().0),
        };
        let mut driven = drive(&job, interrupt, live)?;
        let validity = validity(&driven, &job);
        let mut notes = title.notes;
        self.note(&mut notes, plan.requests().len() - driven.ended.len());
        let mut records = self.records(&job, &mut driven);
        let intended = records.iter().map(|record| record.intended_us).collect();
        let trim = with_warm_up(title.trim, title.warm_up_requests, intended);
        if self.setup.asks_for_phases {
            let pool = Arc::new(Pool::new(self.server.clone()));
            runtime()?.block_on(phases::join(&pool, &self.manner, &mut records));
        }
        Ok(Measured {
            run: Run {
                name: title.name,
                tool: format!("baton {}", env!("CARGO_PKG_VERSION")),
                command: title.command,
                target: self.server.target().to_string(),
                endpoint: self.manner.path().to_owned(),
                model: self.manner.model.clone(),
                streaming: self.manner.is_stream,
                seed: plan.seed(),
                plan_sha256: plan.sha256().to_string(),
                started_at: driven.started_at,
                load: title.load,
                notes,
            },
            origin: Origin::Measured { client: driven.client, calibration: title.calibration },
            slo: title.slo,
            trim,
            utilisation: Vec::new(),
            validity,
            records,
        })
    }

    fn records(&self, job: &Job, driven: &mut Driven) -> Vec<Record> {
        let ends = self.setup.token_ends.as_deref();
        let ended = std::mem::take(&mut driven.ended).into_iter();
        let record = |ended: crate::call::Ended| {
            let index = ended.due.index;
            let planned = &job.plan.requests()[index as usize];
            record::record(planned, ended, driven.start, job.request_id(index), ends)
        };
        ended.map(record).collect()
    }

    /// What the reader can't see from the records.
    fn note(&self, notes: &mut BTreeMap<String, String>, not_sent: usize) {
        if not_sent > 0 {
            let text = format!(
                "{not_sent} requests of the plan were not sent: their time had not come, or the turn before them failed"
            );
            notes.insert("not sent".to_owned(), text);
        }
        let (wanted, taken) = (self.setup.manner.extras, self.manner.extras);
        let fields = [
            ("stream_options.include_usage", wanted.usage, taken.usage),
            ("stream_options.continuous_usage_stats", wanted.continuous_usage, taken.continuous_usage),
            ("ignore_eos", wanted.ignore_eos, taken.ignore_eos),
        ];
        let refused = fields.iter().filter(|(_, wanted, taken)| *wanted && !taken).map(|(name, ..)| *name);
        let refused: Vec<&str> = refused.collect();
        if !refused.is_empty() {
            notes.insert("refused by the server".to_owned(), refused.join(", "));
        }
    }
}

/// Reasons against a run that do not follow from what the client cost.
fn validity(driven: &Driven, job: &Job) -> Validity {
    let mut reasons = Vec::new();
    if driven.was_interrupted {
        reasons.push(Invalid::Other { text: "the run was interrupted".to_owned() });
    }
    if driven.held > 0 {
        let most = most_in_flight(job.plan.pacing(), job.limits.most_in_flight);
        let text = format!(
            "{} requests were sent late because {most} were in flight (--max-in-flight): the server did not keep up, or the limit is too low",
            driven.held
        );
        reasons.push(Invalid::Other { text });
    }
    Validity { reasons }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// `trim`, with so much time at the beginning that `requests` are left out, in the order in which they were to be sent. Those that were to be sent at the
/// same time stay or go together.
fn with_warm_up(trim: Trim, requests: u32, mut intended: Vec<Micros>) -> Trim {
    if requests == 0 {
        return trim;
    }
    intended.sort_unstable();
    let (Some(&first), Some(&last)) = (intended.first(), intended.last()) else { return trim };
    let begin = intended.get(requests as usize).copied().unwrap_or(Micros(last.0 + 1));
    Trim { warm_up_us: trim.warm_up_us.max(begin.since(first)), ..trim }
}

/// For [`Title::trim`].
#[must_use]
pub fn trim(warm_up: Duration, cool_down: Duration) -> Trim {
    Trim { warm_up_us: Micros::from(warm_up), cool_down_us: Micros::from(cool_down) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warm_up(requests: u32, intended: &[u64]) -> u64 {
        let intended = intended.iter().map(|&at| Micros(at)).collect();
        with_warm_up(trim(Duration::from_micros(5), Duration::ZERO), requests, intended).warm_up_us.0
    }

    #[test]
    fn the_first_requests_are_left_out_by_the_time_of_the_next() {
        let intended = [40, 10, 30, 30, 20];
        assert_eq!([0, 1, 2, 3, 4, 5].map(|requests| warm_up(requests, &intended)), [5, 10, 20, 20, 30, 31]);
        assert_eq!((warm_up(1, &[10, 12]), warm_up(3, &[])), (5, 5), "the longer of both counts");
    }
}
