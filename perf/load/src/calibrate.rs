//! How far the client is off on this machine, now, under as much load as the run will have.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use baton_results::{Calibration, ClockError, Sorted};
use baton_workload::{Fill, Pacing, Piece, Plan, Planned, Start};
use serde_json::Map;
use tokio_util::sync::CancellationToken;

use crate::{
    ApiShape, Extras, Limits, Live, Manner, Words,
    call::Ended,
    drive::{Job, drive},
    http::{Server, TlsSetupError},
    null::{NullServer, Sent, Truth},
};

/// The load of a calibration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Intensity {
    /// So many streams at once.
    Streams(u32),
    /// So many requests a second.
    Rate(f64),
}

/// A calibration that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The null server or the client's threads could not be started.
    #[error("the client can't be calibrated: {0}")]
    Start(#[from] io::Error),
    /// It is always spoken to without TLS, so this does not happen.
    #[error("the client can't be calibrated: {0}")]
    Tls(#[from] TlsSetupError),
    /// Not even the null server was heard.
    #[error("the client can't be calibrated: no request of it was answered ({0})")]
    NoAnswer(String),
}

/// Streams of a calibration; a run of more is calibrated with so many.
const MOST_STREAMS: u32 = 1024;
/// How long requests are begun.
const LENGTH: Duration = Duration::from_secs(2);

/// Runs the client against a null server in a thread of this process for about three seconds.
///
/// # Errors
/// [`CalibrationError`].
pub fn calibrate(
    intensity: Intensity,
    shape: ApiShape,
    limits: Limits,
    interrupt: &CancellationToken,
) -> Result<Calibration, CalibrationError> {
    let truth = Truth::default();
    let server = NullServer::on_loopback(truth.clone())?;
    let plan = plan(intensity, &truth);
    let streams = streams(intensity, &truth);
    let null = Server::new(server.address().into(), None)?;
    let job = Job {
        plan: Arc::new(plan),
        content: Arc::new(Words),
        manner: Arc::new(Manner {
            shape,
            model: truth.model.clone(),
            is_stream: true,
            extras: Extras::LADDER[0],
            body: Map::new(),
            headers: Vec::new(),
        }),
        server: Arc::new(null),
        limits: Limits { drain: Duration::from_secs(10), ..limits },
        keeps_output: false,
        id: "calibration".to_owned(),
    };
    let driven = drive(&job, interrupt, &Live::default())?;
    let errors = Errors::of(&job, &driven.ended, &server.take_sent());
    let why = || driven.ended.first().map_or("none was sent".to_owned(), |ended| format!("{:?}", ended.how));
    let (ttft_error, itl_error) = summary(errors.ttft_us)
        .zip(summary(errors.gaps_us))
        .ok_or_else(|| CalibrationError::NoAnswer(why()))?;
    let truth = baton_results::Truth {
        streams,
        ttft_us: truth.ttft.into(),
        itl_us: truth.itl.into(),
        tokens_per_chunk: truth.tokens_per_event,
    };
    Ok(Calibration { truth, ttft_error, itl_error, client: driven.client })
}

fn streams(intensity: Intensity, truth: &Truth) -> u32 {
    let streams = match intensity {
        Intensity::Streams(streams) => streams,
        Intensity::Rate(rate) => {
            let each = truth.ttft + truth.itl * (truth.default_tokens - 1);
            (rate * each.as_secs_f64()).ceil() as u32
        }
    };
    streams.clamp(1, MOST_STREAMS)
}

fn plan(intensity: Intensity, truth: &Truth) -> Plan {
    let streams = streams(intensity, truth);
    let (number, pacing): (u32, _) = match intensity {
        // Twice as many as there are places: the second ones begin when answers end, as in the run.
        Intensity::Streams(_) => (streams * 2, Pacing { concurrency: Some(streams), ..Pacing::default() }),
        Intensity::Rate(rate) => {
            let most = f64::from(MOST_STREAMS * 2);
            ((rate * LENGTH.as_secs_f64()).ceil().clamp(8.0, most) as u32, Pacing::default())
        }
    };
    let request = |index: u32| Planned {
        index,
        start: match intensity {
            Intensity::Streams(_) => Start::WhenFree,
            Intensity::Rate(_) => Start::At(LENGTH.mul_f64(f64::from(index) / f64::from(number))),
        },
        session: None,
        turn: 0,
        prompt: baton_workload::Prompt { pieces: vec![Piece { id: 0, tokens: 64, fill: Fill::Made }] },
        output_tokens: truth.default_tokens,
        cancel: None,
    };
    Plan::new((0..number).map(request).collect(), Vec::new(), pacing, 0)
}

/// Measured less true, in microseconds.
#[derive(Debug, Default)]
struct Errors {
    ttft_us: Vec<f64>,
    gaps_us: Vec<f64>,
}

impl Errors {
    /// Lays what the client saw beside what the server did, by the same clock: its own lateness is not the client's error.
    fn of(job: &Job, ended: &[Ended], sent: &[Sent]) -> Self {
        let sent: HashMap<&str, &Sent> = sent.iter().map(|sent| (sent.request_id.as_str(), sent)).collect();
        let mut errors = Self::default();
        for ended in ended {
            let Some(sent) = sent.get(job.request_id(ended.due.index).as_str()) else { continue };
            errors.add(ended, sent);
        }
        errors
    }

    fn add(&mut self, ended: &Ended, sent: &Sent) {
        let (seen, truth) = (&ended.answer.pieces, &sent.events);
        if let (Some(begun), Some(first), Some((true_first, _))) =
            (ended.answer.sent, seen.first(), truth.first())
        {
            self.ttft_us.push(micros(first.at.0, begun.0) - micros(*true_first, sent.arrived_ns));
        }
        for (seen, truth) in seen.windows(2).zip(truth.windows(2)) {
            self.gaps_us.push(micros(seen[1].at.0, seen[0].at.0) - micros(truth[1].0, truth[0].0));
        }
    }
}

fn micros(later_ns: u64, earlier_ns: u64) -> f64 {
    later_ns.saturating_sub(earlier_ns) as f64 / 1e3
}

fn summary(errors: Vec<f64>) -> Option<ClockError> {
    let sorted = Sorted::new(errors);
    Some(ClockError { p50_us: sorted.percentile(0.5)?, p99_us: sorted.percentile(0.99)? })
}
