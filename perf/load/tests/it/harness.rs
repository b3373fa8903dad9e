//! Plans, runs, and a server that says what it is told to.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use baton_load::{ApiShape, Bench, BenchError, Content, Extras, Limits, Live, Manner, Setup, Title, Words};
use baton_results::{Document, Load, Record, Slo};
use baton_workload::{Cancel, Fill, Pacing, Piece, Plan, Planned, Prompt, Start};
use tokio_util::sync::CancellationToken;

/// One request of eight prompt tokens.
pub(crate) fn request(index: u32, start: Start, output_tokens: u32) -> Planned {
    let prompt = Prompt { pieces: vec![Piece { id: u64::from(index), tokens: 8, fill: Fill::Made }] };
    Planned { index, start, session: None, turn: 0, prompt, output_tokens, cancel: None }
}

pub(crate) fn closed(requests: u32, concurrency: u32, output_tokens: u32) -> Plan {
    let requests = (0..requests).map(|index| request(index, Start::WhenFree, output_tokens));
    Plan::new(
        requests.collect(),
        Vec::new(),
        Pacing { concurrency: Some(concurrency), ..Pacing::default() },
        0,
    )
}

pub(crate) fn open(requests: u32, every: Duration, output_tokens: u32) -> Plan {
    let requests = (0..requests).map(|index| request(index, Start::At(every * index), output_tokens));
    Plan::new(requests.collect(), Vec::new(), Pacing::default(), 0)
}

pub(crate) fn cancelled(cancel: Cancel, output_tokens: u32) -> Plan {
    let planned = Planned { cancel: Some(cancel), ..request(0, Start::WhenFree, output_tokens) };
    Plan::new(vec![planned], Vec::new(), Pacing { concurrency: Some(1), ..Pacing::default() }, 0)
}

pub(crate) fn setup(address: SocketAddr) -> Setup {
    Setup {
        target: address.into(),
        ca: None,
        manner: Manner {
            shape: ApiShape::Chat,
            model: String::new(),
            is_stream: true,
            extras: Extras { usage: true, continuous_usage: true, ignore_eos: true },
            body: serde_json::Map::new(),
            headers: Vec::new(),
        },
        limits: Limits {
            request_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(20),
            ..Limits::default()
        },
        token_ends: None,
        asks_for_phases: true,
    }
}

pub(crate) fn title() -> Title {
    Title {
        name: "test".to_owned(),
        command: Vec::new(),
        load: Load::Closed { concurrency: 1 },
        slo: Slo::default(),
        trim: baton_load::trim(Duration::ZERO, Duration::ZERO),
        warm_up_requests: 0,
        notes: BTreeMap::new(),
        calibration: None,
    }
}

/// Sends `plan`, with words for prompts.
pub(crate) fn run(setup: Setup, plan: Plan) -> Result<Document, BenchError> {
    run_saying(setup, plan, Arc::new(Words), &CancellationToken::new())
}

pub(crate) fn run_saying(
    setup: Setup,
    plan: Plan,
    content: Arc<dyn Content>,
    interrupt: &CancellationToken,
) -> Result<Document, BenchError> {
    let bench = Bench::open(setup)?;
    let measured = bench.run(&Arc::new(plan), &content, title(), interrupt, &Live::default())?;
    Ok(Document::new(measured))
}

/// The tokens of a request's chunks.
pub(crate) fn chunk_tokens(record: &Record) -> Vec<u32> {
    record.chunks.iter().map(|chunk| chunk.tokens).collect()
}

/// A server that answers each request for tokens with the next of its answers, the last one again and again.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// How a server tells where requests' time went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tells {
    Nothing,
    OneByOne,
    Many,
}

/// What it does with a request.
#[derive(Clone)]
pub(crate) struct Script {
    /// Bytes, as they are.
    pub(crate) answer: String,
    pub(crate) then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Close,
    /// Goes on with the next request of the connection.
    Serve,
    /// Says nothing more, and does not hang up.
    Hang,
}

impl Scripted {
    pub(crate) fn start(scripts: Vec<Script>) -> Self {
        Self::telling(scripts, Tells::Nothing)
    }

    pub(crate) fn telling(scripts: Vec<Script>, tells: Tells) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, kept, noted) = (Arc::new(Mutex::new(scripts)), bodies.clone(), asked.clone());
        // Ends with the test's process: it only waits for connections.
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (scripts, bodies, asked) = (shared.clone(), kept.clone(), noted.clone());
                thread::spawn(move || {
                    serve(connection.unwrap(), &scripts, &bodies, |head, body| {
                        asked.lock().unwrap().push(head.split(' ').next().unwrap().to_owned());
                        tell(tells, head, body)
                    });
                });
            }
        });
        Self { address, bodies, asked }
    }

    /// The methods by which it was asked about decisions.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The requests for tokens so far.
    pub(crate) fn bodies(&self) -> Vec<serde_json::Value> {
        self.bodies.lock().unwrap().iter().map(|body| serde_json::from_str(body).unwrap()).collect()
    }
}

fn serve(
    mut connection: TcpStream,
    scripts: &Mutex<Vec<Script>>,
    bodies: &Mutex<Vec<String>>,
    tell: impl Fn(&str, &str) -> String,
) {
    while let Some((head, body)) = read_request(&mut connection) {
        if head.contains(" /v1/decisions") {
            connection.write_all(tell(&head, &body).as_bytes()).unwrap();
            continue;
        }
        if head.starts_with("GET") {
            let models = r#"{"data":[{"id":"m"}]}"#;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{models}", models.len());
            let not_found = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
            let answer = if head.contains("/v1/models") { answer } else { not_found };
            connection.write_all(answer.as_bytes()).unwrap();
            continue;
        }
        bodies.lock().unwrap().push(body);
        let script = {
            let mut scripts = scripts.lock().unwrap();
            if scripts.len() > 1 { scripts.remove(0) } else { scripts[0].clone() }
        };
        // A client may have hung up.
        let _ = connection.write_all(script.answer.as_bytes());
        match script.then {
            Then::Serve => {}
            Then::Close => {
                let _ = connection.shutdown(Shutdown::Write);
                return;
            }
            Then::Hang => {
                // Until the client hangs up.
                let _ = connection.read(&mut [0; 1]);
                return;
            }
        }
    }
}

/// A decision on each request that is asked about, as far as it is told.
fn tell(tells: Tells, head: &str, body: &str) -> String {
    let times = r#""queue_ms":1,"prefill_ms":2,"transfer_ms":3,"decode_wait_ms":4,"ttft_ms":5,"decode_ms":6"#;
    let decision = |id: &str| {
        format!(
            r#"{{"request_id":{id},"choices":[{{"prefill":"p","decode":"d"}}],"winner":0,"outcome":{{{times},"failed":false}}}}"#
        )
    };
    let told = match (tells, head.starts_with("POST")) {
        (Tells::Many, true) => {
            let ids = body.split_once('[').unwrap().1.split_once(']').unwrap().0;
            let all: Vec<String> = ids.split(',').map(decision).collect();
            Some(format!(r#"{{"object":"list","data":[{}]}}"#, all.join(",")))
        }
        (Tells::OneByOne, false) => {
            let id = head.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
            Some(decision(&format!("{id:?}")))
        }
        _ => None,
    };
    match told {
        Some(told) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{told}", told.len()),
        None => "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n".to_owned(),
    }
}

fn read_request(connection: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|at| at == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            let mut body = bytes.split_off(end + 4);
            let have = body.len();
            body.resize(length, 0);
            connection.read_exact(&mut body[have..]).ok()?;
            return Some((head, String::from_utf8(body).unwrap()));
        }
        let mut piece = [0; 4096];
        let read = connection.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// A stream of events as HTTP, until the connection closes.
pub(crate) fn events(data: &[&str]) -> String {
    let events: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}")
}
