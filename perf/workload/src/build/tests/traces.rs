use std::{io::Write as _, path::PathBuf};

use super::*;
use crate::{
    plan::{Role, Text},
    trace::TraceFormat,
    workload::{Trace, TraceOutput},
};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn trace(path: PathBuf) -> Trace {
    Trace {
        path,
        format: None,
        output: TraceOutput::Recorded { otherwise: "77".parse().unwrap() },
        token_scale: 1.0,
        max_context_tokens: None,
        skip: Duration::ZERO,
        max_turns: some(100).unwrap(),
    }
}

fn replay(text: &str, change: impl FnOnce(&mut Workload, &mut Trace)) -> Result<Plan, PlanError> {
    let file = file(text);
    let mut trace = trace(file.path().to_owned());
    let load = Load::Recorded { time_scale: 1.0, is_spread: false, max_in_flight: None };
    let mut workload = Workload { load, requests: None, ..open() };
    change(&mut workload, &mut trace);
    Workload { source: Source::Trace(trace), ..workload }.plan(&Estimate::default())
}

fn seconds(plan: &Plan) -> Vec<f64> {
    let at = |request: &Planned| match request.start {
        Start::At(at) => at.as_secs_f64(),
        other => panic!("{other:?}"),
    };
    plan.requests().iter().map(at).collect()
}

fn pieces(request: &Planned) -> Vec<(u64, u32)> {
    request.prompt.pieces.iter().map(|piece| (piece.id, piece.tokens)).collect()
}

const MOONCAKE: &str = r#"{"timestamp": 5000, "input_length": 1034, "output_length": 30, "hash_ids": [7, 90, 4]}
{"timestamp": 8000, "input_length": 600, "output_length": 40, "hash_ids": [7, 91]}
{"timestamp": 5000, "input_length": 1030, "output_length": 50, "hash_ids": [7, 90, 92]}
{"timestamp": 11000, "input_length": 8, "output_length": 60, "hash_ids": [5]}
"#;

fn recorded(time_scale: f64, is_spread: bool) -> Load {
    Load::Recorded { time_scale, is_spread, max_in_flight: some(9) }
}

#[test]
fn a_trace_is_replayed_from_its_first_request() {
    let plan = replay(MOONCAKE, |_, _| ()).unwrap();
    assert_eq!(seconds(&plan), [0.0, 0.0, 3.0, 6.0]);
    assert_eq!(pieces(&plan.requests()[0]), [(0, 512), (1, 512), (2, 10)]);
    assert_eq!(pieces(&plan.requests()[1]), [(0, 512), (1, 512), (4, 6)]);
    assert_eq!(pieces(&plan.requests()[2]), [(0, 512), (3, 88)]);
    assert_eq!(outputs(&plan), [30, 50, 40, 60]);
    assert_eq!((plan.left_out(), plan.requests()[0].session), (0, None));
}

#[test]
fn times_are_scaled_spread_skipped_and_cut() {
    let plan = replay(MOONCAKE, |workload, _| workload.load = recorded(0.5, true)).unwrap();
    assert_eq!(seconds(&plan), [0.0, 0.75, 1.5, 3.0]);
    assert_eq!(plan.pacing().max_in_flight, Some(9));
    let plan = replay(MOONCAKE, |workload, trace| {
        trace.skip = Duration::from_secs(2);
        workload.load = recorded(2.0, false);
        workload.duration = Some(Duration::from_secs(3));
    });
    assert_eq!(seconds(&plan.unwrap()), [2.0]);
    let plan = replay(MOONCAKE, |workload, _| workload.requests = some(3)).unwrap();
    assert_eq!(plan.requests().len(), 3);
}

#[test]
fn lengths_are_scaled_and_bounded() {
    let plan = replay(MOONCAKE, |_, trace| trace.token_scale = 0.25).unwrap();
    assert_eq!(pieces(&plan.requests()[0]), [(0, 128), (1, 128), (2, 3)]);
    assert_eq!(pieces(&plan.requests()[1]), [(0, 128), (1, 128), (4, 2)]);
    assert_eq!(outputs(&plan), [8, 13, 10, 15]);
    let plan = replay(MOONCAKE, |_, trace| trace.max_context_tokens = some(640)).unwrap();
    assert_eq!((outputs(&plan), plan.left_out()), (vec![40, 60], 2));
    assert!(matches!(replay(MOONCAKE, |_, trace| trace.max_context_tokens = some(5)), Err(PlanError::Empty)));
}

#[test]
fn a_trace_can_be_sent_at_another_pace() {
    let plan = replay(MOONCAKE, |workload, _| workload.load = Load::Closed { concurrency: some(2).unwrap() });
    assert_eq!(starts(&plan.unwrap()), [Start::WhenFree; 4]);
    let plan = replay(MOONCAKE, |workload, _| workload.load = open().load).unwrap();
    assert_eq!(seconds(&plan), seconds(&open().planned())[..4]);
    let timeless = replay("{\"input_tokens\": 5}", |_, _| ());
    assert!(matches!(timeless, Err(PlanError::NoTimes { .. })));
    let synthetic = Workload { load: recorded(1.0, false), ..open() };
    assert!(matches!(synthetic.plan(&Estimate::default()), Err(PlanError::NoTimes { .. })));
}

const SESSIONS: &str = r#"{"arrival_ms": 0, "input_tokens": 100, "output_tokens": 10, "session": "a"}
{"arrival_ms": 500, "pieces": [[3, 8], [4, 9]]}
{"prompt": "And then?", "output_tokens": 20, "session": "a", "think_ms": 1500}
{"arrival_ms": 400, "messages": [{"role": "system", "content": "And then?"}, {"role": "user", "content": "And then?"}]}
"#;

#[test]
fn sessions_of_own_rows_say_all_before() {
    let plan = replay(SESSIONS, |_, _| ()).unwrap();
    let [first, second, messages, pieced] = plan.requests() else { panic!() };
    assert_eq!(second.start, Start::After { index: 0, think: Duration::from_millis(1500) });
    assert_eq!((first.session, second.session, second.turn), (Some(0), Some(0), 1));
    let fills: Vec<_> = second.prompt.pieces.iter().map(|piece| (piece.tokens, piece.fill)).collect();
    let Fill::Text(said) = fills[2].1 else { panic!() };
    assert_eq!(fills[..2], [(100, Fill::Made), (10, Fill::Answer { index: 0 })]);
    assert_eq!(plan.text(said), &Text { role: Role::User, text: "And then?".into() });
    assert_eq!(fills[2].0, 3);
    // The same text by somebody else is another piece; the same by the same is the same.
    assert_eq!(messages.prompt.pieces[1], second.prompt.pieces[2]);
    assert_ne!(messages.prompt.pieces[0], second.prompt.pieces[2]);
    assert_eq!((messages.output_tokens, pieced.output_tokens), (77, 77));
    let plan = replay(SESSIONS, |_, trace| trace.max_context_tokens = some(112)).unwrap();
    assert_eq!((plan.requests().len(), plan.left_out()), (3, 1));
    let plan = replay(SESSIONS, |_, trace| trace.max_turns = some(1).unwrap()).unwrap();
    assert_eq!(plan.requests().len(), 3);
}

#[test]
fn each_turn_waits_for_the_one_before() {
    let turn = |think| format!("{{\"input_tokens\": 5, \"session\": \"a\", \"think_ms\": {think}}}\n");
    let first = "{\"arrival_ms\": 0, \"input_tokens\": 9}\n{\"arrival_ms\": 0, \"input_tokens\": 5, \"session\": \"a\"}\n";
    let plan = replay(&[first, &turn(10), &turn(20), &turn(30)].concat(), |_, _| ()).unwrap();
    let after = |index, ms| Start::After { index, think: Duration::from_millis(ms) };
    assert_eq!(starts(&plan)[2..], [after(1, 10), after(2, 20), after(3, 30)]);
    let pieces: Vec<usize> = plan.requests().iter().map(|request| request.prompt.pieces.len()).collect();
    assert_eq!(pieces, [1, 1, 3, 5, 7]);
}

#[test]
fn conversations_are_as_long_as_they_were_or_as_drawn() {
    let text = r#"[{"conversations": [{"from": "human", "value": "12345678"}, {"from": "gpt", "value": "1234567890123"}]}, nonsense"#;
    let one = |workload: &mut Workload, trace: &mut Trace| {
        workload.load = Load::Closed { concurrency: some(1).unwrap() };
        workload.requests = some(1);
        trace.format = Some(TraceFormat::Sharegpt);
    };
    // With another request to come the file is read on.
    let error = replay(text, one).unwrap_err().to_string();
    assert!(error.contains("element 2"), "{error}");
    let text = text.replace(", nonsense", "]");
    assert_eq!(outputs(&replay(&text, one).unwrap()), [4]);
    let drawn = replay(&text, |workload, trace| {
        one(workload, trace);
        trace.output = TraceOutput::Drawn("9".parse().unwrap());
    });
    assert_eq!(outputs(&drawn.unwrap()), [9]);
}

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let check = |text: &str, problem: &str| {
        let error = replay(text, |_, _| ()).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    };
    check("{\"input_tokens\": 5}\n{\"input_tokens\": 5, \"arrival_ms\": 1}", ":2: some rows have a time");
    check("{\"input_tokens\": 5, \"think_ms\": 1}", ":1: `think_ms` is for a session's later rows");
    let row = "{\"input_tokens\": 5, \"arrival_ms\": 1, \"session\": \"a\"}\n";
    check(&row.repeat(2), ":2: a session's later rows come after answers");
}
