//! Requests one by one, simulated and live: where the two part.

use baton_results::{Document, Phases, Record};
use baton_simulator::Served;
use serde::Serialize;

/// A request on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request {
    /// Its place in the run.
    pub index: usize,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens of its answer.
    pub output_tokens: u32,
    /// By the simulator, whose workers are numbered.
    pub simulated: Times,
    /// By real workers.
    pub live: Times,
}

/// How one went, ms; what did not happen is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// From the start of the run until it was to be sent.
    pub sent_ms: f64,
    /// From then to its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// To its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<f64>,
    /// Until its prompt began to be computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// Computing the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_ms: Option<f64>,
    /// From its first token until its blocks had arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer_ms: Option<f64>,
    /// From then until a step for it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_wait_ms: Option<f64>,
    /// Who computed its prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_worker: Option<String>,
    /// Who generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_worker: Option<String>,
}

/// All of a run.
pub(super) fn each(simulated: &[Served], document: &Document) -> Vec<Request> {
    // The simulated run comes after others.
    let begins = simulated.iter().map(|served| served.sent_ms).fold(f64::INFINITY, f64::min);
    let first = document.measured.records.iter().map(|record| record.intended_us).min();
    let records = document.measured.records.iter();
    records
        .filter_map(|record| {
            let index = record.index as usize;
            let served = simulated.get(index)?;
            let (prompt_tokens, output_tokens) = served.tokens;
            let simulated = simulated_times(served, begins);
            Some(Request {
                index,
                prompt_tokens,
                output_tokens,
                simulated,
                live: live_times(record, first?.millis()),
            })
        })
        .collect()
}

fn simulated_times(served: &Served, begins: f64) -> Times {
    let name = |worker: usize| format!("worker-{worker}");
    Times {
        sent_ms: served.sent_ms - begins,
        ttft_ms: served.ttft_ms,
        total_ms: Some(served.total_ms),
        queue_ms: served.queue_ms,
        prefill_ms: served.prefill_ms,
        transfer_ms: served.transfer_ms,
        decode_wait_ms: served.decode_wait_ms,
        prefill_worker: served.prefill_worker.or(served.decode_worker).map(name),
        decode_worker: served.decode_worker.map(name),
    }
}

fn live_times(record: &Record, begins: f64) -> Times {
    let sent = record.intended_us.millis();
    let phases = record.phases.clone();
    let ms = |of: fn(&Phases) -> Option<baton_results::Micros>| Some(of(phases.as_ref()?)?.millis());
    Times {
        sent_ms: sent - begins,
        ttft_ms: record.chunks.first().map(|chunk| chunk.at.millis() - sent),
        total_ms: record.end_us.map(|end| end.millis() - sent),
        queue_ms: ms(|phases| phases.queue_us),
        prefill_ms: ms(|phases| phases.prefill_us),
        transfer_ms: ms(|phases| phases.transfer_us),
        decode_wait_ms: ms(|phases| phases.decode_wait_us),
        prefill_worker: phases.as_ref().and_then(|phases| phases.prefill_worker.clone()),
        decode_worker: phases.as_ref().and_then(|phases| phases.decode_worker.clone()),
    }
}
