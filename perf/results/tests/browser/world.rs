//! Made-up systems with queues, for reports that have something to show.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use baton_results::{
    Calibration, Chunk, Client, ClockError, Comparison, Count, CountSource, Document, Load, Measured, Micros,
    NotComparable, Origin, Outcome, Phases, Record, Role, Run, Slo, Trim, Truth, Utilisation, Validity,
};

/// A system: one server for prompts, and decode that slows down with the load.
#[derive(Clone, Copy)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    /// Computing a prompt, in microseconds.
    pub(crate) prefill_us: u64,
    /// A token with nobody else there, in microseconds.
    pub(crate) token_us: u64,
    /// What each request per second adds to it, in microseconds.
    pub(crate) token_us_per_rate: f64,
}

/// Numbers in [0, 1) from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// `count` requests at `rate` a second (Poisson), `tokens` tokens each, two in a chunk.
pub(crate) fn run(system: System, rate: f64, count: u32, tokens: u32, seed: u64) -> Document {
    let mut random = Random(seed);
    let mut world = World { system, rate, tokens, free_at: 0, records: Vec::new() };
    let mut at = 0.0;
    for index in 0..count {
        at += -(1.0 - random.next()).ln() / rate;
        world.request(index, (at * 1e6) as u64, &mut random);
    }
    world.document(seed)
}

/// Pairs of two systems, in turn.
pub(crate) fn compare(a: System, b: System, pairs: u64) -> Result<Comparison, NotComparable> {
    let pair = |seed: u64| (run(a, 6.0, 200, 64, seed), run(b, 6.0, 200, 64, seed));
    Comparison::new(&(1..=pairs).map(pair).collect::<Vec<_>>())
}

struct World {
    system: System,
    rate: f64,
    tokens: u32,
    free_at: u64,
    records: Vec<Record>,
}

impl World {
    fn request(&mut self, index: u32, intended: u64, random: &mut Random) {
        let sent = intended + 40 + (random.next() * 200.0) as u64;
        let prefill = (self.system.prefill_us as f64 * (0.5 + random.next())) as u64;
        let start = self.free_at.max(sent);
        self.free_at = start + prefill;
        let first = self.free_at + 2_500;
        let token = self.system.token_us as f64 + self.system.token_us_per_rate * self.rate;
        let mut at = first;
        let mut chunks = Vec::new();
        for n in 0..self.tokens / 2 {
            if n > 0 {
                at += (2.0 * token * (0.7 + 0.6 * random.next())) as u64;
            }
            chunks.push(Chunk { at: Micros(at), tokens: 2 });
        }
        let phases = Phases {
            queue_us: Some(Micros(start - sent)),
            prefill_us: Some(Micros(prefill)),
            transfer_us: Some(Micros(1_200)),
            decode_wait_us: Some(Micros(800)),
            first_token_us: Some(Micros(first - sent)),
            decode_us: Some(Micros(at - first)),
            prefill_worker: Some("prefill-0".into()),
            decode_worker: Some("decode-0".into()),
        };
        let failed = random.next() < 0.01;
        self.records.push(Record {
            index,
            session: None,
            turn: 0,
            intended_us: Micros(intended),
            sent_us: Some(Micros(sent)),
            chunks: if failed { Vec::new() } else { chunks },
            end_us: Some(Micros(if failed { sent + 30_000 } else { at + 30 })),
            input: Some(Count { tokens: 512, source: CountSource::Usage }),
            cached: None,
            output: (!failed).then_some(Count { tokens: self.tokens, source: CountSource::Usage }),
            chunk_tokens: CountSource::ContinuousUsage,
            outcome: if failed {
                Outcome::Failed { status: Some(503), message: "no room for <512> tokens & more".into() }
            } else {
                Outcome::Complete { finish_reason: Some("length".into()) }
            },
            server_id: Some(format!("chatcmpl-{index}")),
            phases: (!failed).then_some(phases),
        });
    }

    fn document(self, seed: u64) -> Document {
        let client = Client {
            cores: 1.0,
            cpu_share: 0.1 + 0.02 * self.rate,
            send_lag_p50_us: Micros(140),
            // A client that gets too slow for the highest rates.
            send_lag_p99_us: Micros(if self.rate > 11.0 { 1_400 } else { 238 }),
            stolen_share: Some(0.004),
        };
        let calibration = Calibration {
            truth: Truth {
                streams: 64,
                ttft_us: Micros(50_000),
                itl_us: Micros(10_000),
                tokens_per_chunk: 1,
            },
            ttft_error: ClockError { p50_us: 310.0, p99_us: 1_900.0 },
            itl_error: ClockError { p50_us: 4.0, p99_us: 800.0 },
            client: client.clone(),
        };
        Document::new(Measured {
            run: Run {
                name: self.system.name.into(),
                tool: "baton 0.1.0".into(),
                command: ["baton", "bench", "run", "--rate"].map(str::to_owned).into(),
                target: "http://127.0.0.1:8000".into(),
                endpoint: "/v1/completions".into(),
                model: "baton-courier".into(),
                streaming: true,
                seed,
                plan_sha256: format!("{seed:064x}"),
                started_at: UNIX_EPOCH + Duration::from_secs(1_795_237_184 + seed),
                load: Load::Open { arrivals: "poisson".into(), requests_per_second: self.rate },
                notes: BTreeMap::from([("machine".to_owned(), "2 cores, 24 GiB".to_owned())]),
            },
            origin: Origin::Measured { client, calibration: Some(calibration) },
            slo: Slo { ttft_ms: Some(400.0), tpot_ms: Some(25.0), e2e_ms: None },
            trim: Trim { warm_up_us: Micros(2_000_000), cool_down_us: Micros(2_000_000) },
            utilisation: self.utilisation(),
            validity: Validity::default(),
            records: self.records,
        })
    }

    fn utilisation(&self) -> Vec<Utilisation> {
        let seconds = self.records.last().map_or(0, |record| record.intended_us.0 / 1_000_000);
        let sample = |second: u64, worker: &str, role: Role, busy: f64| Utilisation {
            at_us: Micros(second * 1_000_000),
            worker: worker.into(),
            role,
            busy: busy.min(1.0),
            running: None,
            waiting: None,
            kv_used: None,
        };
        let arrivals = |second: u64| {
            self.records.iter().filter(|record| record.intended_us.0 / 1_000_000 == second).count() as f64
        };
        let prefill = |second: u64| arrivals(second) * self.system.prefill_us as f64 / 1e6;
        (0..seconds)
            .flat_map(|second| {
                [
                    sample(second, "prefill-0", Role::Prefill, prefill(second)),
                    sample(second, "decode-0", Role::Decode, 0.2 + arrivals(second) * 0.05),
                ]
            })
            .collect()
    }
}

/// A sweep of two systems, of which each is better somewhere, and their comparison.
pub(crate) fn sweep() -> (Vec<Document>, Result<Comparison, NotComparable>) {
    let aggregated = System {
        name: "2 workers, aggregated",
        prefill_us: 60_000,
        token_us: 6_000,
        token_us_per_rate: 1_500.0,
    };
    let apart = System { name: "1P:1D", prefill_us: 75_000, token_us: 7_500, token_us_per_rate: 300.0 };
    let rates = [2.0, 4.0, 6.0, 8.0, 10.0, 12.0];
    let runs = [aggregated, apart]
        .into_iter()
        .flat_map(|system| rates.into_iter().map(move |rate| run(system, rate, (rate * 40.0) as u32, 64, 7)));
    (runs.collect(), compare(aggregated, apart, 8))
}
