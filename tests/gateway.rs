//! Behind a gateway that chooses the workers itself: a client's request comes to the sidecar's own HTTP front, and a header says
//! where its prompt is to be computed.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    ANY, Answer, Ask, Client, Metrics, ModelFolder, Process, Sent, Shape, Worker, eventually, prompt_of,
    start, words, worker_args,
};

const HEADER: &str = "x-prefiller-host-port";
const CHAT: &str = "/v1/chat/completions";

/// A scheduler, a decode worker behind a sidecar with an HTTP front, and prefill workers `p0`, `p1`, …
struct Fleet {
    processes: Vec<Process>,
    /// The scheduler's front.
    scheduler: Client,
    /// The sidecar's front.
    sidecar: Client,
}

impl Fleet {
    fn start(model: &ModelFolder, prefill: usize) -> Self {
        Self::with_sidecar_of(model, model, prefill)
    }

    /// The sidecar is told another model than the workers.
    fn with_sidecar_of(sidecars: &ModelFolder, model: &ModelFolder, prefill: usize) -> Self {
        let line = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
        let (scheduler, at) = start(&words(&[&line[..], &["--disaggregate", "always"]].concat()));
        let (client, registry) = (Client::new(format!("http://{}", at("http"))), at("registry"));
        let line = ["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry];
        let http = ["--http-listen", ANY, "--model", &sidecars.arg()];
        let (sidecar, at) = start(&words(&[&line[..], &http].concat()));
        let sidecar_client = Client::new(format!("http://{}", at("http")));
        let decode = start(&worker_args("decode-worker", "decode", model, &at("grpc"))).0;
        let mut processes = vec![scheduler, sidecar, decode];
        processes.extend(
            (0..prefill).map(|n| start(&worker_args("prefill-worker", &format!("p{n}"), model, &registry)).0),
        );
        let fleet = Self { processes, scheduler: client, sidecar: sidecar_client };
        eventually("all are there and paired", || {
            let ids = |client: &Client| workers(client).len();
            let paired = fleet.scheduler.get("/ready/pairs");
            let found = (ids(&fleet.scheduler), ids(&fleet.sidecar), paired.status, paired.body.is_empty());
            if found == (prefill + 1, prefill + 1, if prefill == 0 { 503 } else { 200 }, prefill > 0) {
                Ok(())
            } else {
                Err(format!("{found:?}: {}", paired.body))
            }
        });
        fleet
    }

    fn sidecar_process(&self) -> &Process {
        &self.processes[1]
    }

    fn worker(&self, id: &str) -> Worker {
        let all = workers(&self.scheduler);
        Worker::from_json(all.iter().find(|worker| worker["worker_id"] == id).expect("it is there"))
    }

    /// Where a prefill worker takes requests.
    fn endpoint(&self, id: &str) -> String {
        let all = workers(&self.sidecar);
        let worker = all.iter().find(|worker| worker["worker_id"] == id).expect("it is there");
        worker["endpoint"].as_str().expect("an address").to_owned()
    }

    fn transfers(&self) -> f64 {
        self.worker("decode").transfers_completed()
    }

    fn fallbacks(&self) -> f64 {
        Metrics::parse(&self.sidecar.get("/metrics").body).get("baton_fallbacks_total", &[])
    }

    fn stop(self) {
        for mut process in self.processes {
            process.signal(Signal::TERM, Sent::ToProcess);
            assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(0));
            process.assert_nothing_left();
        }
    }
}

fn workers(client: &Client) -> Vec<Value> {
    client.get("/v1/workers").ok()["workers"].as_array().cloned().unwrap_or_default()
}

#[test]
fn the_sidecars_front_answers_as_the_schedulers_does_and_prefills_where_the_header_says() {
    let fleet = Fleet::start(&ModelFolder::bundled(), 2);
    eventually("the sidecar is ready", || match fleet.sidecar.get("/ready") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    let p1 = fleet.sidecar.saying(HEADER, &fleet.endpoint("p1"));
    for (round, length) in [17, 300, 700].into_iter().enumerate() {
        // Under a salt of its own each computes all of the prompt.
        let ask = |who: &str| {
            let ask = Ask::new(&prompt_of(length, 3), 16).with("temperature", 0.7).with("seed", 11);
            ask.with("cache_salt", format!("{who} {round}"))
        };
        let expected = ask("scheduler").answer(&fleet.scheduler);
        let before = (fleet.transfers(), fleet.worker("p0").bytes_sent(), fleet.worker("p1").bytes_sent());
        assert_eq!(ask("here").answer(&fleet.sidecar), expected);
        assert_eq!(Answer::from_events(&ask("here, streamed").stream(&fleet.sidecar).until_done()), expected);
        assert_eq!(fleet.transfers(), before.0, "without the header it prefills where it decodes");
        assert_eq!(ask("p1").answer(&p1), expected);
        assert_eq!(Answer::from_events(&ask("p1, streamed").stream(&p1).until_done()), expected);
        assert_eq!(fleet.transfers(), before.0 + 2.0, "handed over");
        assert_eq!(fleet.worker("p0").bytes_sent(), before.1);
        assert!(fleet.worker("p1").bytes_sent() > before.2);
    }
    fleet.sidecar_process().wait_for_log(&["request", "prefill_worker=\"p1\"", "decode_worker=\"decode\""]);
    assert_eq!(fleet.fallbacks(), 0.0);
    fleet.stop();
}

#[test]
fn chats_are_the_same_at_both_fronts() {
    let fleet = Fleet::start(&ModelFolder::bundled(), 1);
    let question = "Parcel 7 goes to Lisbon by train with Mira. Where does parcel 7 go?";
    let chat = json!({"messages": [{"role": "user", "content": question}], "temperature": 0});
    let said = |client: &Client| {
        let answer = client.post(CHAT, &chat).ok();
        assert!(
            answer["choices"][0]["message"]["content"].as_str().is_some_and(|text| text.contains("Lisbon"))
        );
        (answer["choices"].clone(), answer["usage"]["completion_tokens"].clone())
    };
    let expected = said(&fleet.scheduler);
    assert_eq!(said(&fleet.sidecar), expected);
    assert_eq!(said(&fleet.sidecar.saying(HEADER, &fleet.endpoint("p0"))), expected);

    let mut body = chat.clone();
    body["stream"] = json!(true);
    // How tokens are shared out among events is a matter of time.
    let told = |client: &Client| -> (String, Vec<Value>) {
        let events = client.stream(CHAT, &body).until_done();
        let choices: Vec<Value> = events.iter().map(|event| event["choices"][0].clone()).collect();
        let text = choices.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        (
            text,
            choices.iter().map(|choice| choice["finish_reason"].clone()).filter(|r| !r.is_null()).collect(),
        )
    };
    let expected = told(&fleet.scheduler);
    assert!(expected.0.contains("Lisbon") && expected.1 == [json!("stop")], "{expected:?}");
    assert_eq!(told(&fleet.sidecar), expected);
    assert_eq!(told(&fleet.sidecar.saying(HEADER, &fleet.endpoint("p0"))), expected);

    let bad = fleet.sidecar.post(CHAT, &json!({"messages": []})).error(400);
    assert_eq!(bad, fleet.scheduler.post(CHAT, &json!({"messages": []})).error(400));
    fleet.stop();
}

#[test]
fn an_address_that_is_no_prefill_workers_is_never_called_and_the_request_served_all_the_same() {
    let mut fleet = Fleet::start(&ModelFolder::made_up(Shape::TINY), 1);
    let ask = Ask::new(&prompt_of(100, 1), 8);
    let expected = ask.answer(&fleet.scheduler);
    let before = fleet.transfers();
    // It would be noticed: somebody listens there.
    let stranger = std::net::TcpListener::bind(ANY).expect("a free port");
    stranger.set_nonblocking(true).expect("it can be polled");
    let address = stranger.local_addr().expect("an address").to_string();
    assert_eq!(ask.answer(&fleet.sidecar.saying(HEADER, &address)), expected);
    assert!(stranger.accept().is_err(), "nobody has called");
    assert_eq!((fleet.transfers(), fleet.fallbacks()), (before, 1.0));
    fleet.sidecar_process().wait_for_log(&["no prefill worker at", &address]);

    // The second choice is taken.
    let known = fleet.endpoint("p0");
    let both = fleet.sidecar.saying(HEADER, &format!("{address}, {known}"));
    assert_eq!(ask.clone().with("cache_salt", "both").answer(&both), expected);
    assert_eq!((fleet.transfers(), fleet.fallbacks()), (before + 1.0, 2.0));

    // So is nobody who has left.
    let mut gone = fleet.processes.pop().expect("p0");
    gone.signal(Signal::TERM, Sent::ToProcess);
    assert_eq!(gone.wait(Duration::from_secs(10)).code(), Some(0));
    eventually("the sidecar knows that p0 has left", || match workers(&fleet.sidecar).len() {
        1 => Ok(()),
        others => Err(format!("{others} workers")),
    });
    assert_eq!(
        ask.clone().with("cache_salt", "gone").answer(&fleet.sidecar.saying(HEADER, &known)),
        expected
    );
    assert_eq!(fleet.fallbacks(), 3.0);
    fleet.sidecar_process().wait_for_log(&["no prefill worker at", &known]);
    fleet.stop();
}

#[test]
fn a_sidecar_that_is_told_to_stop_lets_its_own_clients_streams_end() {
    let fleet = Fleet::start(&ModelFolder::made_up(Shape::TINY), 0);
    let ask = Ask::new(&prompt_of(40, 2), 1900);
    let expected = ask.answer(&fleet.sidecar);
    let mut stream = ask.stream(&fleet.sidecar);
    let mut events = vec![stream.data()];
    fleet.sidecar_process().signal(Signal::TERM, Sent::ToProcess);
    eventually("the sidecar is not ready any more", || match fleet.sidecar.get("/ready") {
        reply if reply.status == 503 && reply.body.contains("shutting down") => Ok(()),
        reply => Err(reply.body),
    });
    let refused = ask.clone().with("max_tokens", 1);
    fleet.sidecar.post("/v1/completions", refused.body()).error(503);
    events.extend(stream.until_done());
    assert_eq!(Answer::from_events(&events), expected);
    let Fleet { processes, .. } = fleet;
    for (index, mut process) in processes.into_iter().enumerate() {
        if index != 1 {
            process.signal(Signal::TERM, Sent::ToProcess);
        }
        assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(0));
        process.assert_nothing_left();
    }
}

#[test]
fn a_sidecar_that_was_told_another_model_says_so_and_serves_nothing() {
    let (here, there) = (ModelFolder::made_up(Shape::TINY), ModelFolder::bundled());
    let fleet = Fleet::with_sidecar_of(&there, &here, 0);
    eventually("the sidecar says what is wrong", || match fleet.sidecar.get("/ready") {
        reply if reply.status == 503 && reply.body.contains("--model is") => Ok(()),
        reply => Err(reply.body),
    });
    let error = fleet.sidecar.post("/v1/completions", &json!({"prompt": "x"})).error(500);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("--model is")), "{error}");
    assert_eq!(fleet.scheduler.post("/v1/completions", &json!({"prompt": "x"})).status, 200);
    fleet.stop();

    let alone = Process::run(&["sidecar", "--registry", "127.0.0.1:1", "--http-listen", ANY]);
    assert!(alone.stderr.contains("--model"), "{}", alone.stderr);
    assert_ne!(alone.status.code(), Some(0));
}
