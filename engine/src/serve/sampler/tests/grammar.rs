//! Sampling under a grammar, with a vocabulary of single bytes and one end.

use std::sync::LazyLock;

use baton_grammar::{Grammar, Grammars, TokenBytes, Vocabulary, source};

use super::*;

const END: u32 = 256;
const LOGITS: usize = 300;

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let text = (0..=255).map(|byte| TokenBytes { bytes: vec![byte], is_special: false });
    let end = TokenBytes { bytes: b"<end>".to_vec(), is_special: true };
    let vocabulary = Vocabulary::new(text.chain([end]), LOGITS, &[END]).unwrap();
    Grammars::new(&vocabulary).unwrap()
});

fn compile(rule: &str) -> Grammar {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(GRAMMARS.compile(&source::whole(rule))).unwrap()
}

fn under(rule: &str, params: SamplingParams) -> Sampler {
    Sampler::new(SamplingParams { grammar: Some(compile(rule)), ..params }, &[END], &[])
}

/// Logits that differ for each token and index.
fn noise(index: u32) -> Vec<f32> {
    (0..LOGITS as u32).map(|id| draw::uniform(u64::from(id), index) as f32 * 8.0).collect()
}

/// The text, and whether it ended by itself.
fn generate(sampler: &mut Sampler, most: u32) -> (String, bool) {
    let (mut text, mut scratch) = (String::new(), Scratch::default());
    for index in 0..most {
        let id = sampler.sample(&noise(index), &mut scratch).unwrap().id;
        if sampler.ends_with(id) {
            return (text, true);
        }
        text.push(char::from(u8::try_from(id).unwrap()));
    }
    (text, false)
}

#[test]
fn only_what_the_grammar_allows_is_chosen_greedily_or_not() {
    for temperature in [0.0, 0.5, 1.5] {
        for seed in 0..20 {
            let params = SamplingParams { temperature, seed, ..params() };
            let (text, has_ended) = generate(&mut under("/[a-f]{3}(xy|z)/", params), 10);
            assert!(has_ended, "{text}");
            let (letters, rest) = text.split_at(3);
            assert!(
                letters.chars().all(|c| ('a'..='f').contains(&c)) && matches!(rest, "xy" | "z"),
                "{text}"
            );
        }
    }
}

#[test]
fn the_greedy_choice_is_the_most_likely_of_all_that_are_allowed() {
    let rule = "/([a-z]|[0-9]{2}|é)*/";
    let mut sampler = under(rule, SamplingParams { temperature: 0.0, repetition_penalty: 1.2, ..params() });
    let mut state = compile(rule).start();
    let mut history = History::new(&sampler.params, &[]);
    for index in 0..40 {
        let mut logits = noise(index);
        // Sometimes what is most likely is allowed, sometimes not.
        logits[usize::from(b'a') + index as usize % 26] += if index % 2 == 0 { 20.0 } else { 0.0 };
        let raw = logits.clone();
        history.penalise(&mut logits, &sampler.params);
        state.mask(&mut logits).unwrap();
        let best = math::argmax(&logits).unwrap();
        assert_eq!(sampler.sample(&raw, &mut Scratch::default()).unwrap().id, best);
        if best == END {
            break;
        }
        state.accept(best);
        history.record(best);
    }
}

#[test]
fn draws_follow_the_softmax_over_what_is_allowed() {
    let mut logits = vec![5.0; LOGITS];
    for (byte, p) in [(b'a', 0.5_f32), (b'b', 0.3), (b'c', 0.2)] {
        logits[usize::from(byte)] = p.ln();
    }
    let params = SamplingParams { grammar: Some(compile("/[a-c]x/")), ..params() };
    check_distribution(&params, &logits, &[(97, 0.5), (98, 0.3), (99, 0.2)]);
}

#[test]
fn a_complete_grammar_ends_the_output_even_before_min_tokens() {
    for temperature in [0.0, 1.0] {
        let params = SamplingParams { temperature, min_tokens: 5, ..params() };
        assert_eq!(generate(&mut under("\"ab\"", params.clone()), 9), ("ab".to_owned(), true));
        // Where it may go on, it does.
        let (text, has_ended) = generate(&mut under("/a{1,9}/", params), 20);
        assert!(has_ended && text.len() >= 5, "{text}");
    }
}

#[test]
fn another_workers_first_token_counts() {
    let mut sampler = under("\"ab\"", params());
    sampler.record(u32::from(b'a'));
    assert_eq!(generate(&mut sampler, 9), ("b".to_owned(), true));
}

#[test]
fn a_token_against_the_grammar_is_said_to_be_one() {
    let mut sampler = under("\"ab\"", params());
    sampler.record(u32::from(b'x'));
    let error = sampler.sample(&noise(0), &mut Scratch::default()).unwrap_err();
    assert!(matches!(error, NoToken::Grammar(_)), "{error:?}");
}

#[test]
fn a_grammar_needs_the_models_own_end() {
    let params = SamplingParams { ignore_eos: true, grammar: Some(compile("\"a\"")), ..params() };
    let error = params.validate(LOGITS).unwrap_err();
    assert_eq!(error.field, "ignore_eos");
}

#[test]
fn a_draft_is_cut_before_what_the_grammar_forbids_and_before_the_end() {
    let cut = |sampler: &mut Sampler, draft: &[u8], end: &[u32]| {
        let mut draft: Vec<u32> =
            draft.iter().map(|byte| u32::from(*byte)).chain(end.iter().copied()).collect();
        sampler.cut(&mut draft);
        draft.len()
    };
    for temperature in [0.0, 1.0] {
        let params = SamplingParams { temperature, seed: 3, ..params() };
        let mut sampler = under("/[a-f]{3}(xy|z)/", params.clone());
        assert_eq!(cut(&mut sampler, b"abcqq", &[]), 3);
        assert_eq!(cut(&mut sampler, b"abcz", &[END, 7]), 4);
        assert_eq!(cut(&mut sampler, b"abcxy", &[]), 5);
        assert_eq!(cut(&mut sampler, b"z", &[]), 0);
        assert_eq!(cut(&mut sampler, b"", &[END]), 0);
        // It is where it was.
        let undisturbed = generate(&mut under("/[a-f]{3}(xy|z)/", params), 10);
        assert_eq!(generate(&mut sampler, 10), undisturbed);
        assert_eq!(cut(&mut sampler, b"a", &[]), 0, "after the end there is nothing");
    }
}
