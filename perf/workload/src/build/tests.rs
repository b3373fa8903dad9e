use std::{num::NonZeroU32, time::Duration};

use super::*;
use crate::{
    arrivals::{RateProfile, Spacing},
    content::Estimate,
    plan::{Fill, Start},
    workload::{PrefixGroups, Sessions, Synthetic},
};

fn some(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

fn synthetic() -> Synthetic {
    Synthetic {
        input: "uniform:100-2000".parse().unwrap(),
        output: "lognormal:median=350,p99=1100".parse().unwrap(),
        prefixes: None,
        sessions: None,
    }
}

impl Workload {
    fn planned(&self) -> Plan {
        self.plan(&Estimate::default()).unwrap()
    }
}

fn open() -> Workload {
    Workload {
        seed: 42,
        load: Load::Open {
            profile: RateProfile::constant(5.0).unwrap(),
            spacing: Spacing::POISSON,
            max_in_flight: None,
        },
        requests: some(200),
        duration: None,
        source: Source::Synthetic(synthetic()),
        cancel: None,
    }
}

fn with_sessions(workload: Workload) -> Workload {
    let sessions = Sessions {
        turns: "3".parse().unwrap(),
        next_input: "10".parse().unwrap(),
        think: "exponential:mean=2s".parse().unwrap(),
    };
    let prefixes = PrefixGroups { groups: some(4).unwrap(), tokens: "uniform:200-300".parse().unwrap() };
    let synthetic = Synthetic { sessions: Some(sessions), prefixes: Some(prefixes), ..synthetic() };
    Workload { source: Source::Synthetic(synthetic), ..workload }
}

fn starts(plan: &Plan) -> Vec<Start> {
    plan.requests().iter().map(|request| request.start).collect()
}

fn inputs(plan: &Plan) -> Vec<u64> {
    plan.requests().iter().map(|request| request.prompt.tokens()).collect()
}

fn outputs(plan: &Plan) -> Vec<u32> {
    plan.requests().iter().map(|request| request.output_tokens).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let everything = Workload {
        cancel: Some(CancelShare { share: 0.3, after: CancelAfter::AnyToken }),
        ..with_sessions(open())
    };
    // Changes when what a seed stands for changes: then digest.rs has to say a new version.
    assert_eq!(
        everything.planned().sha256().to_string(),
        "d3b8a7437dc82852ab335531adb4378d3ac70c4cfdbd286cc049358710733a0f"
    );
    assert_eq!(everything.planned(), everything.planned());
    let other = Workload { seed: 43, ..everything.clone() };
    assert_ne!(everything.planned().sha256(), other.planned().sha256());
}

#[test]
fn changing_one_option_leaves_what_others_draw() {
    let plan = open().planned();
    let longer = Synthetic { output: "uniform:1-9".parse().unwrap(), ..synthetic() };
    let other = Workload { source: Source::Synthetic(longer), ..open() }.planned();
    assert_eq!((starts(&plan), inputs(&plan)), (starts(&other), inputs(&other)));
    assert_ne!(outputs(&plan), outputs(&other));

    let closed = Workload { load: Load::Closed { concurrency: some(8).unwrap() }, ..open() }.planned();
    assert_eq!((inputs(&plan), outputs(&plan)), (inputs(&closed), outputs(&closed)));
    assert_eq!(closed.pacing().concurrency, Some(8));

    let cancelled =
        Workload { cancel: Some(CancelShare { share: 1.0, after: CancelAfter::AnyToken }), ..open() };
    let cancelled = cancelled.planned();
    assert_eq!(
        (starts(&plan), inputs(&plan), outputs(&plan)),
        (starts(&cancelled), inputs(&cancelled), outputs(&cancelled))
    );
}

#[test]
fn a_longer_plan_begins_with_the_shorter() {
    for workload in [open(), with_sessions(open())] {
        let short = workload.planned();
        let long = Workload { requests: some(400), ..workload }.planned();
        assert_eq!((short.requests().len(), long.requests().len()), (200, 400));
        assert_eq!(short.requests(), &long.requests()[..200]);
    }
}

#[test]
fn a_time_limit_keeps_what_starts_before_it() {
    let limited = Workload { requests: None, duration: Some(Duration::from_secs(100)), ..open() };
    let plan = limited.planned();
    let last = plan.requests().last().unwrap();
    assert!((400..600).contains(&plan.requests().len()), "{}", plan.requests().len());
    assert!(matches!(last.start, Start::At(at) if at < Duration::from_secs(100)));
    assert_eq!(plan.pacing().duration, Some(Duration::from_secs(100)));
}

#[test]
fn each_turn_says_all_before_it_and_the_answers() {
    let plan = with_sessions(open()).planned();
    for pair in plan.requests().windows(2).filter(|pair| pair[1].turn > 0) {
        let [before, after] = pair else { unreachable!() };
        let (said, new) = after.prompt.pieces.split_at(before.prompt.pieces.len());
        assert_eq!(said, before.prompt.pieces);
        let [answer, input] = new else { panic!("{new:?}") };
        assert_eq!(
            (answer.fill, answer.tokens),
            (Fill::Answer { index: before.index }, before.output_tokens)
        );
        assert_eq!((input.fill, input.tokens), (Fill::Made, 10));
        assert_eq!((before.session, before.turn + 1), (after.session, after.turn));
        assert!(matches!(after.start, Start::After { index, .. } if index == before.index));
    }
    let turns = plan.requests().iter().map(|request| request.turn).collect::<Vec<_>>();
    assert_eq!(turns[..7], [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn prompts_share_the_prefixes_of_their_groups() {
    let plan = with_sessions(open()).planned();
    let mut of_group = [None; 4];
    for request in plan.requests() {
        let prefix = request.prompt.pieces[0];
        assert!((200..=300).contains(&prefix.tokens));
        assert_eq!(*of_group[prefix.id as usize].get_or_insert(prefix), prefix);
    }
    assert!(of_group.iter().all(Option::is_some));
}

#[test]
fn a_share_is_cancelled_within_what_was_asked_for() {
    let cancel =
        |after| Workload { requests: some(2000), cancel: Some(CancelShare { share: 0.25, after }), ..open() };
    let plan = cancel(CancelAfter::AnyToken).planned();
    let cancelled: Vec<_> = plan.requests().iter().filter(|request| request.cancel.is_some()).collect();
    assert!((430..570).contains(&cancelled.len()), "{}", cancelled.len());
    for request in cancelled {
        assert!(
            matches!(request.cancel, Some(Cancel::AfterTokens(n)) if (1..=request.output_tokens).contains(&n))
        );
    }
    let plan = cancel(CancelAfter::Time("150ms".parse().unwrap())).planned();
    assert!(plan.requests().iter().any(|r| r.cancel == Some(Cancel::AfterTime(Duration::from_millis(150)))));
}

#[test]
fn loads_without_end_and_without_requests_are_refused() {
    let endless = Workload { requests: None, ..open() };
    assert!(matches!(endless.plan(&Estimate::default()), Err(PlanError::Endless)));
    let closed = Workload { load: Load::Closed { concurrency: some(2).unwrap() }, ..endless.clone() };
    assert!(matches!(closed.plan(&Estimate::default()), Err(PlanError::Endless)));
    let timed = Workload { duration: Some(Duration::from_secs(10)), ..closed };
    assert_eq!(timed.planned().requests().len(), 400);
    let Source::Synthetic(synthetic) = with_sessions(open()).source else { unreachable!() };
    let sessions =
        Sessions { turns: "uniform:1-1001".parse().unwrap(), ..synthetic.sessions.clone().unwrap() };
    let long =
        Workload { source: Source::Synthetic(Synthetic { sessions: Some(sessions), ..synthetic }), ..open() };
    assert!(matches!(long.plan(&Estimate::default()), Err(PlanError::TooManyTurns { turns: 1001 })));
    let short = Workload { duration: Some(Duration::from_nanos(1)), ..endless };
    assert!(matches!(short.plan(&Estimate::default()), Err(PlanError::Empty)));
}

mod traces;
