//! Tokens that arrive one at a time give the text of all of them together.

mod common;

use baton_tokenizer::DetokenizeStream;
use common::{KINDS, golden, load};
use proptest::prelude::*;

fn deltas(kind: &str, prompt: &[u32], ids: &[u32], skip_special: bool) -> Vec<String> {
    let mut stream = DetokenizeStream::new(load(kind), prompt, skip_special);
    let mut deltas: Vec<String> = ids
        .iter()
        .map(|&id| {
            let mut delta = String::new();
            stream.push(id, &mut delta);
            delta
        })
        .collect();
    let mut rest = String::new();
    stream.finish(&mut rest);
    deltas.push(rest);
    deltas
}

#[test]
fn real_text_streams_to_itself() {
    let golden = golden();
    for kind in KINDS {
        for case in golden["texts"][kind].as_array().unwrap() {
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            for (skip, expected) in [(false, "decoded"), (true, "decoded_without_special")] {
                let deltas = deltas(kind, &[], &ids, skip);
                assert_eq!(deltas.concat(), case[expected].as_str().unwrap(), "{kind} {deltas:?}");
                let unfinished = deltas.iter().any(|delta| delta.contains(char::REPLACEMENT_CHARACTER));
                assert!(!unfinished, "{kind} showed part of a character: {deltas:?}");
            }
        }
    }
}

#[test]
fn a_characters_tokens_are_held_back_until_it_is_whole() {
    for kind in KINDS {
        let ids = load(kind).encode("a🦜", false).unwrap();
        let deltas = deltas(kind, &[], &ids, true);
        let shown: Vec<&str> = deltas.iter().map(String::as_str).filter(|delta| !delta.is_empty()).collect();
        assert_eq!(shown.concat(), "a🦜", "{kind}");
        assert_eq!(shown.last(), Some(&"🦜"), "{kind}: {deltas:?}");
    }
}

#[test]
fn a_character_that_never_ends_becomes_a_replacement_character_at_the_end() {
    for kind in KINDS {
        let mut ids = load(kind).encode("a🦜", false).unwrap();
        ids.pop();
        let deltas = deltas(kind, &[], &ids, true);
        let (last, before) = deltas.split_last().unwrap();
        assert_eq!(before.concat(), "a", "{kind}");
        assert!(
            last.chars().all(|c| c == char::REPLACEMENT_CHARACTER) && !last.is_empty(),
            "{kind}: {last:?}"
        );
    }
}

#[test]
fn the_first_word_keeps_the_space_that_parts_it_from_the_prompt() {
    let tokenizer = load("metaspace");
    let prompt = tokenizer.encode("Hello", true).unwrap();
    let answer = tokenizer.encode("world there", false).unwrap();
    assert_eq!(deltas("metaspace", &prompt, &answer, true).concat(), " world there");
    assert_eq!(deltas("metaspace", &[], &answer, true).concat(), "world there");
}

#[test]
fn bytes_that_are_no_text_do_not_hold_back_the_rest_for_ever() {
    let tokenizer = load("metaspace");
    let invalid: Vec<u32> = (0..50).map(|_| token_id(&tokenizer, "<0xFF>")).collect();
    let deltas = deltas("metaspace", &[], &invalid, true);
    assert!(deltas.iter().filter(|delta| !delta.is_empty()).count() > 5, "{deltas:?}");
    assert_eq!(deltas.concat().chars().count(), 50);
}

fn token_id(tokenizer: &baton_tokenizer::Tokenizer, spelling: &str) -> u32 {
    (0..tokenizer.vocab_size()).find(|&id| tokenizer.spelling(id).as_deref() == Some(spelling)).unwrap()
}

#[test]
fn a_tokens_bytes_are_its_part_of_the_text() {
    for kind in KINDS {
        let tokenizer = load(kind);
        let ids = tokenizer.encode("Hello", false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
        assert_eq!(String::from_utf8(bytes).unwrap().trim_start(), "Hello", "{kind}");
    }
    let tokenizer = load("byte-level");
    let parrot: Vec<u8> =
        tokenizer.encode("🦜", false).unwrap().iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
    assert_eq!(parrot, "🦜".as_bytes());
}

proptest! {
    /// Any ids at all, also ones that no text encodes to.
    #[test]
    fn any_tokens_stream_to_what_the_reference_decodes(ids in prop::collection::vec(0_u32..385, 0..60), skip: bool) {
        let streamed = deltas("byte-level", &[], &ids, skip).concat();
        prop_assert_eq!(streamed, load("byte-level").decode(&ids, skip));
    }
}
