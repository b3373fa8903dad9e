//! Servers that fail or are wrong give failed records, and nobody waits for ever.

use std::{net::TcpListener, time::Duration};

use baton_results::Outcome;

use super::harness::{Script, Scripted, Then, closed, events, run, setup};

const TEXT: &str = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
const END: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;

fn good() -> Script {
    Script { answer: events(&[TEXT, END, "[DONE]"]), then: Then::Close }
}

/// What becomes of a request that is answered with `answer`, after a good answer to the probe.
fn outcome(answer: &str, then: Then) -> Outcome {
    let server = Scripted::start(vec![good(), Script { answer: answer.to_owned(), then }]);
    let mut setup = setup(server.address);
    setup.limits.request_timeout = Duration::from_millis(300);
    let document = run(setup, closed(1, 1, 3)).unwrap();
    document.measured.records[0].outcome.clone()
}

fn failure(answer: &str, then: Then) -> (Option<u16>, String) {
    match outcome(answer, then) {
        Outcome::Failed { status, message } => (status, message),
        other => panic!("{answer:?} gave {other:?}"),
    }
}

fn is_complete(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Complete { .. })
}

#[test]
fn a_good_answer_is_complete_whatever_comes_after_it() {
    // A server that forgets to end its body.
    let chunk = |data: &str| format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let unended = [head, &chunk(TEXT), &chunk("[DONE]")].concat();
    for answer in [events(&[TEXT, END, "[DONE]"]), events(&[TEXT, END]), unended] {
        let found = outcome(&answer, Then::Close);
        assert!(is_complete(&found), "{answer:?} gave {found:?}");
    }
}

#[test]
fn errors_are_recorded_with_status_and_words() {
    let error = r#"{"error":{"message":"no room","type":"server_error"}}"#;
    let answer = format!("HTTP/1.1 503 Busy\r\ncontent-length: {}\r\n\r\n{error}", error.len());
    assert_eq!(failure(&answer, Then::Serve), (Some(503), "no room".to_owned()));
    let in_stream = events(&[TEXT, r#"{"error":{"message":"worker lost","code":502}}"#, "[DONE]"]);
    assert_eq!(failure(&in_stream, Then::Close), (Some(502), "worker lost".to_owned()));
}

#[test]
fn answers_that_end_early_or_make_no_sense_are_failures() {
    for (answer, then, expected) in [
        (String::new(), Then::Close, "closed the connection"),
        (events(&[TEXT]), Then::Close, "neither a finish_reason nor [DONE]"),
        (events(&["{\"choices\":"]), Then::Close, "can't be read"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_owned(),
            Then::Close,
            "closed the connection",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(), Then::Serve, "no answer"),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
                .to_owned(),
            Then::Serve,
            "framed",
        ),
        ("220 mail.example.com ESMTP\r\n".to_owned(), Then::Hang, "does not speak HTTP/1.1"),
        (events(&[TEXT]), Then::Hang, "no whole answer within"),
        (String::new(), Then::Hang, "no whole answer within"),
    ] {
        let (_, message) = failure(&answer, then);
        assert!(message.contains(expected), "{answer:?} gave {message:?}");
    }
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_no_failure() {
    let kept =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 14\r\n\r\ndata: [DONE]\n\n";
    // The answer lets the connection open, and then the server closes it.
    let server = Scripted::start(vec![Script { answer: kept.to_owned(), then: Then::Close }]);
    let document = run(setup(server.address), closed(5, 1, 3)).unwrap();
    assert!(document.measured.records.iter().all(|record| is_complete(&record.outcome)));
    assert_eq!(server.bodies().len(), 6, "the probe and five requests");
}

#[test]
fn who_can_not_be_put_under_load_is_told_before_the_run() {
    let told = |scripts: Vec<Script>| {
        let server = Scripted::start(scripts);
        run(setup(server.address), closed(1, 1, 1)).unwrap_err().to_string()
    };
    let refuse = |status: &str| {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno");
        vec![Script { answer, then: Then::Serve }]
    };
    assert!(told(refuse("401 Unauthorized")).contains("status 401: no"));
    assert!(told(refuse("400 Bad Request")).contains("status 400: no"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run(setup(nobody), closed(1, 1, 1)).unwrap_err().to_string();
    assert!(error.contains("does not answer") && error.contains("is the server up"), "{error}");
}
