//! `baton up` starts, says so, and goes without a trace: on Ctrl-C, on SIGKILL, and when it can't start at all.

use std::{net::TcpListener, path::Path, time::Duration};

use rustix::process::Signal;

use crate::harness::{
    Answer, Ask, Deployment, ModelFolder, Process, Role, Sent, Shape, Up, eventually, prompt_of,
};

#[test]
fn ctrl_c_lets_a_running_stream_end_and_leaves_nothing_behind() {
    let model = ModelFolder::made_up(Shape::TINY);
    let mut deployment = Deployment::up(&Up::new(&model, 1, 1));
    let asked = Ask::new(&prompt_of(40, 1), 400);
    let expected = asked.answer(deployment.client());

    let mut stream = asked.stream(deployment.client());
    let mut events = vec![stream.data()];
    deployment.process().signal(Signal::INT, Sent::ToGroup);
    events.extend(stream.until_done());

    assert_eq!(Answer::from_events(&events), expected);
    deployment.assert_ends();
}

#[test]
fn sigterm_to_the_supervisor_alone_ends_it_in_order_too() {
    let model = ModelFolder::made_up(Shape::TINY);
    let mut deployment = Deployment::up(&Up::new(&model, 1, 1));
    deployment.process().signal(Signal::TERM, Sent::ToProcess);
    deployment.assert_ends();
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_a_long_answer() {
    let model = ModelFolder::made_up(Shape { context: 65_536, ..Shape::TINY });
    let mut deployment = Deployment::up(&Up::new(&model, 1, 1));
    let mut stream = Ask::new(&prompt_of(40, 1), 60_000).stream(deployment.client());
    stream.data();
    let process = deployment.process();
    process.signal(Signal::INT, Sent::ToGroup);
    process.wait_for_log(&["stopping"]);
    process.signal(Signal::INT, Sent::ToGroup);
    process.wait(Duration::from_secs(5));
    process.assert_nothing_left();
    deployment.forget();
}

#[test]
fn a_killed_supervisor_leaves_no_worker_behind_once_the_running_stream_has_ended() {
    let model = ModelFolder::made_up(Shape::TINY);
    let mut deployment = Deployment::up(&Up::new(&model, 2, 1));
    let asked = Ask::new(&prompt_of(40, 1), 1000);
    let expected = asked.answer(deployment.client());
    let mut stream = asked.stream(deployment.client());
    let mut events = vec![stream.data()];
    let process = deployment.process();
    assert!(process.family().len() >= 6, "supervisor, front, sidecar and three workers run");
    process.signal(Signal::KILL, Sent::ToProcess);
    process.wait(Duration::from_secs(5));
    events.extend(stream.until_done());
    assert_eq!(Answer::from_events(&events), expected);
    deployment.process().assert_nothing_left();
    deployment.forget();
}

#[test]
fn a_killed_worker_leaves_no_file_of_its_fabric_behind() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 2, 1).over_libfabric("shm"));
    let asked = Ask::new(&prompt_of(100, 1), 8);
    let expected = asked.answer(deployment.client());
    for worker in deployment.alive(Role::Prefill) {
        worker.signal(Signal::KILL);
        assert_eq!(asked.answer(deployment.client()), expected);
    }
    deployment.stop();
}

#[test]
fn any_number_of_workers_of_each_kind_serves() {
    let model = ModelFolder::made_up(Shape::TINY);
    let asked = Ask::new(&prompt_of(100, 1), 16);
    let mut answers = Vec::new();
    for (prefill, decode) in [(0, 1), (2, 2)] {
        let deployment = Deployment::up(&Up::new(&model, prefill, decode));
        assert_eq!(deployment.workers(Role::Prefill).len(), prefill);
        assert_eq!(deployment.workers(Role::Decode).len(), decode);
        answers.push(asked.answer(deployment.client()));
        deployment.stop();
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_taken_port_is_named() {
    let model = ModelFolder::made_up(Shape::TINY);
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = holder.local_addr().expect("its address").port().to_string();
    let args = ["up", "--model", &model.arg(), "--port", &port];
    check_refused(&args, &[&port, "in use", "--port"]);
}

#[test]
fn a_model_that_cannot_be_loaded_is_refused_in_one_clear_line() {
    let up =
        |model: &Path| ["up", "--port", "0", "--model", model.to_str().expect("UTF-8")].map(str::to_owned);
    check_refused(&up(Path::new("/no/such/model")), &["/no/such/model"]);

    let broken = |file: &str, change: fn(Vec<u8>) -> Vec<u8>, words: &[&str]| {
        let model = ModelFolder::made_up(Shape::TINY);
        check_refused(&up(model.change(file, change).path()), words);
    };
    let half = |mut content: Vec<u8>| {
        content.truncate(content.len() / 2);
        content
    };
    let nothing = |_| Vec::new();
    let other_family = |content: Vec<u8>| {
        String::from_utf8(content).expect("JSON").replace("Qwen3ForCausalLM", "BertForMaskedLM").into_bytes()
    };
    broken("model.safetensors", half, &["model.safetensors"]);
    broken("model.safetensors", nothing, &["model.safetensors"]);
    broken("config.json", half, &["config.json"]);
    broken("config.json", other_family, &["BertForMaskedLM"]);
    broken("tokenizer.json", half, &["tokenizer.json"]);

    let wide = ModelFolder::made_up(Shape::TINY);
    wide.change("config.json", |content| {
        String::from_utf8(content)
            .expect("JSON")
            .replace("\"intermediate_size\":128", "\"intermediate_size\":256")
            .into_bytes()
    });
    check_refused(&up(wide.path()), &["mlp", "256", "128"]);
}

/// `baton ARGS` ends by itself, not with success, and its last words are one line with all of `words`.
fn check_refused<A: AsRef<str>>(args: &[A], words: &[&str]) {
    let finished = Process::run(args);
    assert!(!finished.status.success(), "{}", finished.stderr);
    assert_eq!(finished.stdout, "", "nothing was ready");
    let errors: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("not one error line:\n{}", finished.stderr) };
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}

#[test]
fn after_ctrl_c_new_requests_are_refused_while_a_running_one_goes_on() {
    let model = ModelFolder::made_up(Shape { context: 65_536, ..Shape::TINY });
    let mut deployment = Deployment::up(&Up::new(&model, 1, 1));
    let mut stream = Ask::new(&prompt_of(40, 1), 60_000).stream(deployment.client());
    stream.data();
    deployment.process().signal(Signal::INT, Sent::ToGroup);
    // By status or by a closed port.
    eventually("refusal", || {
        match deployment.client().try_post("/v1/completions", Ask::new(&[1], 1).body()) {
            Ok(reply) if reply.status != 503 => Err(format!("a request was answered {}", reply.status)),
            Ok(_) | Err(_) => Ok(()),
        }
    });
    for _ in 0..100 {
        stream.data();
    }
    assert!(deployment.process().is_running(), "it waits for the stream");
    drop(stream);
    deployment.assert_ends();
}
