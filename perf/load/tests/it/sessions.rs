//! What requests say: a session's next turn the answer to the one before; and one that can't be written fails alone.

use std::{sync::Arc, time::Duration};

use baton_load::{Answers, Content, Message, Prompt};
use baton_results::Outcome;
use baton_workload::{Fill, Pacing, Piece, Plan, Planned, Start};
use tokio_util::sync::CancellationToken;

use super::harness::{Script, Scripted, Then, events, request, run_saying, setup};

/// Says what the pieces are, and the answers as they came.
struct Pieces;

impl Content for Pieces {
    fn prompt(&self, _: &Plan, request: &Planned, answers: &Answers) -> Prompt {
        let message = |piece: &Piece| match piece.fill {
            Fill::Answer { index } => Message { role: "assistant", content: answers[&index].clone() },
            _ => Message { role: "user", content: format!("piece {}", piece.id) },
        };
        Prompt::Messages(request.prompt.pieces.iter().map(message).collect())
    }
}

#[test]
fn the_next_turn_has_the_answer_in_it() {
    let text = |text: &str| format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#);
    let answer = |first: &str, second: &str| Script {
        answer: events(&[&text(first), &text(second), "[DONE]"]),
        then: Then::Close,
    };
    let server = Scripted::start(vec![answer("probe", ""), answer("one", " two"), answer("three", "")]);
    let mut first = request(0, Start::WhenFree, 4);
    first.session = Some(0);
    let after = Start::After { index: 0, think: Duration::from_millis(50) };
    let mut second = Planned { session: Some(0), turn: 1, ..request(1, after, 4) };
    let pieces = [(0, Fill::Made), (1, Fill::Answer { index: 0 }), (2, Fill::Made)];
    second.prompt.pieces = pieces.map(|(id, fill)| Piece { id, tokens: 2, fill }).to_vec();
    let pacing = Pacing { concurrency: Some(1), ..Pacing::default() };
    let plan = Plan::new(vec![first, second], Vec::new(), pacing, 0);
    let document =
        run_saying(setup(server.address), plan, Arc::new(Pieces), &CancellationToken::new()).unwrap();

    let said: Vec<serde_json::Value> =
        server.bodies().into_iter().map(|body| body["messages"].clone()).collect();
    let expected = serde_json::json!([
        { "role": "user", "content": "piece 0" },
        { "role": "assistant", "content": "one two" },
        { "role": "user", "content": "piece 2" },
    ]);
    assert_eq!(said[2], expected);
    let [first, second] = document.measured.records.as_slice() else { panic!("two turns") };
    assert_eq!(second.intended_us.0, first.end_us.unwrap().0 + 50_000);
    assert_eq!((second.session, second.turn), (Some(0), 1));
}

/// Has a mistake in it.
struct Broken;

impl Content for Broken {
    fn prompt(&self, _: &Plan, request: &Planned, _: &Answers) -> Prompt {
        assert_ne!(request.index, 2, "on purpose");
        Prompt::Messages(vec![Message { role: "user", content: "hello".to_owned() }])
    }
}

#[test]
fn a_request_that_cannot_be_written_fails_and_the_run_ends() {
    let answer = events(&[r#"{"choices":[{"delta":{"content":"a"}}]}"#, "[DONE]"]);
    let server = Scripted::start(vec![Script { answer, then: Then::Close }]);
    let plan = super::harness::closed(5, 2, 1);
    let document =
        run_saying(setup(server.address), plan, Arc::new(Broken), &CancellationToken::new()).unwrap();
    let mut records = document.measured.records;
    records.sort_by_key(|record| record.index);
    assert_eq!(records.len(), 5);
    for record in records {
        match record.outcome {
            Outcome::Failed { message, .. } => {
                assert!(record.index == 2 && message.contains("mistake"), "{message}")
            }
            outcome => {
                assert!(record.index != 2 && matches!(outcome, Outcome::Complete { .. }), "{outcome:?}")
            }
        }
    }
}
