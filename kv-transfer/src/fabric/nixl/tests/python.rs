//! Against the Python package's own agent: it writes into a pool of ours, and we into its memory and out of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use prost::Message;
use serde_json::{Value, json};

use super::{PATIENCE, POOL_BYTES, bytes, is_skipped, open, pattern, poll};
use crate::fabric::nixl::notification;
use crate::fabric::nixl::offer::OfferWire;
use crate::fabric::{Event, Fabric, Offer, Read, Write};
use crate::plan::Step;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/nixl_agent.py");

struct PythonAgent {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Value>,
    name: String,
    metadata: Vec<u8>,
    base: u64,
    bytes: u64,
}

impl PythonAgent {
    fn start() -> Self {
        let python = std::env::var_os("BATON_TEST_PYTHON");
        let python = python.expect(
            "BATON_TEST_PYTHON names a Python with nixl-cu13 and numpy, which ./dev test installs (BATON_TEST_SKIP_NIXL=1 skips)",
        );
        let mut child =
            Command::new(python).arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(json) = line.strip_prefix('@') {
                    let _ = sender.send(serde_json::from_str(json).unwrap());
                }
            }
        });
        let hello: Value = answers.recv_timeout(PATIENCE).expect("the Python agent starts");
        Self {
            child,
            orders,
            answers,
            name: hello["name"].as_str().unwrap().to_owned(),
            metadata: from_hex(hello["metadata"].as_str().unwrap()),
            base: hello["base"].as_u64().unwrap(),
            bytes: hello["bytes"].as_u64().unwrap(),
        }
    }

    fn tell(&mut self, order: &Value) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn ask(&mut self, order: &Value) -> Value {
        self.tell(order);
        self.answers.recv_timeout(PATIENCE).expect("an answer")
    }

    /// What it filled its memory with.
    fn content(at: u64, len: u64) -> Vec<u8> {
        (at..at + len).map(|i| (i * 7 % 251) as u8).collect()
    }
}

impl Drop for PythonAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn a_python_agent_writes_into_our_pool_and_is_heard() {
    const IMMEDIATES: [u32; 3] = [1, 0xdead_beef, u32::MAX];
    if is_skipped() {
        return;
    }
    let (mut fabric, pool) = open();
    let mut python = PythonAgent::start();
    let (peer, offer) = fabric.accept(python.name.as_bytes()).unwrap();
    let offer = OfferWire::decode(offer.bytes.as_slice()).unwrap();
    let mut message = Vec::new();
    notification::encode(&IMMEDIATES, &mut message);
    let ranges = [(0u64, 40_000u64, 10_000u64), (20_000, 3, 1), (30_000, 100_000, 70_001)];
    let order = |notification: &[u8]| {
        let addressed = ranges.map(|(from, to, len)| (from, offer.base + to, len));
        let (metadata, notification) = (hex(&offer.metadata), hex(notification));
        json!({ "do": "write", "metadata": metadata, "ranges": addressed, "notification": notification })
    };
    python.tell(&order(&message));
    let events = poll(&mut [&mut fabric], |events| events[0].len() >= IMMEDIATES.len());
    assert_eq!(events[0], IMMEDIATES.map(|immediate| Event::Landed { from: Some(peer), immediate }));
    for (from, to, len) in ranges {
        assert_eq!(bytes(&pool, to, len), PythonAgent::content(from, len), "{from} {to} {len}");
    }
    assert_eq!(python.answers.recv_timeout(PATIENCE).unwrap()["state"], "DONE");

    // A notification that is not ours ends the hearing, of the good one after it too.
    python.tell(&order(b"what is this?"));
    let events = poll(&mut [&mut fabric], |events| !events[0].is_empty());
    assert!(matches!(&events[0][..], [Event::Fault { peer: faulty, .. }] if *faulty == peer), "{events:?}");
    assert_eq!(python.answers.recv_timeout(PATIENCE).unwrap()["state"], "DONE");
    python.tell(&order(&message));
    let (mut events, started) = (Vec::new(), Instant::now());
    let answer = loop {
        fabric.poll(&mut events).unwrap();
        if let Ok(answer) = python.answers.try_recv() {
            break answer;
        }
        assert!(started.elapsed() < PATIENCE);
    };
    fabric.poll(&mut events).unwrap();
    assert_eq!((answer["state"].as_str(), events), (Some("DONE"), vec![]));
}

#[test]
fn we_write_and_read_a_python_agents_memory() {
    if is_skipped() {
        return;
    }
    let (mut fabric, pool) = open();
    let mut python = PythonAgent::start();
    let wire = OfferWire {
        agent: python.name.clone().into_bytes(),
        metadata: python.metadata.clone(),
        base: python.base,
    };
    let offer = Offer { bytes: wire.encode_to_vec(), descriptors: Vec::new() };
    assert!(python.bytes >= POOL_BYTES);
    let peer = fabric.connect(offer, POOL_BYTES).unwrap();
    let read = Read { peer, source: 1000, destination: 500_000, len: 60_001, context: 9 };
    assert!(fabric.post_read(&read).unwrap());
    fabric.flush();
    let events = poll(&mut [&mut fabric], |events| !events[0].is_empty());
    assert_eq!(events[0], [Event::Done(9)]);
    assert_eq!(bytes(&pool, 500_000, 60_001), PythonAgent::content(1000, 60_001));

    for (context, at, len) in [(0, 7, 50_000), (1, 200_000, 1), (2, 300_000, 4096)] {
        pool.copy_in(at as usize, &pattern(context, len));
        let (immediate, context) = (77 + context as u32, context as u32);
        let write = Write {
            peer,
            source: at,
            destination: at + 11,
            len,
            immediate,
            context,
            inner: Step::ONE,
            outer: Step::ONE,
        };
        assert!(fabric.post_write(&write).unwrap());
    }
    fabric.flush();
    let events = poll(&mut [&mut fabric], |events| events[0].len() >= 3);
    assert_eq!(events[0], [Event::Done(0), Event::Done(1), Event::Done(2)]);
    for (seed, at, len) in [(0, 7, 50_000), (1, 200_000, 1), (2, 300_000, 4096)] {
        let peeked = python.ask(&json!({ "do": "peek", "at": at + 11, "len": len }));
        assert_eq!(from_hex(peeked["bytes"].as_str().unwrap()), pattern(seed, len));
    }
    let mut message = Vec::new();
    notification::encode(&[77, 78, 79], &mut message);
    let sender = String::from_utf8(fabric.address()).unwrap();
    let started = Instant::now();
    // Requests that are done have their notification on the way.
    let heard = loop {
        let heard = python.ask(&json!({ "do": "heard" }));
        if heard["heard"] != json!([]) || started.elapsed() > PATIENCE {
            break heard;
        }
        fabric.poll(&mut Vec::new()).unwrap();
    };
    assert_eq!(heard["heard"], json!([[sender, hex(&message)]]));
}
