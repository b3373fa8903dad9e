//! Where requests' time went inside a Baton server: its decisions, each joined to what then happened.

use std::{collections::HashMap, sync::Arc, time::Duration};

use baton_results::{Micros, Outcome, Phases, Record};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;

use crate::{Manner, fetch::fetch, http::Pool};

/// As `/v1/decisions` tells it (`Record` of baton-policy), as far as it is of interest.
#[derive(Debug, Deserialize)]
struct Decision {
    request_id: String,
    choices: Vec<Choice>,
    winner: usize,
    outcome: Option<Told>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    prefill: Option<String>,
    decode: String,
}

/// What happened, in milliseconds.
#[derive(Debug, Deserialize)]
struct Told {
    queue_ms: f64,
    prefill_ms: f64,
    transfer_ms: f64,
    /// Of servers that measure it.
    decode_wait_ms: Option<f64>,
    ttft_ms: f64,
    decode_ms: f64,
    failed: bool,
}

#[derive(Debug, Deserialize)]
struct Decisions {
    data: Vec<Decision>,
}

/// Asked about in one call, where the server has one for many.
const MANY: usize = 500;
/// Asked about at the same time, one by one.
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

/// Adds what the server tells about each complete request. One that knows nothing of the first is not asked about the others.
pub(crate) async fn join(pool: &Arc<Pool>, manner: &Manner, records: &mut [Record]) {
    let complete = records.iter_mut().filter(|record| matches!(record.outcome, Outcome::Complete { .. }));
    let mut complete: Vec<&mut Record> = complete.filter(|record| record.server_id.is_some()).collect();
    let mut by_many = complete.chunks_mut(MANY);
    let Some(first) = by_many.next() else { return };
    match ask_about_many(pool, manner, first).await {
        None => ask_one_by_one(pool, manner, complete).await,
        Some(0) => {}
        Some(_) => {
            for others in by_many {
                ask_about_many(pool, manner, others).await;
            }
        }
    }
}

/// How many of them the server knows; `None`: it has no such call.
async fn ask_about_many(pool: &Arc<Pool>, manner: &Manner, records: &mut [&mut Record]) -> Option<usize> {
    let ids: Vec<&str> = records.iter().filter_map(|record| record.server_id.as_deref()).collect();
    let request = manner.post(pool.target(), "/v1/decisions", &json!({ "ids": ids }));
    let fetched = fetch(pool, &request, PATIENCE).await.ok().filter(|fetched| fetched.status == 200)?;
    let Decisions { data } = serde_json::from_slice(&fetched.body).ok()?;
    let known = data.len();
    let mut told: HashMap<String, Phases> = data
        .into_iter()
        .filter_map(|mut decision| {
            let id = std::mem::take(&mut decision.request_id);
            Some((id, phases(decision)?))
        })
        .collect();
    for record in records {
        record.phases = record.server_id.as_ref().and_then(|id| told.remove(id));
    }
    Some(known)
}

async fn ask_one_by_one(pool: &Arc<Pool>, manner: &Manner, records: Vec<&mut Record>) {
    let mut records = records.into_iter();
    let Some(first) = records.next() else { return };
    first.phases = ask(pool, manner, first.server_id.as_deref()).await;
    if first.phases.is_none() {
        return;
    }
    let each = records.map(|record| async move {
        record.phases = ask(pool, manner, record.server_id.as_deref()).await;
    });
    stream::iter(each).buffer_unordered(AT_ONCE).for_each(async |()| {}).await;
}

async fn ask(pool: &Arc<Pool>, manner: &Manner, id: Option<&str>) -> Option<Phases> {
    let request = manner.get(pool.target(), &format!("/v1/decisions/{}", id?));
    let fetched = fetch(pool, &request, PATIENCE).await.ok().filter(|fetched| fetched.status == 200)?;
    phases(serde_json::from_slice(&fetched.body).ok()?)
}

fn phases(mut decision: Decision) -> Option<Phases> {
    // What was served otherwise than decided has the times of something else.
    let told = decision.outcome.filter(|told| !told.failed)?;
    let winner =
        (decision.winner < decision.choices.len()).then(|| decision.choices.swap_remove(decision.winner))?;
    let time = |ms: f64| Some(Micros(ms.mul_add(1e3, 0.5).max(0.0) as u64));
    Some(Phases {
        queue_us: time(told.queue_ms),
        prefill_us: time(told.prefill_ms),
        transfer_us: time(told.transfer_ms),
        decode_wait_us: told.decode_wait_ms.and_then(time),
        first_token_us: time(told.ttft_ms),
        decode_us: time(told.decode_ms),
        prefill_worker: winner.prefill.or_else(|| Some(winner.decode.clone())),
        decode_worker: Some(winner.decode),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECISION: &str = r#"{"request_id":"r","at":5.0,"choices":[{"prefill":"p-1","decode":"d-0","terms":{}},
        {"prefill":null,"decode":"d-1"}],"winner":WINNER,"outcome":{"queue_ms":2.023,"prefill_ms":1.5,"transfer_ms":0.016,"decode_wait_ms":0.07,
        "ttft_ms":6.213,"decode_ms":5.561,"output_tokens":3,"cached_tokens":0,"failed":FAILED}}"#;

    fn of(decision: &str) -> Option<Phases> {
        phases(serde_json::from_str(decision).unwrap())
    }

    fn told(winner: &str, failed: &str) -> Option<Phases> {
        of(&DECISION.replace("WINNER", winner).replace("FAILED", failed))
    }

    #[test]
    fn a_decision_tells_where_the_time_went() {
        let expected = Phases {
            queue_us: Some(Micros(2023)),
            prefill_us: Some(Micros(1500)),
            transfer_us: Some(Micros(16)),
            decode_wait_us: Some(Micros(70)),
            first_token_us: Some(Micros(6213)),
            decode_us: Some(Micros(5561)),
            prefill_worker: Some("p-1".to_owned()),
            decode_worker: Some("d-0".to_owned()),
        };
        assert_eq!(told("0", "false"), Some(expected.clone()));
        let old = DECISION
            .replace(r#""decode_wait_ms":0.07,"#, "")
            .replace("WINNER", "0")
            .replace("FAILED", "false");
        assert_eq!(of(&old).unwrap(), Phases { decode_wait_us: None, ..expected });
        assert_eq!(told("1", "false").unwrap().prefill_worker.as_deref(), Some("d-1"));
    }

    #[test]
    fn what_went_otherwise_or_is_not_over_is_left_out() {
        assert_eq!(told("0", "true"), None);
        assert_eq!(told("7", "false"), None);
        assert_eq!(of(r#"{"request_id":"r","choices":[],"winner":0,"outcome":null}"#), None);
    }
}
