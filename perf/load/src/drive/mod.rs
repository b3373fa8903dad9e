//! Sends a plan.
//!
//! ```text
//!  preparer thread ── bodies, ahead of time ──► dispatcher thread ── requests that are due ──► client threads
//!        ▲                                       (Schedule; sleeps to the            (one runtime each, one task
//!        └── answers that a next turn says ────── nanosecond, no runtime) ◄── ends ── a request, own connections)
//! ```

mod dispatch;
mod preparer;
mod report;
mod threads;

use std::{
    io,
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};

use baton_results::{Client, Micros, Sorted};
use baton_workload::Plan;
use tokio_util::sync::CancellationToken;

use self::{dispatch::Dispatcher, preparer::Preparer, threads::Threads};
use crate::{
    Content, Manner,
    call::Ended,
    clock::{Stamp, thread_cpu},
    http::Server,
    live::Live,
    machine::Ticks,
};

/// How a plan is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client threads, each with a runtime of its own: the cores that the client may use.
    pub threads: usize,
    /// Requests that are due wait while so many are in flight, and the run is invalid.
    pub most_in_flight: u32,
    /// A request without a whole answer fails after this time.
    pub request_timeout: Duration,
    /// When nothing more is to be sent, answers are waited for so long; then they are unfinished.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: 1,
            most_in_flight: 8192,
            request_timeout: Duration::from_secs(600),
            drain: Duration::from_secs(60),
        }
    }
}

/// What is sent, and to whom.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) plan: Arc<Plan>,
    pub(crate) content: Arc<dyn Content>,
    pub(crate) manner: Arc<Manner>,
    pub(crate) server: Arc<Server>,
    pub(crate) limits: Limits,
    /// Outputs are kept, so that their tokens can be counted.
    pub(crate) keeps_output: bool,
    /// What the requests' ids begin with.
    pub(crate) id: String,
}

impl Job {
    /// The `x-request-id` of a request.
    pub(crate) fn request_id(&self, index: u32) -> String {
        format!("{}-{index}", self.id)
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) started_at: SystemTime,
    pub(crate) start: Stamp,
    /// Every request whose time came.
    pub(crate) ended: Vec<Ended>,
    /// Those that had to wait because too many were in flight.
    pub(crate) held: u32,
    pub(crate) was_interrupted: bool,
    pub(crate) client: Client,
}

/// What the dispatcher is told.
pub(crate) enum Event {
    /// A request's bytes; `None`: making them failed, by a mistake in this program.
    Prepared {
        index: u32,
        request: Option<Vec<u8>>,
    },
    Ended(Box<Ended>),
    Interrupted,
}

/// Sends `job`'s plan and waits for its answers, or for `interrupt`. Blocks the calling thread, which dispatches.
///
/// # Errors
/// The system gives no threads.
pub(crate) fn drive(job: &Job, interrupt: &CancellationToken, live: &Live) -> io::Result<Driven> {
    let (events, inbox) = mpsc::channel();
    let threads = Threads::start(job.limits.threads, &job.server)?;
    threads.open_ahead(job.plan.pacing().concurrency.unwrap_or(0).min(job.limits.most_in_flight));
    let preparer = Preparer::start(job.clone(), events.clone())?;
    threads.relay(interrupt.clone(), events.clone());
    let mut dispatcher = Dispatcher::new(job, &threads, &preparer, events, live);
    dispatcher.wait_until_prepared(&inbox);
    let (before, ticks) = (threads.cpu() + preparer.cpu() + thread_cpu(), Ticks::now());
    let (start, started_at) = dispatcher.run(&inbox);
    let wall = Stamp::now().since(start);
    let used = (threads.cpu() + preparer.cpu() + thread_cpu()).saturating_sub(before);
    let stolen = ticks.zip(Ticks::now()).map(|(before, after)| after.stolen_since(before));
    let (ended, held, was_interrupted) = dispatcher.finish();
    let lags = lags_us(&ended, start);
    let lag = |share| Micros(lags.percentile(share).unwrap_or_default().round() as u64);
    let client = Client {
        cores: job.limits.threads as f64,
        cpu_share: used.as_secs_f64() / wall.as_secs_f64().max(1e-9) / job.limits.threads as f64,
        send_lag_p50_us: lag(0.5),
        send_lag_p99_us: lag(0.99),
        stolen_share: stolen,
    };
    Ok(Driven { started_at, start, ended, held, was_interrupted, client })
}

/// From the intended to the actual send, in microseconds. Those that were held back waited by order, not for want of speed.
fn lags_us(ended: &[Ended], start: Stamp) -> Sorted {
    let sent = ended.iter().filter(|ended| !ended.due.was_held);
    let lag = |ended: &Ended| Some(ended.answer.sent?.since(start + ended.due.intended));
    Sorted::new(sent.filter_map(lag).map(|lag| lag.as_secs_f64() * 1e6).collect())
}
