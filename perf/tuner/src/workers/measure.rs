//! A profile of workers that are there: loads of every kind, and what steps, hand-overs and calls took.

use std::{collections::HashSet, io::Write as _, thread, time::Duration};

use baton_profile::{Overhead, Profile, Source, StepShape, Transfer};
use baton_results::{Document, Micros, Outcome, Phases, Slo, Sorted};
use serde::Deserialize;

use super::{
    Client, Fleet, Server, WorkersError,
    loads::{self, Room, Shown},
    steps::{Told, Worker},
};
use crate::{
    Split,
    fit::{self, Residuals, StepRecord, TransferRecord},
};

/// How thoroughly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thoroughness {
    /// Times that all loads are repeated.
    pub rounds: u16,
    /// Of what prompts are made.
    pub seed: u64,
}

/// A profile, and how far what was measured is from it.
#[derive(Clone, Debug)]
pub struct MeasuredProfile {
    /// The profile.
    pub profile: Profile,
    /// Of steps that only computed prompts.
    pub prefill: Residuals,
    /// Of steps that only generated.
    pub decode: Residuals,
    /// Of steps that did both.
    pub mixed: Option<Residuals>,
    /// Of hand-overs on links.
    pub transfer: Option<Residuals>,
}

/// Workers report this often; a little more.
const REPORTED_AFTER: Duration = Duration::from_millis(450);
/// Share of the requests that did not wait for others.
const QUICKEST: f64 = 0.1;
/// Hand-overs that are looked at: the shortest may not show a link's speed.
const LEAST_BYTES: u64 = 4_096;

/// What is gathered from one load after the other.
#[derive(Debug, Default)]
struct Gathered {
    seen: HashSet<[u64; 5]>,
    steps: Vec<StepRecord>,
    moves: Vec<TransferRecord>,
    /// ms of requests that were alone: from sent to where the prompt began to be computed, and beside that and the prompt itself.
    calls: Vec<f64>,
    requests: Vec<f64>,
    /// From the last layer's computation to a sequence that can run, ms, and bytes.
    tails: Vec<(f64, u64)>,
}

/// What of a decision is of interest.
#[derive(Debug, Deserialize)]
pub(super) struct Decision {
    outcome: Option<Moved>,
}

#[derive(Debug, Deserialize)]
struct Moved {
    queue_ms: f64,
    prefill_ms: f64,
    ttft_ms: f64,
    failed: bool,
    transfer_ms: f64,
    moved_bytes: u64,
    link_bytes_per_second: u64,
}

/// Starts a pair of workers, and an aggregated one, each by `baton up` with these options, and measures them.
///
/// # Errors
/// [`WorkersError`].
pub fn measure(words: &[String], how: &Thoroughness) -> Result<MeasuredProfile, WorkersError> {
    let mut gathered = Gathered::default();
    let pair = [words, &["--disaggregate".to_owned(), "always".to_owned()]].concat();
    let told = {
        let fleet = Fleet::up(Split { prefill: 1, decode: 1 }, &pair)?;
        let client = Client::open(&fleet.server())?;
        let room = room(&client.told)?;
        for round in seeds(how) {
            gathered.alone(&client, loads::prompts(room, round))?;
            gathered.alone(&client, loads::cached(room, round))?;
            gathered.together(&client, loads::batches(room, round))?;
        }
        client.told
    };
    // Who does both at a time.
    let fleet = Fleet::up(Split::aggregated(1), words)?;
    let client = Client::open(&fleet.server())?;
    for round in seeds(how) {
        gathered.together(&client, loads::mixed(room(&client.told)?, round))?;
    }
    drop(fleet);
    gathered.profile(&told)
}

/// Takes what the workers of a fleet have done lately, and puts no load on it.
///
/// # Errors
/// [`WorkersError`]; also when they have done too little of some kind.
pub fn observe(fleet: &Server) -> Result<MeasuredProfile, WorkersError> {
    let client = Client::open(fleet)?;
    let mut gathered = Gathered::default();
    gathered.steps.extend(client.told.workers.iter().flat_map(Worker::records));
    for Decision { outcome } in client.decisions()? {
        let Some(moved) = outcome.filter(|moved| !moved.failed && moved.prefill_ms > 0.0) else { continue };
        if moved.moved_bytes > 0 {
            gathered.calls.push(moved.queue_ms);
        }
        gathered.requests.push((moved.ttft_ms - moved.queue_ms - moved.prefill_ms).max(0.0));
        gathered.moved(&moved, &client.told);
    }
    // Most requests wait for others, and a call takes as long as where nobody did.
    let quickest = Sorted::new(std::mem::take(&mut gathered.calls)).percentile(QUICKEST).unwrap_or(0.0);
    gathered.calls.push(quickest);
    gathered.profile(&client.told)
}

fn seeds(how: &Thoroughness) -> impl Iterator<Item = u64> {
    let first = how.seed;
    (0..u64::from(how.rounds)).map(move |round| first.wrapping_add(round * 7_919))
}

fn room(told: &Told) -> Result<Room, WorkersError> {
    let worker = told.workers.first().ok_or(WorkersError::NoWorkers)?;
    Ok(Room {
        context: worker.model.max_context_tokens,
        capacity: worker.kv().capacity_tokens,
        running: worker.limits().running,
    })
}

impl Gathered {
    /// Requests that nobody disturbs: what is not steps, too.
    fn alone(&mut self, client: &Client, loads: Vec<Shown>) -> Result<(), WorkersError> {
        for load in loads {
            let document = self.run(client, load)?;
            for record in &document.measured.records {
                let Some(first) = record.chunks.first() else { continue };
                let Some(phases) = &record.phases else { continue };
                if let Some((call, request)) = around(phases, first.at, record.intended_us) {
                    self.calls.push(call);
                    self.requests.push(request);
                }
                let decision: Option<Decision> = client.decision(record);
                if let Some(moved) = decision.and_then(|decision| decision.outcome) {
                    self.moved(&moved, &client.told);
                }
            }
        }
        Ok(())
    }

    fn together(&mut self, client: &Client, loads: Vec<Shown>) -> Result<(), WorkersError> {
        loads.into_iter().try_for_each(|load| self.run(client, load).map(drop))
    }

    fn run(&mut self, client: &Client, Shown { name, workload }: Shown) -> Result<Document, WorkersError> {
        let _ = writeln!(std::io::stderr(), "{name} …");
        let document = client.run(&workload, Slo::default(), None)?;
        for record in &document.measured.records {
            if let Outcome::Failed { message, .. } = &record.outcome {
                return Err(WorkersError::Failed { load: name, message: message.clone() });
            }
        }
        thread::sleep(REPORTED_AFTER);
        for record in client.steps()?.workers.iter().flat_map(Worker::records) {
            let StepShape { prompt_tokens, pairs, sequences, context_tokens } = record.shape;
            let key =
                [prompt_tokens, pairs.to_bits(), sequences.into(), context_tokens, record.seconds.to_bits()];
            if self.seen.insert(key) {
                self.steps.push(record);
            }
        }
        Ok(document)
    }

    fn moved(&mut self, moved: &Moved, told: &Told) {
        let Some(worker) = told.workers.first().filter(|_| moved.moved_bytes >= LEAST_BYTES) else { return };
        self.tails.push((moved.transfer_ms, moved.moved_bytes));
        if moved.link_bytes_per_second > 0 {
            let block_bytes = worker.kv().bytes_per_token * f64::from(worker.kv().block_tokens);
            let blocks = (moved.moved_bytes as f64 / block_bytes).ceil() as u64;
            self.moves.push(TransferRecord {
                bytes: moved.moved_bytes,
                pieces: blocks * u64::from(worker.layers()),
                seconds: moved.moved_bytes as f64 / moved.link_bytes_per_second as f64,
            });
        }
    }

    fn profile(self, told: &Told) -> Result<MeasuredProfile, WorkersError> {
        let worker = told.workers.first().ok_or(WorkersError::NoWorkers)?;
        let times = fit::steps(&self.steps)?;
        let like = Transfer {
            latency_ms: 0.0,
            bytes_per_second: f64::INFINITY,
            per_piece_us: 0.0,
            pieces_per_block: worker.layers(),
            layer_groups: worker.layers(),
        };
        let (link, link_residuals) = match fit::transfer(&self.moves, like) {
            Ok((link, residuals)) => (link, Some(residuals)),
            // On shared memory larger moves may take no longer, as far as can be seen.
            Err(_) => (Transfer { bytes_per_second: median_speed(&self.moves), ..like }, None),
        };
        let last_group =
            |bytes: u64| bytes as f64 / f64::from(link.layer_groups) / link.bytes_per_second * 1e3;
        let waits = self.tails.iter().map(|&(ms, bytes)| (ms - last_group(bytes)).max(0.0));
        let latency_ms = median(waits.collect()) + link.latency_ms;
        let profile = Profile {
            name: worker.model.name.clone(),
            source: Source::Measured,
            prefill: times.prefill,
            decode: times.decode,
            transfer: Transfer { latency_ms, ..link },
            kv: worker.kv(),
            limits: worker.limits(),
            overhead: Overhead { request_ms: median(self.requests), call_ms: median(self.calls) },
            startup_s: told.workers.iter().map(Worker::startup_s).fold(0.0, f64::max),
        };
        Ok(MeasuredProfile {
            profile,
            prefill: times.prefill_residuals,
            decode: times.decode_residuals,
            mixed: times.mixed_residuals,
            transfer: link_residuals,
        })
    }
}

/// Time before a prompt's computation, and beside that and the computation, until the client had its first token, ms.
fn around(phases: &Phases, first: Micros, sent: Micros) -> Option<(f64, f64)> {
    let ms = |time: Micros| time.0 as f64 / 1e3;
    let (queue, prefill) = (ms(phases.queue_us?), ms(phases.prefill_us?));
    Some((queue, (ms(first) - ms(sent) - queue - prefill).max(0.0)))
}

fn median(values: Vec<f64>) -> f64 {
    Sorted::new(values).percentile(0.5).unwrap_or(0.0)
}

/// Bytes a second.
fn median_speed(moves: &[TransferRecord]) -> f64 {
    let speed = median(moves.iter().map(|moved| moved.bytes as f64 / moved.seconds).collect());
    // Where nothing was moved, nothing waits for links.
    if speed > 0.0 { speed } else { 1e12 }
}
