//! The YAML file: what it means, what it refuses, what it warns of.

mod common;

use baton_policy::{
    decide::Decider,
    estimate::{Term, Terms},
    profile::{Disaggregate, Filter, Influence, Picker, Profile, parse, warnings},
    record::Record,
    view::RequestView,
};

#[test]
fn an_empty_file_is_the_default() {
    for text in ["", "  \n", "{}", "disaggregate: estimate"] {
        assert_eq!(parse(text), Ok(Profile::default()), "{text:?}");
    }
}

#[test]
fn everything_can_be_said() {
    let profile = parse(
        "
filters:
  - name: drain
  - name: failed
    avoid-ms: 1500
  - name: label
    key: gpu
    value: h200
scorers:
  - name: estimate
    weight: 2
  - name: session
    weight: 0.5
point-ms: 40
picker:
  name: near-best
  within-ms: 5
disaggregate:
  threshold: 512
",
    )
    .expect("a profile");
    assert_eq!(
        profile.filters,
        [
            Filter::Drain,
            Filter::Failed { avoid_ms: 1_500.0 },
            Filter::Label { key: "gpu".to_owned(), value: "h200".to_owned() }
        ]
    );
    let expected = Term::ESTIMATE
        .into_iter()
        .fold(Terms::default().with(Term::Session, 20.0), |weights, term| weights.with(term, 2.0));
    assert_eq!(profile.weights, expected);
    assert_eq!(profile.picker, Picker::NearBest { within_ms: 5.0 });
    assert_eq!(profile.disaggregate, Disaggregate::Threshold { uncached_tokens: 512 });
}

#[test]
fn names_of_llm_d_mean_the_same() {
    let theirs = parse(
        "scorers: [{name: prefix-cache-scorer, weight: 3}, {name: kv-cache-utilization-scorer}, {name: queue-scorer}]
picker: {name: max-score-picker}",
    );
    let ours = parse("scorers: [{name: prefix, weight: 3}, {name: kv-usage}, {name: load}]");
    assert!(theirs.is_ok());
    assert_eq!(theirs, ours);
}

#[test]
fn mistakes_are_refused_with_their_line_and_what_is_allowed() {
    for (text, line, words) in [
        ("disaggregate: never\nscorer: []", 2, "scorers"),
        ("scorers:\n  - name: prefx", 2, "there is no scorer \"prefx\"; there are estimate, prefix, load"),
        ("scorers:\n  - name: prefix\n    wieght: 2", 3, "weight"),
        ("scorers:\n  - name: load\n  - name: queue-scorer", 3, "scorer load is there twice"),
        ("scorers:\n  - name: load\n    weight: -1", 3, "no number from 0 on"),
        ("filters:\n  - name: failed", 2, "failed needs avoid-ms"),
        ("filters:\n  - name: drain\n    key: gpu", 2, "drain has no key: it has no parameters"),
        ("picker:\n  name: best\n  within-ms: 3", 2, "best has no within-ms"),
        (
            "picker:\n  name: first",
            2,
            "there is no picker \"first\"; there are best, near-best, power-of-two",
        ),
        ("disaggregate: sometimes", 1, "estimate"),
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(&format!("line {line}")), "{text:?}: {error}");
        assert!(error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn weights_without_effect_are_named() {
    let warns = |text: &str| warnings(&parse(text).expect("a profile")).join("; ");
    assert_eq!(warns(""), "");
    assert_eq!(warns("scorers: [{name: estimate}, {name: session, weight: 3}]"), "");
    assert!(
        warns("scorers: [{name: prefix, weight: 5}]\ndisaggregate: always")
            .contains("prefix is the only scorer")
    );
    assert!(
        warns("scorers: [{name: prefix, weight: 0}]\ndisaggregate: always")
            .contains("no scorer has a weight")
    );
    assert!(warns("scorers: [{name: prefix}, {name: load}]").contains("use a threshold"));
    assert!(warns("scorers: [{name: estimate}, {name: topology}]\ndisaggregate: never").contains("topology"));
}

#[test]
fn a_scorer_that_never_decides_anything_is_found() {
    let profile = parse("scorers: [{name: estimate}, {name: session}, {name: adapter}]").expect("a profile");
    let mut influence = Influence::default();
    let mut decider = Decider::new(profile.clone());
    for dice in 0..1_000 {
        let fleet = common::random_fleet(2, 6, 1, dice % 50);
        let request = RequestView { dice, session_worker: Some(3), ..common::request() };
        let decision = decider.decide(&fleet, &request, 0.0).expect("somebody can");
        let record = Record::new(String::new(), &decision, profile.weights, &fleet, &request, 0.0);
        influence.note(&record);
    }
    assert_eq!(influence.idle(&profile), [Term::Adapter]);
    assert!(influence.share(Term::Session).is_some_and(|share| share > 0.0));
}
