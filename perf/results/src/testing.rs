//! Runs whose figures are known, for tests.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use crate::*;

/// What a request of a test gets: a server with TTFT 20 ms and 5 ms a token.
pub(crate) struct Answer {
    pub(crate) index: u32,
    pub(crate) intended_us: u64,
    pub(crate) sent_us: u64,
    pub(crate) ttft_us: u64,
    pub(crate) token_us: u64,
    pub(crate) tokens: u32,
    pub(crate) tokens_per_chunk: u32,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            index: 0,
            intended_us: 0,
            sent_us: 0,
            ttft_us: 20_000,
            token_us: 5_000,
            tokens: 128,
            tokens_per_chunk: 1,
        }
    }
}

/// A request that went well: the first chunk at `ttft`, each later one a token's time after it for each token since.
pub(crate) fn complete(answer: &Answer) -> Record {
    let mut chunks = Vec::new();
    let mut shown = 0;
    while shown < answer.tokens {
        let tokens = answer.tokens_per_chunk.min(answer.tokens - shown);
        shown += tokens;
        let at = answer.sent_us
            + answer.ttft_us
            + u64::from(shown - answer.tokens_per_chunk.min(answer.tokens)) * answer.token_us;
        chunks.push(Chunk { at: Micros(at), tokens });
    }
    Record {
        index: answer.index,
        session: None,
        turn: 0,
        intended_us: Micros(answer.intended_us),
        sent_us: Some(Micros(answer.sent_us)),
        end_us: chunks.last().map(|chunk| chunk.at),
        chunks,
        input: Some(Count { tokens: 100, source: CountSource::Usage }),
        cached: None,
        output: Some(Count { tokens: answer.tokens, source: CountSource::Usage }),
        chunk_tokens: CountSource::ContinuousUsage,
        outcome: Outcome::Complete { finish_reason: Some("length".into()) },
        server_id: None,
        phases: None,
    }
}

/// A calm client.
pub(crate) fn client() -> Client {
    Client {
        cores: 1.0,
        cpu_share: 0.2,
        send_lag_p50_us: Micros(40),
        send_lag_p99_us: Micros(200),
        stolen_share: Some(0.01),
    }
}

/// A run of `records` with nothing wrong about it.
pub(crate) fn measured(records: Vec<Record>) -> Measured {
    Measured {
        run: Run {
            name: "baton 1P:1D".into(),
            tool: "baton 0.1.0".into(),
            command: vec!["baton".into(), "bench".into(), "run".into()],
            target: "http://127.0.0.1:8000".into(),
            endpoint: "/v1/completions".into(),
            model: "baton-courier".into(),
            streaming: true,
            seed: 7,
            plan_sha256: "9f".repeat(32),
            started_at: UNIX_EPOCH + Duration::from_millis(1_795_237_184_250),
            load: Load::Open { arrivals: "constant".into(), requests_per_second: 10.0 },
            notes: BTreeMap::new(),
        },
        origin: Origin::Measured {
            client: client(),
            calibration: Some(Calibration {
                truth: Truth {
                    streams: 64,
                    ttft_us: Micros(50_000),
                    itl_us: Micros(10_000),
                    tokens_per_chunk: 1,
                },
                ttft_error: ClockError { p50_us: 180.0, p99_us: 900.0 },
                itl_error: ClockError { p50_us: 1.5, p99_us: 320.0 },
                client: client(),
            }),
        },
        slo: Slo::default(),
        trim: Trim::default(),
        utilisation: Vec::new(),
        validity: Validity::default(),
        records,
    }
}

/// `count` requests, one each 100 ms, each answered as [`Answer`]'s default.
pub(crate) fn steady(count: u32) -> Vec<Record> {
    let at = |index: u32| u64::from(index) * 100_000;
    (0..count)
        .map(|index| Answer { index, intended_us: at(index), sent_us: at(index), ..Answer::default() })
        .map(|answer| complete(&answer))
        .collect()
}

/// A run in which every field of the schema is there.
pub(crate) fn everything() -> Measured {
    let mut records = steady(6);
    records[0].session = Some(3);
    records[0].turn = 1;
    records[0].cached = Some(Count { tokens: 64, source: CountSource::Usage });
    records[0].server_id = Some("chatcmpl-1".into());
    records[0].phases = Some(Phases {
        queue_us: Some(Micros(900)),
        prefill_us: Some(Micros(12_000)),
        transfer_us: Some(Micros(1_500)),
        decode_wait_us: Some(Micros(700)),
        first_token_us: Some(Micros(19_000)),
        decode_us: Some(Micros(635_000)),
        prefill_worker: Some("prefill-0".into()),
        decode_worker: Some("decode-0".into()),
    });
    records[1].outcome = Outcome::Failed { status: Some(503), message: "no room".into() };
    records[2].outcome = Outcome::Failed { status: None, message: "connection refused".into() };
    records[3].outcome = Outcome::Cancelled;
    records[4].outcome = Outcome::Unfinished;
    records[4].end_us = None;
    let mut run = measured(records);
    run.slo = Slo { ttft_ms: Some(200.0), tpot_ms: Some(10.0), e2e_ms: Some(5_000.0) };
    run.trim.warm_up_us = Micros(0);
    run.run.load = Load::Closed { concurrency: 4 };
    run.run.notes.insert("cores".into(), "2".into());
    run.validity.reasons.push(Invalid::Other { text: "tried out".into() });
    run.validity.reasons.push(Invalid::SendLag { p99_us: Micros(1_900), limit_us: Micros(1_000) });
    run.validity.reasons.push(Invalid::ClientCpu { share: 0.75, limit: 0.70 });
    run.utilisation = vec![Utilisation {
        at_us: Micros(500_000),
        worker: "prefill-0".into(),
        role: Role::Prefill,
        busy: 0.4,
        running: Some(1),
        waiting: Some(0),
        kv_used: Some(0.25),
    }];
    run
}
