use std::{
    io::{Cursor, Write as _},
    ops::ControlFlow,
    time::Duration,
};

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn rows_as(format: Option<TraceFormat>, text: &str) -> Result<Vec<Row>, TraceError> {
    let mut rows = Vec::new();
    read(file(text).path(), format, &mut |row| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

fn rows(text: &str) -> Vec<Row> {
    rows_as(None, text).unwrap()
}

/// The error's text after the name of the file.
fn check_error(text: &str, place_and_problem: &str) {
    let file = file(text);
    let error = read(file.path(), None, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    let rest = error.strip_prefix(&file.path().display().to_string()).unwrap();
    assert!(rest.contains(place_and_problem), "{text}: {rest}");
}

fn user(text: &str) -> Text {
    Text { role: Role::User, text: text.to_owned() }
}

#[test]
fn mooncakes_blocks_are_512_tokens_but_for_the_last() {
    let rows = rows(
        "{\"timestamp\": 0, \"input_length\": 1025, \"output_length\": 7, \"hash_ids\": [0, 90, 4]}\n\n\
         {\"timestamp\": 3000, \"input_length\": 512, \"output_length\": 0, \"hash_ids\": [0], \"type\": \"chat\"}\r\n",
    );
    assert_eq!(rows[0].prompt, RowPrompt::Pieces(vec![(0, 512), (90, 512), (4, 1)]));
    assert_eq!((rows[0].at, rows[0].output.clone()), (Some(Duration::ZERO), Some(RowOutput::Tokens(7))));
    assert_eq!(rows[1].prompt, RowPrompt::Pieces(vec![(0, 512)]));
    assert_eq!(
        (rows[1].at, rows[1].output.clone()),
        (Some(Duration::from_secs(3)), Some(RowOutput::Tokens(1)))
    );
    assert_eq!((rows[1].place, rows.len()), (Place::Line(3), 2));
}

#[test]
fn azures_columns_are_found_by_name() {
    let rows = rows(
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n",
    );
    assert_eq!(rows[1].at.unwrap() - rows[0].at.unwrap(), Duration::from_nanos(4_314_579_000));
    assert_eq!(rows[0].prompt, RowPrompt::Tokens(374));
    assert_eq!(rows[1].output, Some(RowOutput::Tokens(109)));
    let other =
        self::rows("x,GeneratedTokens,TIMESTAMP,ContextTokens\n,5,2024-05-10 00:00:00.009930+00:00,6\n");
    assert_eq!(
        (other[0].prompt.clone(), other[0].output.clone()),
        (RowPrompt::Tokens(6), Some(RowOutput::Tokens(5)))
    );
}

#[test]
fn own_rows_say_lengths_pieces_or_texts() {
    let rows = rows(
        r#"{"arrival_ms": 12.5, "input_tokens": 900, "output_tokens": 120}
{"pieces": [[1, 800], [2, 100]], "session": "a"}
{"prompt": "Hello", "session": "a", "think_ms": 2000}
{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]}"#,
    );
    assert_eq!(rows[0].at, Some(Duration::from_micros(12_500)));
    assert_eq!(rows[1].prompt, RowPrompt::Pieces(vec![(1, 800), (2, 100)]));
    assert_eq!(rows[2].prompt, RowPrompt::Messages(vec![user("Hello")]));
    assert_eq!(rows[2].think, Some(Duration::from_secs(2)));
    assert_eq!(rows[2].session, Some(SessionName::Given("a".into())));
    let RowPrompt::Messages(texts) = &rows[3].prompt else { panic!() };
    assert_eq!(texts[0], Text { role: Role::System, text: "Be kind.".into() });
}

const CONVERSATION: &str = r#"{"id": "x", "conversations": [{"from": "gpt", "value": "passed over"}, {"from": "human", "value": "one"},
 {"from": "gpt", "value": "1"}, {"from": "human", "value": "two"}, {"from": "gpt", "value": "2"}, {"from": "human", "value": "unanswered"}]}"#;

#[test]
fn conversations_become_a_row_for_each_answer() {
    let one_line = CONVERSATION.replace('\n', "");
    for text in [format!("\n [ {CONVERSATION},{CONVERSATION}]"), format!("{one_line}\n{one_line}\n")] {
        let rows = rows(&text);
        assert_eq!(rows.len(), 4, "{text}");
        assert_eq!(rows[0].prompt, RowPrompt::Messages(vec![user("one")]));
        assert_eq!(rows[1].prompt, RowPrompt::Messages(vec![user("two")]));
        assert_eq!(rows[1].output, Some(RowOutput::LikeText("2".into())));
        assert_eq!(rows[0].session, rows[1].session);
        assert_ne!(rows[1].session, rows[2].session);
    }
}

#[test]
fn lines_are_prompts() {
    let prompts = rows("\u{feff}What is it?\r\n\n  It is  \n");
    assert_eq!(prompts[0].prompt, RowPrompt::Messages(vec![user("What is it?")]));
    assert_eq!(prompts[1].prompt, RowPrompt::Messages(vec![user("  It is  ")]));
    assert_eq!(rows_as(Some(TraceFormat::Lines), "{\"a\": 1}").unwrap().len(), 1);
}

#[test]
fn errors_name_line_and_field() {
    let mooncake = r#"{"timestamp": 0, "input_length": 5, "output_length": 7, "hash_ids": [0]}"#;
    let with = |from: &str, to: &str| format!("{mooncake}\n{}", mooncake.replace(from, to));
    check_error(
        &with("[0]", "[0, 1]"),
        ":2: field `hash_ids`: 2 ids, but an `input_length` of 5 is 1 blocks",
    );
    check_error(&with("[0]", "[\"a\"]"), ":2: field `hash_ids`: `\"a\"` is not an id");
    check_error(&with("input_length", "input"), ":2: field `input_length`: it is missing");
    check_error(&with("7", "7.5"), ":2: field `output_length`: `7.5` is not a number of tokens");
    check_error(&with("}", ""), ":2: it is not JSON");
    check_error("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,2", ":2: field `TIMESTAMP`: `x` is not a time");
    check_error(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1",
        ":2: field `GeneratedTokens`: the line ends",
    );
    check_error(r#"{"input_tokens": 5, "output": 3}"#, ":1: field `output`: there is no such field");
    check_error(r#"{"input_tokens": 5, "prompt": "x"}"#, ":1: a row needs one of the fields");
    check_error(r#"{"prompt": ""}"#, ":1: field `prompt`: it is empty");
    check_error(r#"{"pieces": [[1]]}"#, ":1: field `pieces`: `[1]` is not [id, tokens]");
    check_error(r#"{"messages": [{"role": "tool", "content": ""}]}"#, ":1: field `messages`: `role` is not");
    check_error(r#"{"prompt": "x", "arrival_ms": -1}"#, ":1: field `arrival_ms`: `-1` is not a time");
    check_error(r#"{"text": "x"}"#, ":1: no format has these fields");
    check_error(
        r#"[{"conversations": []}, {"conversations": 5}]"#,
        ": element 2: field `conversations`: `5` is not a list",
    );
    check_error(
        r#"[{"conversations": [{"from": "cat", "value": "x"}]}]"#,
        "`from` is not human, gpt or system",
    );
    check_error(r#"[{"conversations": []"#, ": element 1: it is not a list of conversations: EOF");
    check_error("", ": it is empty");
    let missing = read(Path::new("/nowhere/trace"), None, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(missing.to_string().starts_with("/nowhere/trace: No such file"), "{missing}");
}

#[test]
fn reading_ends_when_enough_was_read() {
    let text = format!("[{CONVERSATION}, nonsense");
    let mut count = 0;
    let format = Some(TraceFormat::Sharegpt);
    read(file(&text).path(), format, &mut |_| {
        count += 1;
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(count, 1);
}

#[test]
fn a_row_is_bounded() {
    let endless = || std::io::BufReader::new(std::io::repeat(b'x'));
    let error = lines::for_each(endless(), prompt, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!((error.place, error.problem.as_str()), (Place::Line(1), "the line is over 64 MiB"));
    let list = Cursor::new(b"[\"".to_vec());
    let endless = std::io::BufReader::new(std::io::Read::chain(list, endless()));
    let error = sharegpt::for_each(endless, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.problem.contains("an element is over 64 MiB"), "{}", error.problem);
}
