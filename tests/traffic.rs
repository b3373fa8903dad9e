//! What came to a scheduler, as a trace: replayed against the same server it is the same traffic again, and a tuner takes it.

use std::fs;

use serde_json::Value;

use crate::harness::{
    ANY, Ask, Client, Metrics, ModelFolder, Process, Shape, eventually, prompt_of, start, words, worker_args,
};

/// A worker to be simulated.
const WORKER: [&str; 4] = ["--hardware", "p5", "--served-model", "llama-3.1-8b"];

/// A row: tokens of the prompt's pieces, by name, and of the answer.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    at_ms: f64,
    pieces: Vec<(u64, u64)>,
    output_tokens: u64,
}

fn traffic(client: &Client) -> Vec<Row> {
    let reply = client.get("/v1/traffic?seconds=600");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let rows: Vec<Row> = reply.body.lines().map(row).collect();
    assert_eq!(reply.headers["x-baton-traffic-requests"], rows.len().to_string());
    let span: f64 = reply.headers["x-baton-traffic-seconds"].parse().expect("seconds");
    assert!(span > 0.0 && span < 600.0, "since its start: {span}");
    rows
}

fn row(line: &str) -> Row {
    let row: Value = serde_json::from_str(line).expect("JSON");
    let number = |value: &Value| value.as_u64().expect("a whole number");
    let pieces = row["pieces"].as_array().expect("pieces");
    Row {
        at_ms: row["arrival_ms"].as_f64().expect("a time"),
        pieces: pieces.iter().map(|piece| (number(&piece[0]), number(&piece[1]))).collect(),
        output_tokens: number(&row["output_tokens"]),
    }
}

/// Of each row: its prompt's tokens, those that it shares with each row before it, and its answer's.
fn shape(rows: &[Row]) -> Vec<(u64, Vec<u64>, u64)> {
    let tokens = |pieces: &[(u64, u64)]| pieces.iter().map(|piece| piece.1).sum::<u64>();
    let shared = |a: &Row, b: &Row| {
        let same = a.pieces.iter().zip(&b.pieces).take_while(|(a, b)| a == b).count();
        tokens(&a.pieces[..same])
    };
    rows.iter()
        .enumerate()
        .map(|(place, row)| {
            (
                tokens(&row.pieces),
                rows[..place].iter().map(|before| shared(row, before)).collect(),
                row.output_tokens,
            )
        })
        .collect()
}

fn baton(args: &[&str]) -> String {
    let finished = Process::run(&words(args));
    assert!(finished.status.success(), "baton {args:?}: {}{}", finished.stdout, finished.stderr);
    finished.stdout
}

/// What `baton tune simulate` says that it can't do.
fn refused(args: &[&str]) -> String {
    let finished = Process::run(&words(&[&["tune", "simulate"], &WORKER[..], args].concat()));
    assert!(!finished.status.success(), "{}", finished.stdout);
    finished.stderr
}

#[test]
fn what_came_can_be_replayed_and_simulated() {
    let model = ModelFolder::made_up(Shape::TINY);
    let line =
        ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY, "--aggregated"];
    let (_scheduler, at) = start(&words(&line));
    let client = Client::new(format!("http://{}", at("http")));
    let early = client.post("/v1/completions", Ask::new(&prompt_of(30, 9), 5).body());
    assert_eq!(early.status, 503, "nobody is there yet: {}", early.body);
    let (_sidecar, at_sidecar) =
        start(&words(&["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &at("registry")]));
    let (_decode, _) = start(&worker_args("decode-worker", "decode-0", &model, &at_sidecar("grpc")));
    eventually("readiness", || match client.get("/ready") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });

    let conversation = prompt_of(150, 1);
    Ask::new(&conversation[..100], 6).answer(&client);
    Ask::new(&conversation, 7).answer(&client);
    let twice = Ask::new(&prompt_of(70, 2), 4).with("n", 2);
    client.post("/v1/completions", twice.body()).ok();
    let salted = Ask::new(&conversation, 3).with("cache_salt", "others");
    client.post("/v1/completions", salted.body()).ok();
    let rows = traffic(&client);
    assert_eq!(rows[0].output_tokens, 5, "refused, and kept with what it was allowed");
    let expected = [
        (30, vec![], 5),
        (100, vec![0], 6),
        (150, vec![0, 64], 7),
        (70, vec![0, 0, 0], 4),
        (70, vec![0, 0, 0, 64], 4),
        (150, vec![0; 5], 3),
    ];
    assert_eq!(shape(&rows), expected);
    assert!(rows[0].at_ms == 0.0 && rows.is_sorted_by(|a, b| a.at_ms <= b.at_ms), "{rows:?}");

    // The same again, by the trace, one after the other.
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("traffic.jsonl").display().to_string();
    fs::write(&trace, client.get("/v1/traffic").body).expect("a file");
    let prompts = ["--endpoint", "completions", "--token-ids", "--tokenizer", &model.arg()];
    let how = ["--concurrency", "1", "--no-calibration", "--quiet"];
    let server = ["--url", client.base(), "--trace", &trace];
    let table = baton(&[&["bench", "replay"], &server[..], &prompts, &how].concat());
    assert!(table.contains("TTFT"), "{table}");
    let again = traffic(&client);
    let replayed = &again[again.len() - rows.len()..];
    assert_eq!(shape(replayed), expected, "with the same beginnings shared");

    let simulated = |from: &[&str]| -> Value {
        let told = baton(&[&["tune", "simulate", "--json"], &WORKER[..], from].concat());
        serde_json::from_str(&told).expect("JSON")
    };
    assert_eq!(simulated(&["--trace", &trace])["requests"], rows.len());
    assert_eq!(simulated(&["--live", client.base()])["requests"], again.len());
    assert_eq!(simulated(&["--live", client.base(), "-n", "3"])["requests"], 3);
    let page =
        baton(&[&["tune", "recommend", "--samples", "1", "--live", client.base()], &WORKER[..]].concat());
    assert!(page.starts_with(&format!("{} requests of the last", again.len())), "{page}");

    let counted = Metrics::parse(&client.get("/metrics").body);
    assert_eq!(counted.get("baton_router_traffic_requests", &[]), again.len() as f64);
    assert_eq!(client.get("/v1/traffic?seconds=x").status, 400);
}

#[test]
fn a_scheduler_keeps_no_record_if_told_so() {
    let model = ModelFolder::made_up(Shape::TINY);
    let line = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
    let (_scheduler, at) = start(&words(&[&line[..], &["--traffic-mib", "0"]].concat()));
    let base = format!("http://{}", at("http"));
    let reply = Client::new(base.as_str()).get("/v1/traffic");
    assert_eq!(reply.status, 404);
    assert!(reply.body.contains("--traffic-mib"), "{}", reply.body);
    assert!(refused(&["--live", &base]).contains("--traffic-mib"));
}

#[test]
fn a_tuner_says_why_there_is_no_traffic() {
    let model = ModelFolder::made_up(Shape::TINY);
    let line = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
    let (_scheduler, at) = start(&words(&[&line[..], &["--admin-listen", ANY]].concat()));
    let (front, admin) = (format!("http://{}", at("http")), format!("http://{}", at("admin")));
    for (args, part) in [
        (&["--live", &front][..], "no request has come to"),
        (&["--live", &admin], "only Baton's schedulers do"),
        (&["--live", "http://127.0.0.1:9"], "no scheduler answers at http://127.0.0.1:9"),
        (&["--live", "127.0.0.1:8000"], "use http://HOST:PORT"),
        (&["--live", &front, "--trace", "x.jsonl"], "cannot be used with"),
        (&["--live", &front, "--input-tokens", "5"], "cannot be used with"),
        (&["--live", &front, "--tls-ca", "/nowhere/ca.crt"], "--tls-ca /nowhere/ca.crt"),
        (&["--live-seconds", "5"], "--live"),
        (&["--token-scale", "0.5"], "--trace"),
    ] {
        let told = refused(args);
        assert!(told.contains(part), "{args:?}: {told}");
    }
}
