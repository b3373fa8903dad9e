//! Every path through a request, as what happens and what is then done, in words.

use std::time::Duration;

use baton_proto::v1::{
    Failure, FailureKind, FinishReason, PrefillCandidate, Token, Tokens, decode_command::Command,
    decode_event as decode, generate_event::Event as Terminal, prefill_event as prefill,
};
use bytes::Bytes;

use super::{Action, Cause, Input, Patience, Plan, record::Setback};

const NOW: Duration = Duration::from_millis(70);

/// A plan, driven in words.
struct Driven(Plan);

impl Driven {
    /// With candidates `p1`, `p2`, … and at most two tries.
    fn with(candidates: usize) -> Self {
        let candidate = |n| PrefillCandidate {
            worker_id: format!("p{n}"),
            incarnation: 1,
            endpoint: format!("10.0.0.{n}:1"),
            block_tokens: 16,
        };
        Self(Plan::new("d".to_owned(), (1..=candidates).map(candidate).collect(), 2))
    }

    /// `input` leads to exactly `expected`.
    #[track_caller]
    fn check(&mut self, input: Input, expected: &[&str]) -> &mut Self {
        let said = format!("{input:?}");
        let actions: Vec<String> =
            self.0.on(input, NOW).into_iter().map(|action| in_words(action, self.0.prefilled_by())).collect();
        assert_eq!(actions, expected, "after {said}");
        self
    }

    /// Up to the call to `p1`.
    fn prefilling(candidates: usize) -> Self {
        let mut this = Self::with(candidates);
        this.check(reserved(), &["expect p1 #1"]).check(ticket(1), &["run p1"]);
        this
    }

    /// Up to the first token, 7, of `p1`.
    fn started(candidates: usize) -> Self {
        let mut this = Self::prefilling(candidates);
        this.check(first(7), &["emit [7]", "start 7 #1"]);
        this
    }

    fn causes(&self) -> Vec<Cause> {
        self.0.record().setbacks.iter().map(|setback| setback.cause).collect()
    }
}

fn in_words(action: Action, prefilled_by: &str) -> String {
    match action {
        Action::Tell(Command::Open(_)) => "open".to_owned(),
        Action::Tell(Command::Expect(expect)) => {
            format!("expect {} #{}", expect.prefill_worker, expect.attempt)
        }
        Action::Tell(Command::Start(start)) => {
            format!("start {} #{}", start.first_token.unwrap().id, start.attempt)
        }
        Action::Tell(Command::PrefillLocally(_)) => "prefill locally".to_owned(),
        Action::RunPrefill { candidate, ticket } => {
            assert_eq!(ticket, Bytes::from_static(b"ticket"));
            format!("run {}", candidate.worker_id)
        }
        Action::DropPrefill => "drop prefill".to_owned(),
        Action::Emit(tokens) => format!("emit {:?}", tokens.iter().map(|token| token.id).collect::<Vec<_>>()),
        Action::End(Terminal::Finished(finished), _) => {
            format!("finished {:?}, prefilled by {prefilled_by}", finished.reason())
        }
        Action::End(Terminal::Failure(failure), _) => format!("failed {:?}", failure.kind()),
        Action::End(Terminal::Tokens(_), _) => panic!("tokens end nothing"),
    }
}

fn token(id: u32) -> Token {
    Token { id, logprob: None, top: Vec::new() }
}

fn reserved() -> Input {
    Input::Decode(decode::Event::Reserved(decode::Reserved { blocks: 3, queue_us: 5 }))
}

fn ticket(attempt: u32) -> Input {
    Input::Decode(decode::Event::Ticket(decode::Ticket { ticket: Bytes::from_static(b"ticket"), attempt }))
}

fn first(id: u32) -> Input {
    first_with(id, FinishReason::Unspecified)
}

fn first_with(id: u32, finish: FinishReason) -> Input {
    Input::Prefill(prefill::Event::FirstToken(prefill::FirstToken {
        token: Some(token(id)),
        finish: finish.into(),
        queue_us: 1_000,
        prefill_us: 50_000,
        cached_prompt_tokens: 16,
    }))
}

fn pushed() -> Input {
    Input::Prefill(prefill::Event::Pushed(prefill::Pushed {
        bytes: 10,
        writes: 2,
        link_bytes_per_second: 1_000,
    }))
}

fn prefill_failure() -> Input {
    let failure = Failure { kind: FailureKind::Overloaded.into(), message: "queue full".to_owned() };
    Input::Prefill(prefill::Event::Failure(failure))
}

fn prefill_lost(unreachable: bool) -> Input {
    Input::PrefillLost { unreachable, reason: "gone".to_owned() }
}

fn silent() -> Input {
    Input::PatienceEnded(Duration::from_secs(1))
}

fn transfer_done(attempt: u32) -> Input {
    Input::Decode(decode::Event::TransferDone(decode::TransferDone { bytes: 10, transfer_us: 900, attempt }))
}

fn transfer_failed(attempt: u32) -> Input {
    let failed = decode::TransferFailed { reason: "peer lost".to_owned(), attempt };
    Input::Decode(decode::Event::TransferFailed(failed))
}

fn tokens(ids: &[u32]) -> Input {
    Input::Decode(decode::Event::Tokens(Tokens { tokens: ids.iter().map(|&id| token(id)).collect() }))
}

fn prefilled() -> Input {
    Input::Decode(decode::Event::Prefilled(decode::Prefilled {
        queue_us: 3,
        prefill_us: 40_000,
        cached_prompt_tokens: 32,
    }))
}

fn done() -> Input {
    let reason = FinishReason::Stop.into();
    Input::Decode(decode::Event::Done(decode::Done { reason, decode_us: 8_000, decode_wait_us: 600 }))
}

#[test]
fn both_legs_serve_and_the_first_token_does_not_wait_for_the_transfer() {
    let mut plan = Driven::started(1);
    plan.check(pushed(), &[])
        .check(transfer_done(1), &[])
        .check(tokens(&[8, 9]), &["emit [8, 9]"])
        .check(tokens(&[10]), &["emit [10]"])
        .check(done(), &["finished Stop, prefilled by p1"]);
    let record = plan.0.record();
    assert_eq!(
        (record.queue_us, record.prefill_us, record.transfer_us, record.decode_us),
        (20_000, 50_000, 900, 8_000)
    );
    assert_eq!((record.first_token_at, record.cached_prompt_tokens), (Some(NOW), 16));
    assert!(record.setbacks.is_empty() && !plan.0.is_local());
}

#[test]
fn the_transfer_may_be_done_before_the_prefill_worker_says_that_it_pushed() {
    Driven::started(1)
        .check(transfer_done(1), &[])
        .check(pushed(), &[])
        .check(prefill_lost(false), &[])
        .check(tokens(&[8]), &["emit [8]"])
        .check(done(), &["finished Stop, prefilled by p1"]);
}

#[test]
fn without_candidates_the_decode_worker_prefills() {
    let mut plan = Driven::with(0);
    plan.check(reserved(), &["prefill locally"])
        .check(prefilled(), &[])
        .check(tokens(&[7]), &["emit [7]"])
        .check(tokens(&[8]), &["emit [8]"])
        .check(done(), &["finished Stop, prefilled by d"]);
    let record = plan.0.record();
    assert_eq!((record.queue_us, record.prefill_us, record.cached_prompt_tokens), (70_003, 40_000, 32));
}

#[test]
fn the_account_is_given_whenever_it_says_more() {
    let mut plan = Driven::prefilling(1);
    assert_eq!(plan.0.news(), None);
    plan.check(first(7), &["emit [7]", "start 7 #1"]);
    let account = plan.0.news().unwrap();
    let timing = account.timing.unwrap();
    assert_eq!((account.prefill_worker.as_str(), account.cached_prompt_tokens), ("p1", 16));
    assert_eq!((timing.prefill_us, timing.transfer_us), (50_000, 0));

    plan.check(transfer_done(1), &[]).check(tokens(&[8]), &["emit [8]"]);
    assert_eq!(plan.0.news().unwrap().timing.unwrap().transfer_us, 900);
    plan.check(tokens(&[9]), &["emit [9]"]);
    assert_eq!(plan.0.news(), None, "nothing new");
    plan.check(done(), &["finished Stop, prefilled by p1"]);
    let timing = plan.0.account().timing.unwrap();
    assert_eq!((timing.decode_us, timing.decode_wait_us), (8_000, 600));
}

#[test]
fn a_first_token_that_ends_the_request_starts_no_decoding() {
    Driven::prefilling(1)
        .check(first_with(2, FinishReason::Stop), &["emit [2]", "finished Stop, prefilled by p1"]);
}

#[test]
fn every_setback_before_the_first_token_leads_to_the_next_candidate() {
    for (setback, cause) in [
        (prefill_failure(), Cause::PrefillFailed),
        (prefill_lost(true), Cause::PrefillUnreachable),
        (prefill_lost(false), Cause::PrefillLost),
        (silent(), Cause::PrefillSilent),
        (pushed(), Cause::PrefillProtocol),
        (transfer_failed(1), Cause::TransferFailed),
    ] {
        let mut plan = Driven::prefilling(2);
        plan.check(setback, &["drop prefill", "expect p2 #2"])
            .check(ticket(2), &["run p2"])
            .check(first(7), &["emit [7]", "start 7 #2"])
            .check(transfer_done(2), &[])
            .check(tokens(&[8]), &["emit [8]"])
            .check(done(), &["finished Stop, prefilled by p2"]);
        assert_eq!(plan.causes(), [cause]);
    }
}

#[test]
fn every_setback_after_the_first_token_is_repaired_without_sending_it_again() {
    for (setback, cause) in [
        (prefill_failure(), Cause::PrefillFailed),
        (prefill_lost(false), Cause::PrefillLost),
        (silent(), Cause::PrefillSilent),
        (first(7), Cause::PrefillProtocol),
        (transfer_failed(1), Cause::TransferFailed),
    ] {
        let mut plan = Driven::started(2);
        plan.check(setback, &["drop prefill", "expect p2 #2"])
            .check(ticket(2), &["run p2"])
            .check(first(7), &["start 7 #2"])
            .check(transfer_done(2), &[])
            .check(tokens(&[8]), &["emit [8]"]);
        assert_eq!(plan.causes(), [cause]);
    }
}

#[test]
fn after_the_push_the_end_of_the_call_is_none_but_a_late_or_failed_transfer_is() {
    for (setback, cause) in [(silent(), Cause::HandoverLate), (transfer_failed(1), Cause::TransferFailed)] {
        let mut plan = Driven::started(1);
        plan.check(pushed(), &[]).check(prefill_lost(false), &[]);
        assert_eq!(plan.0.patience(), Patience::Handover);
        plan.check(setback, &["drop prefill", "prefill locally"]);
        assert_eq!(plan.causes(), [cause]);
    }
}

#[test]
fn when_candidates_are_exhausted_the_decode_worker_prefills_and_repeats_no_token() {
    let mut plan = Driven::started(3);
    plan.check(prefill_lost(false), &["drop prefill", "expect p2 #2"])
        .check(ticket(2), &["run p2"])
        .check(silent(), &["drop prefill", "prefill locally"])
        .check(tokens(&[7, 8]), &["emit [8]"])
        .check(done(), &["finished Stop, prefilled by d"]);
    assert!(plan.0.is_local());
    assert_eq!(plan.0.record().fallback(), "p1: gone; p2: no sign of life for 1000 ms");
}

#[test]
fn a_local_first_token_is_the_clients_first_when_no_prefill_worker_got_that_far() {
    let mut plan = Driven::prefilling(1);
    plan.check(silent(), &["drop prefill", "prefill locally"])
        .check(tokens(&[7]), &["emit [7]"])
        .check(tokens(&[8]), &["emit [8]"]);
}

#[test]
fn a_repeated_first_token_that_differs_is_an_internal_error() {
    let mut remote = Driven::started(2);
    remote
        .check(prefill_failure(), &["drop prefill", "expect p2 #2"])
        .check(ticket(2), &["run p2"])
        .check(first(9), &["failed Internal"]);
    let mut local = Driven::started(1);
    local
        .check(prefill_failure(), &["drop prefill", "prefill locally"])
        .check(tokens(&[9]), &["failed Internal"]);
    assert!(remote.0.record().first_token_mismatch && local.0.record().first_token_mismatch);
}

#[test]
fn events_of_an_earlier_try_are_void() {
    Driven::started(2)
        .check(silent(), &["drop prefill", "expect p2 #2"])
        .check(transfer_failed(1), &[])
        .check(ticket(1), &[])
        .check(ticket(2), &["run p2"])
        .check(transfer_failed(1), &[])
        .check(first(7), &["start 7 #2"]);
}

#[test]
fn a_finished_transfer_wins_over_a_setback_that_crossed_it() {
    for candidates in [1, 2] {
        let mut plan = Driven::started(candidates);
        let retry = if candidates == 1 { "prefill locally" } else { "expect p2 #2" };
        let dropped: &[&str] = if candidates == 1 { &[] } else { &["drop prefill"] };
        plan.check(silent(), &["drop prefill", retry])
            .check(transfer_done(1), dropped)
            .check(tokens(&[8]), &["emit [8]"])
            .check(done(), &["finished Stop, prefilled by p1"]);
    }
}

#[test]
fn the_decode_workers_failure_or_loss_ends_the_request_wherever_it_is() {
    let stages: [fn() -> Driven; 5] = [
        || Driven::with(1),
        || {
            let mut plan = Driven::with(1);
            plan.check(reserved(), &["expect p1 #1"]);
            plan
        },
        || Driven::prefilling(1),
        || Driven::started(1),
        || {
            let mut plan = Driven::started(1);
            plan.check(transfer_done(1), &[]);
            plan
        },
    ];
    for stage in stages {
        let failure = Failure { kind: FailureKind::Invalid.into(), message: "too long".to_owned() };
        stage().check(Input::Decode(decode::Event::Failure(failure)), &["failed Invalid"]);
        stage().check(Input::DecodeLost("gone".to_owned()), &["failed Unavailable"]);
        stage().check(Input::DeadlinePassed, &["failed Deadline"]);
        stage().check(Input::Stopped, &["failed Unavailable"]);
    }
}

#[test]
fn nothing_follows_the_end() {
    let mut plan = Driven::with(1);
    plan.check(Input::DecodeLost("gone".to_owned()), &["failed Unavailable"]);
    for input in [reserved(), ticket(1), first(7), tokens(&[7]), done(), silent(), Input::DeadlinePassed] {
        plan.check(input, &[]);
    }
}

#[test]
fn what_the_contract_forbids_the_decode_worker_is_an_internal_error() {
    Driven::with(1).check(tokens(&[1]), &["failed Internal"]);
    Driven::with(1).check(done(), &["failed Internal"]);
    Driven::prefilling(1).check(reserved(), &["failed Internal"]);
    Driven::prefilling(1).check(transfer_done(1), &["failed Internal"]);
    Driven::started(1).check(transfer_done(2), &["failed Internal"]);
}

#[test]
fn patience_is_limited_only_while_a_prefill_worker_is_waited_for() {
    let mut plan = Driven::with(1);
    assert_eq!(plan.0.patience(), Patience::Unlimited);
    plan.check(reserved(), &["expect p1 #1"]);
    assert_eq!(plan.0.patience(), Patience::Unlimited);
    plan.check(ticket(1), &["run p1"]);
    assert_eq!(plan.0.patience(), Patience::Prefill);
    plan.check(first(7), &["emit [7]", "start 7 #1"]);
    assert_eq!(plan.0.patience(), Patience::Prefill);
    plan.check(pushed(), &[]);
    assert_eq!(plan.0.patience(), Patience::Handover);
    plan.check(transfer_done(1), &[]);
    assert_eq!(plan.0.patience(), Patience::Unlimited);
}

#[test]
fn a_setback_names_worker_and_reason() {
    let mut plan = Driven::prefilling(1);
    plan.check(prefill_failure(), &["drop prefill", "prefill locally"]);
    let expected =
        Setback { cause: Cause::PrefillFailed, worker: "p1".to_owned(), reason: "queue full".to_owned() };
    assert_eq!(plan.0.record().setbacks, [expected]);
}
