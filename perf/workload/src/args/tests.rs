use std::{num::NonZeroU32, path::Path, time::Duration};

use clap::{CommandFactory as _, Parser};

use super::*;
use crate::{
    arrivals::{RateProfile, RateStep, Spacing},
    content::CountTokens as _,
    workload::{CancelAfter, Load, Source, TraceOutput},
};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    content: ContentArgs,
}

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(["bench"].into_iter().chain(line.split_whitespace()))
        .map_err(|error| error.to_string())
}

fn workload(line: &str) -> Workload {
    parse(line).unwrap().workload.workload().unwrap()
}

fn check_error(line: &str, problem: &str) {
    let error = parse(line).and_then(|cli| cli.workload.workload().map_err(|error| error.to_string()));
    let error = error.map(|_| ()).unwrap_err();
    assert!(error.contains(problem), "{line}: {error}");
}

fn open(profile: RateProfile, spacing: Spacing) -> Load {
    Load::Open { profile, spacing, max_in_flight: None }
}

#[test]
fn the_command_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn nothing_given_is_a_hundred_requests_one_by_one() {
    let workload = workload("");
    assert_eq!(workload.load, Load::Closed { concurrency: NonZeroU32::MIN });
    assert_eq!((workload.requests, workload.duration), (NonZeroU32::new(100), None));
    let Source::Synthetic(synthetic) = &workload.source else { panic!() };
    assert_eq!((synthetic.input.text(), synthetic.output.text()), ("512", "128"));
    assert!(synthetic.sessions.is_none() && synthetic.prefixes.is_none() && workload.cancel.is_none());
}

#[test]
fn loads_are_read() {
    let constant = |rate| RateProfile::constant(rate).unwrap();
    assert_eq!(workload("--rate 2.5").load, open(constant(2.5), Spacing::POISSON));
    assert_eq!(workload("--request-rate 2 --arrivals constant").load, open(constant(2.0), Spacing::Constant));
    assert_eq!(
        workload("--rate 2 --burstiness 0.5").load,
        open(constant(2.0), Spacing::Gamma { shape: 0.5 })
    );
    assert!(matches!(workload("--rate inf --max-in-flight 9").load, Load::AtOnce { max_in_flight: Some(_) }));
    let step = |from, to, seconds| RateStep { from, to, over: Duration::from_secs(seconds) };
    let ramp = workload("--rate-ramp 1-20:5m");
    assert_eq!(ramp.load, open(RateProfile::try_new([step(1.0, 20.0, 300)]).unwrap(), Spacing::POISSON));
    assert_eq!(ramp.requests, None);
    let steps = RateProfile::try_new([step(2.0, 2.0, 60), step(0.0, 0.0, 5)]).unwrap();
    assert_eq!(workload("--rate-steps 2x60s,0x5s").load, open(steps, Spacing::POISSON));
    let limited = workload("--concurrency 8 --duration 60s");
    assert_eq!((limited.requests, limited.duration), (None, Some(Duration::from_secs(60))));
}

#[test]
fn requests_are_read() {
    let workload = workload(
        "--input-tokens uniform:1-9 --prefix-tokens 100 --prefix-groups 3 --turns 2 --think-time exponential:mean=2s \
         --cancel-share 0.1 --cancel-after-time 1s --seed 7 -n 5",
    );
    let Source::Synthetic(synthetic) = &workload.source else { panic!() };
    assert_eq!(synthetic.prefixes.as_ref().map(|prefixes| prefixes.groups.get()), Some(3));
    let sessions = synthetic.sessions.as_ref().unwrap();
    assert_eq!((sessions.next_input.text(), sessions.think.text()), ("uniform:1-9", "exponential:mean=2s"));
    assert!(matches!(workload.cancel.as_ref().unwrap().after, CancelAfter::Time(_)));
    assert_eq!((workload.seed, workload.requests), (7, NonZeroU32::new(5)));
}

#[test]
fn a_trace_is_replayed_unless_there_is_another_load() {
    let replay =
        workload("--trace t.jsonl --time-scale 0.5 --spread --trace-skip 10m --max-context-tokens 4096");
    assert_eq!(replay.load, Load::Recorded { time_scale: 0.5, is_spread: true, max_in_flight: None });
    let Source::Trace(trace) = &replay.source else { panic!() };
    assert_eq!((trace.path.as_path(), trace.skip), (Path::new("t.jsonl"), Duration::from_secs(600)));
    assert!(matches!(&trace.output, TraceOutput::Recorded { otherwise } if otherwise.text() == "128"));
    assert_eq!(replay.requests, None);
    let paced = workload("--trace t.jsonl --concurrency 4 --output-tokens 9");
    assert!(matches!(paced.load, Load::Closed { .. }));
    assert!(matches!(&paced.source, Source::Trace(trace) if matches!(trace.output, TraceOutput::Drawn(_))));
}

#[test]
fn contradictions_are_refused() {
    check_error("--rate 2 --concurrency 3", "cannot be used with");
    check_error("--rate 2 --burstiness 1 --arrivals constant", "cannot be used with");
    check_error("--max-in-flight 3", "--max-in-flight is for open loops");
    check_error(
        "--trace t --rate 3 --time-scale 2",
        "--time-scale and --spread are for the trace's own times",
    );
    check_error("--trace t --input-tokens 5", "cannot be used with");
    check_error("--time-scale 2", "required");
    check_error("--think-time 2s", "required");
    check_error("--rate 0", "a number over 0");
    check_error("--rate-ramp 1-20", "FROM-TO:TIME");
    check_error("--rate-steps 2x60", "`60` is not a time");
    check_error("--cancel-share 1.5", "from 0 to 1");
    check_error("--input-tokens zipf:2", "write 1024, or one of");
    check_error("--duration 0s", "over 0");
    check_error("--trace t --trace-format csv", "mooncake, azure, jsonl, sharegpt, lines");
}

#[test]
fn content_comes_with_a_tokenizer_a_vocabulary_or_words() {
    let content = |line: &str| parse(line).unwrap().content.content(1);
    let words = content("").unwrap();
    assert!(!words.text.is_exact() && words.ids.is_none());
    assert_eq!(words.count("12345"), 2);
    assert!(content("--vocab-size 32000").unwrap().ids.is_some());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/baton-courier");
    let exact = content(&format!("--tokenizer {folder}")).unwrap();
    assert!(exact.text.is_exact() && exact.ids.is_some());
    assert_eq!(
        exact.count("Parcel 12 goes to Oslo."),
        exact.tokenizer.unwrap().encode("Parcel 12 goes to Oslo.", false).unwrap().len() as u32
    );
    assert!(matches!(content("--vocab-size 20"), Err(ContentError::Vocabulary(_))));
    assert!(matches!(content("--tokenizer /nowhere"), Err(ContentError::Tokenizer(_))));
}
