//! A model that babbles is the best test of a mask: every token is drawn at random among those that the grammar allows, so
//! whatever the grammar lets through that it should not comes out sooner or later.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant},
};

use baton_grammar::{Grammar, GrammarError, GrammarState, Grammars, TokenBytes, Vocabulary, source};
use baton_tokenizer::Tokenizer;
use proptest::{collection::vec, prelude::*, sample::subsequence};
use serde_json::{Map, Value, json};

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::load(Path::new("../models/baton-courier")).expect("the bundled model"));

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let tokens = TOKENIZER.vocabulary().expect("a byte-level vocabulary").into_iter();
    let tokens = tokens.map(|token| TokenBytes { bytes: token.bytes, is_special: token.is_special });
    let vocabulary = Vocabulary::new(tokens, logits(), TOKENIZER.eos_ids()).expect("it has an end");
    Grammars::new(&vocabulary).expect("a compiler")
});

/// A few more than there are tokens, as models have them.
fn logits() -> usize {
    TOKENIZER.vocab_size() as usize + 37
}

fn compile(rule: &str) -> Result<Grammar, GrammarError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(GRAMMARS.compile(&source::whole(rule)))
}

fn schema(value: &Value) -> Result<Grammar, GrammarError> {
    let Value::Object(schema) = value else { panic!("an object") };
    compile(&source::json_schema(schema, &source::SchemaStyle::default()))
}

fn allowed(state: &mut GrammarState) -> Vec<u32> {
    let mut row = vec![0.0; logits()];
    state.mask(&mut row).expect("it can be followed");
    (0..).zip(row).filter(|(_, logit)| *logit == 0.0).map(|(id, _)| id).collect()
}

/// SplitMix64.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 29)
}

/// One of the tokens, by its first byte first: there are hundreds of tokens for digits, and one for a bracket.
fn pick(ids: &[u32], seed: &mut u64) -> u32 {
    let mut by_byte: BTreeMap<Option<u8>, Vec<u32>> = BTreeMap::new();
    for &id in ids {
        by_byte.entry(TOKENIZER.token_bytes(id).first().copied()).or_default().push(id);
    }
    let mut index = |len: usize| usize::try_from(next(seed) % len as u64).expect("small");
    let group = by_byte.values().nth(index(by_byte.len())).expect("it is one of them");
    group[index(group.len())]
}

/// Random allowed tokens up to the end of the text; `None` when it is not over after `most`. `at_end` is told the text
/// wherever it might end.
fn babble(grammar: &Grammar, mut seed: u64, most: usize, at_end: impl Fn(&str)) -> Option<String> {
    let (mut state, mut ids) = (grammar.start(), Vec::new());
    let ends = TOKENIZER.eos_ids();
    for _ in 0..most {
        let allowed = allowed(&mut state);
        assert!(!allowed.is_empty(), "a dead end after {:?}", TOKENIZER.decode(&ids, false));
        let others: Vec<u32> = allowed.iter().copied().filter(|id| !ends.contains(id)).collect();
        assert!(
            others.len() == allowed.len() || others.len() + ends.len() == allowed.len(),
            "all ends, or none"
        );
        if others.len() < allowed.len() {
            let text = TOKENIZER.decode(&ids, false);
            at_end(&text);
            if others.is_empty() || next(&mut seed).is_multiple_of(2) {
                return Some(text);
            }
        }
        let id = pick(&others, &mut seed);
        state.accept(id);
        ids.push(id);
    }
    None
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "null"})),
        Just(json!({"const": {"a": [1, "b\"ü"]}})),
        Just(json!({"enum": ["red", "grün", 7, null]})),
        Just(json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"})),
        Just(json!({"type": "string", "format": "date"})),
        (0..4_u32, 0..6_u32).prop_map(
            |(least, more)| json!({"type": "string", "minLength": least, "maxLength": least + more})
        ),
        (-50..50_i32, 0..500_i32)
            .prop_map(|(least, more)| json!({"type": "integer", "minimum": least, "maximum": least + more})),
        (0..9_i32).prop_map(|most| json!({"type": "number", "exclusiveMinimum": -3, "maximum": most})),
    ]
}

fn object(members: Vec<Value>, required: Vec<usize>, is_open: bool) -> Value {
    let name = |at: usize| ["a", "the b", "c\"d", "é", "e"][at].to_owned();
    let required: Vec<String> = required.into_iter().filter(|at| *at < members.len()).map(name).collect();
    let properties: Map<String, Value> =
        members.into_iter().enumerate().map(|(at, member)| (name(at), member)).collect();
    let mut schema = json!({"type": "object", "properties": properties, "required": required});
    if !is_open {
        schema["additionalProperties"] = json!(false);
    }
    schema
}

fn any_schema() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 24, 4, |inner| {
        let members = vec(inner.clone(), 0..5);
        prop_oneof![
            (members, subsequence((0..5).collect::<Vec<_>>(), 0..=5), prop::bool::weighted(0.1))
                .prop_map(|(members, required, is_open)| object(members, required, is_open)),
            (inner.clone(), 0..3_u32, 0..3_u32).prop_map(|(items, least, more)| {
                json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})
            }),
            vec(inner.clone(), 1..3).prop_map(|options| json!({"anyOf": options})),
            inner.prop_map(|item| json!({"$defs": {"x": item}, "type": "array", "items": {"$ref": "#/$defs/x"}, "maxItems": 3})),
        ]
    })
}

/// References are read from the root: inner definitions move there.
fn hoisted(schema: Value) -> Value {
    fn walk(value: &mut Value, definitions: &mut Map<String, Value>) {
        if let Value::Object(map) = value {
            if let Some(Value::Object(mut own)) = map.remove("$defs") {
                let name = format!("d{}", definitions.len());
                definitions.insert(name.clone(), Value::Null);
                let mut item = own.remove("x").expect("the only one");
                walk(&mut item, definitions);
                definitions[&name] = item;
                map["items"] = json!({"$ref": format!("#/$defs/{name}")});
            }
            map.values_mut().for_each(|value| walk(value, definitions));
        } else if let Value::Array(items) = value {
            items.iter_mut().for_each(|item| walk(item, definitions));
        }
    }
    let (mut schema, mut definitions) = (schema, Map::new());
    walk(&mut schema, &mut definitions);
    if !definitions.is_empty() {
        schema["$defs"] = Value::Object(definitions);
    }
    schema
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_out_fits_the_schema_wherever_it_may_end(schema_of in any_schema(), seed: u64) {
        let schema_of = hoisted(schema_of);
        let grammar = match schema(&schema_of) {
            Ok(grammar) => grammar,
            Err(error) => panic!("{error}: {schema_of}"),
        };
        let validator = jsonschema::options().should_validate_formats(true).build(&schema_of).expect("a schema");
        for run in 0..4 {
            babble(&grammar, seed ^ run, 600, |text| {
                let value: Value = match serde_json::from_str(text) {
                    Ok(value) => value,
                    // 1E999 is JSON, and beyond what this reader holds.
                    Err(error) if error.to_string().starts_with("number out of range") => return,
                    Err(error) => panic!("{error}: {text}"),
                };
                assert!(validator.is_valid(&value), "{text} does not fit {schema_of}");
            });
        }
    }
}

#[test]
fn most_babble_comes_to_an_end() {
    // Otherwise the test above would say little.
    let grammar =
        schema(&object(vec![json!({"type": "integer"}), json!({"enum": ["x"]})], vec![0, 1], false));
    let grammar = grammar.unwrap();
    let ended = (0..50).filter(|seed| babble(&grammar, *seed, 300, |_| {}).is_some()).count();
    assert!(ended >= 35, "{ended} of 50");
}

#[test]
fn asking_about_one_token_agrees_with_the_mask() {
    let rules = [
        source::json_object(&source::SchemaStyle::default()),
        source::regex("(ab|a[0-9]{2,4}|é+)x?"),
        source::choice(&["yes", "no \"really\"\n", "não"]),
        format!("{} {}", source::token(TOKENIZER.added_token("<|im_start|>").unwrap()), source::regex("a*")),
    ];
    for rule in rules {
        let grammar = compile(&rule).unwrap_or_else(|error| panic!("{error}: {rule}"));
        for mut seed in 0..8 {
            let mut state = grammar.start();
            for _ in 0..12 {
                let from_mask = allowed(&mut state);
                let mut one_by_one = Vec::new();
                for id in 0..TOKENIZER.vocab_size() {
                    if state.allows(id).unwrap() {
                        one_by_one.push(id);
                    }
                }
                assert_eq!(from_mask, one_by_one, "{rule}");
                state.accept(pick(&from_mask, &mut seed));
            }
        }
    }
}

#[test]
fn a_worker_that_takes_over_after_the_first_token_allows_the_same() {
    let grammar = compile(&source::json_object(&source::SchemaStyle::default())).unwrap();
    for mut seed in 0..10 {
        let (mut whole, mut second_leg) = (grammar.start(), grammar.start());
        let first = pick(&allowed(&mut whole), &mut seed);
        whole.accept(first);
        second_leg.accept(first);
        for _ in 0..30 {
            let ids = allowed(&mut whole);
            assert_eq!(ids, allowed(&mut second_leg));
            let id = pick(&ids, &mut seed);
            whole.accept(id);
            second_leg.accept(id);
        }
    }
}

#[test]
fn regular_expressions_and_choices_are_matched_from_end_to_end() {
    let grammar = compile(&source::regex("[a-c]{2}(/|#)x{1,3}")).unwrap();
    for seed in 0..40 {
        let text = babble(&grammar, seed, 50, |_| {}).expect("it is finite");
        let rest = text.trim_start_matches(['a', 'b', 'c']);
        assert!(
            text.len() - rest.len() == 2 && matches!(rest, "/x" | "/xx" | "/xxx" | "#x" | "#xx" | "#xxx"),
            "{text}"
        );
    }
    let choices = ["yes", "no \"really\"\n", "yesterday"];
    let grammar = compile(&source::choice(&choices)).unwrap();
    let said: std::collections::BTreeSet<String> =
        (0..60).map(|seed| babble(&grammar, seed, 50, |_| {}).expect("it is finite")).collect();
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|text| choices.contains(&text.as_str())), "{said:?}");
}

#[test]
fn a_grammar_may_be_recursive() {
    let lark = "start: expr\nexpr: NUMBER | \"(\" expr \"+\" expr \")\"\nNUMBER: /[0-9]{1,2}/";
    let grammar = compile(&source::nested(lark)).unwrap();
    let ended: Vec<String> = (0..30).filter_map(|seed| babble(&grammar, seed, 100, |_| {})).collect();
    assert!(ended.iter().any(|text| text.contains('+')), "{ended:?}");
    for text in ended {
        let open = text.matches('(').count();
        assert_eq!((open, open), (text.matches(')').count(), text.matches('+').count()), "{text}");
    }
}

#[test]
fn white_space_is_allowed_but_not_without_end() {
    let grammar = compile(&source::json_object(&source::SchemaStyle::default())).unwrap();
    let mut state = grammar.start();
    let id = |text: &str| {
        let ids = TOKENIZER.encode(text, false).unwrap();
        assert_eq!(ids.len(), 1, "{text:?} is one token");
        ids[0]
    };
    state.accept(id("{"));
    assert!(state.allows(id(" ")).unwrap() && state.allows(id("\n")).unwrap());
    state.accept(id("\n"));
    for _ in 0..32 {
        assert!(!state.allows(id("\n")).unwrap(), "a second line break");
        assert!(state.allows(id(" ")).unwrap());
        state.accept(id(" "));
    }
    assert!(!state.allows(id(" ")).unwrap());
}

#[test]
fn what_is_no_grammar_is_refused_with_a_reason() {
    let refusals = [
        (schema(&json!({"type": "strnig"})), "strnig"),
        (
            schema(&json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}})),
            "regex",
        ),
        (schema(&json!({"type": "array", "uniqueItems": true})), "uniqueItems"),
        (schema(&json!({"$ref": "#/$defs/nowhere"})), "nowhere"),
        (schema(&json!({"$ref": "http://elsewhere.example/schema"})), "elsewhere"),
        (schema(&json!({"type": "integer", "minimum": 3, "maximum": 2})), "minimum"),
        (compile(&source::regex("(")), "unclosed"),
        (compile(&source::regex("(?=a)b")), "look"),
        (compile(&source::nested("start: nowhere")), "nowhere"),
        (compile(&source::regex(&"a".repeat(300_000))), "limit is 262144"),
    ];
    for (outcome, part) in refusals {
        let error = outcome.expect_err(part).to_string();
        assert!(error.contains(part) && error.len() < 600 && !error.contains("<state>"), "{part}: {error}");
    }
}

#[test]
fn a_token_that_is_not_allowed_breaks_the_sequence_and_says_so() {
    let mut state = compile(&source::choice(&["yes"])).unwrap().start();
    state.accept(TOKENIZER.encode("no", false).unwrap()[0]);
    let error = state.mask(&mut vec![0.0; logits()]).unwrap_err();
    assert_eq!(state.allows(0).unwrap_err(), error);
}

#[test]
fn a_grammar_made_to_be_slow_costs_bounded_time() {
    for pattern in ["((((a{1,1000}){1,1000}){1,1000}){1,1000})", "(.*a.{40}|.*b.{50})", "(a?){300}a{300}"] {
        let started = Instant::now();
        let Ok(grammar) = compile(&source::regex(pattern)) else { continue };
        let (mut state, a) = (grammar.start(), TOKENIZER.encode("a", false).unwrap()[0]);
        for _ in 0..50 {
            if state.mask(&mut vec![0.0; logits()]).is_err() {
                break;
            }
            state.accept(a);
        }
        // Without limits it would be hours, or gigabytes.
        assert!(started.elapsed() < Duration::from_secs(20), "{pattern}: {:?}", started.elapsed());
    }
}
