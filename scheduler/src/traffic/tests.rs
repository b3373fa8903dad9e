use baton_kv_index::Scope;
use serde_json::Value;

use super::*;

const BLOCK: u32 = 16;

fn keys(salt: Option<&str>, prompt: &[u32]) -> PromptKeys {
    PromptKeys::new(&Scope { model: "m", adapter: None, salt }, BLOCK, prompt)
}

/// A request comes.
fn come(traffic: &Traffic, at_ms: f64, prompt: &[u32], keys: Option<&PromptKeys>) -> Number {
    traffic.arrived(&Arrived { at_ms, prompt_tokens: prompt.len() as u64, keys, expected_tokens: 40.4 })
}

fn rows(traffic: &Arc<Traffic>, since_ms: f64) -> Vec<Value> {
    let (lines, count) = traffic.since(since_ms);
    let text: Vec<u8> = lines.flatten().collect();
    let rows: Vec<Value> = text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(rows.len(), count);
    rows
}

fn pieces(row: &Value) -> Vec<(u64, u64)> {
    let piece = |piece: &Value| (piece[0].as_u64().unwrap(), piece[1].as_u64().unwrap());
    row["pieces"].as_array().unwrap().iter().map(piece).collect()
}

#[test]
fn prompts_share_pieces_as_far_as_they_begin_alike() {
    let traffic = Arc::new(Traffic::new(1 << 20));
    let prompt: Vec<u32> = (0..1_000).collect();
    let mut other = prompt.clone();
    other[700] = 0;
    for (salt, prompt) in [(None, &prompt), (None, &other), (Some("s"), &prompt), (None, &prompt)] {
        come(&traffic, 0.0, prompt, Some(&keys(salt, prompt)));
    }
    come(&traffic, 0.0, &prompt, None);
    let rows: Vec<_> = rows(&traffic, 0.0).iter().map(pieces).collect();
    assert!(rows.iter().all(|row| row.iter().map(|piece| piece.1).sum::<u64>() == 1_000));
    let shared = |a: usize, b: usize| {
        let same = rows[a].iter().zip(&rows[b]).take_while(|(a, b)| a == b);
        same.map(|(piece, _)| piece.1).sum::<u64>()
    };
    assert_eq!((shared(0, 1), shared(0, 2), shared(0, 3), shared(0, 4)), (640, 0, 960, 0));
    assert_eq!(rows[4].len(), 1);
    let tails: std::collections::HashSet<u64> = rows.iter().map(|row| row.last().unwrap().0).collect();
    assert_eq!(tails.len(), rows.len(), "nobody shares a tail");
    assert!(rows.iter().flatten().all(|piece| piece.0 < 1 << 53));
    // Who knows a prompt knows its keys, and must not find them.
    let known = keys(None, &prompt);
    assert!(
        rows.iter()
            .flatten()
            .all(|piece| !known.keys().iter().any(|key| [*key, *key >> 11].contains(&piece.0)))
    );
}

#[test]
fn an_answer_is_what_was_expected_until_it_is_known() {
    let traffic = Arc::new(Traffic::new(1 << 20));
    let prompt = [7; 10];
    let numbers: Vec<Number> = (0..3).map(|at| come(&traffic, 1.5 * f64::from(at), &prompt, None)).collect();
    traffic.answered(numbers[1], 9);
    traffic.answered(numbers[2], 0);
    let told: Vec<_> = rows(&traffic, 0.0)
        .iter()
        .map(|row| (row["arrival_ms"].as_f64(), row["output_tokens"].as_u64()))
        .collect();
    assert_eq!(told, [(Some(0.0), Some(40)), (Some(1.5), Some(9)), (Some(3.0), Some(1))]);
    assert_eq!(rows(&traffic, 1.5).len(), 2);
    assert_eq!(rows(&traffic, 3.1).len(), 0);
}

#[test]
fn the_oldest_leave_when_there_is_no_room() {
    const MOST: usize = 20_000;
    let traffic = Arc::new(Traffic::new(MOST));
    let prompt: Vec<u32> = (0..500).collect();
    let keys = keys(None, &prompt);
    let first = come(&traffic, 0.0, &prompt, Some(&keys));
    assert_eq!(traffic.held().since_ms, 0.0);
    let (mut early, promised) = traffic.since(0.0);
    for at in 1..1_000 {
        come(&traffic, f64::from(at), &prompt, Some(&keys));
        assert!(traffic.held().bytes <= MOST);
    }
    let held = traffic.held();
    assert!((50..1_000).contains(&held.requests), "{held:?}");
    let last_gone = 999.0 - held.requests as f64;
    assert!(held.since_ms > last_gone && held.since_ms < last_gone + 1.0, "{held:?}");
    assert_eq!(rows(&traffic, held.since_ms).len(), held.requests);
    traffic.answered(first, 5);
    assert_eq!(rows(&traffic, 0.0)[0]["output_tokens"], 40, "what has left is not what is here");
    assert_eq!((early.next(), promised), (None, 1), "what leaves while it is told is passed over");
    let huge: Vec<u32> = vec![1; 4 << 20];
    come(&traffic, 2_000.0, &huge, Some(&self::keys(None, &huge)));
    assert_eq!(traffic.held().requests, 0, "one that is larger than all the room");
}

#[test]
fn long_records_are_told_in_turns() {
    let traffic = Arc::new(Traffic::new(1 << 20));
    for at in 0..1_000 {
        come(&traffic, f64::from(at), &[1; 100], None);
    }
    assert!(traffic.since(0.0).0.count() > 5);
    let times: Vec<_> = rows(&traffic, 0.0).iter().map(|row| row["arrival_ms"].as_f64().unwrap()).collect();
    assert_eq!(times, (0..1_000).map(f64::from).collect::<Vec<_>>());
}
