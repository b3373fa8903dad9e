//! Decisions about one request.
//!
//! ```text
//!              ┌────────── next candidate ◄─────────── setback ──┐
//!              ▼                                                 │
//! Reserving ► AwaitingTicket ──ticket──► Remote ─────────────────┤
//!     │        │                          │ first token, start   │
//!     │        │ no candidate left        ▼ transfer done        │
//!     └────────┴──────► Local ──tokens─► Decoding ──done──► Over  (also: failure, decode worker lost, deadline)
//! ```

use std::{collections::VecDeque, time::Duration};

use baton_proto::v1::{
    Account, Failure, FailureKind, FinishReason, Finished, PrefillCandidate, Token,
    decode_command as command, decode_event as decode, generate_event::Event as Terminal,
    prefill_event as prefill,
};
use bytes::Bytes;

use super::record::{Cause, Outcome, Record, Setback, micros};

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Decode(decode::Event),
    /// The session with the decode worker broke.
    DecodeLost(String),
    Prefill(prefill::Event),
    /// The call to the prefill worker ended; the flag: it never began.
    PrefillLost {
        unreachable: bool,
        reason: String,
    },
    /// Waited for longer than [`Plan::patience`] allows.
    PatienceEnded(Duration),
    DeadlinePassed,
    /// The sidecar ends.
    Stopped,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Tell(command::Command),
    RunPrefill {
        candidate: PrefillCandidate,
        ticket: Bytes,
    },
    DropPrefill,
    Emit(Vec<Token>),
    /// The last one.
    End(Terminal, Outcome),
}

/// What is waited for with a limit other than the request's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Unlimited,
    /// The next sign of life of the prefill worker.
    Prefill,
    /// The decode worker's word that what was pushed has arrived.
    Handover,
}

/// The state of one request.
pub(crate) struct Plan {
    decode_worker: String,
    untried: VecDeque<PrefillCandidate>,
    /// Those tried, in order: try `n` is at `n - 1`.
    tried: Vec<PrefillCandidate>,
    phase: Phase,
    /// The first token, once the client has it.
    first: Option<Token>,
    /// Who computed the prompt that is decoded from.
    prefilled_by: String,
    record: Record,
    /// The account says more than it did when it was last asked for.
    has_news: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Reserving,
    AwaitingTicket,
    Remote {
        /// When its first token came, and `start` was sent.
        started_at: Option<Duration>,
        pushed: bool,
    },
    Local {
        since: Duration,
        has_tokens: bool,
    },
    Decoding,
    Over,
}

impl Plan {
    /// A request whose `open` was sent. At most `tries` of `candidates` are tried.
    pub(crate) fn new(decode_worker: String, candidates: Vec<PrefillCandidate>, tries: usize) -> Self {
        Self {
            prefilled_by: decode_worker.clone(),
            decode_worker,
            untried: candidates.into_iter().take(tries).collect(),
            tried: Vec::new(),
            phase: Phase::Reserving,
            first: None,
            record: Record::default(),
            has_news: false,
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        match self.phase {
            Phase::Remote { pushed: false, .. } => Patience::Prefill,
            Phase::Remote { pushed: true, .. } => Patience::Handover,
            Phase::Reserving
            | Phase::AwaitingTicket
            | Phase::Local { .. }
            | Phase::Decoding
            | Phase::Over => Patience::Unlimited,
        }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// How the request was served so far.
    pub(crate) fn account(&self) -> Account {
        Account {
            timing: Some(self.record.timing()),
            prefill_worker: self.prefilled_by.clone(),
            cached_prompt_tokens: self.record.cached_prompt_tokens,
            fallback: self.record.fallback(),
            transfer_bytes: self.record.transfer_bytes,
            link_bytes_per_second: self.record.link_bytes_per_second,
        }
    }

    /// The account, if it says more than at the last call.
    pub(crate) fn news(&mut self) -> Option<Account> {
        std::mem::take(&mut self.has_news).then(|| self.account())
    }

    /// Who computed the prompt.
    pub(crate) fn prefilled_by(&self) -> &str {
        &self.prefilled_by
    }

    /// Whether the decode worker computed the prompt.
    pub(crate) fn is_local(&self) -> bool {
        self.prefilled_by == self.decode_worker
    }

    /// Prefill workers tried.
    pub(crate) fn tries(&self) -> usize {
        self.tried.len()
    }

    /// The next step. `now` is the time since the request's arrival.
    pub(crate) fn on(&mut self, input: Input, now: Duration) -> Vec<Action> {
        if self.phase == Phase::Over {
            return Vec::new();
        }
        match input {
            Input::Decode(event) => self.on_decode(event, now),
            Input::DecodeLost(reason) => {
                let message = format!("decode worker {} was lost: {reason}", self.decode_worker);
                self.fail(FailureKind::Unavailable, message)
            }
            Input::Prefill(event) => self.on_prefill(event, now),
            Input::PrefillLost { unreachable, reason } => {
                let cause = if unreachable { Cause::PrefillUnreachable } else { Cause::PrefillLost };
                self.prefill_setback(cause, reason, now)
            }
            Input::PatienceEnded(waited) => self.on_patience_ended(waited, now),
            Input::DeadlinePassed => {
                let message =
                    format!("the request's deadline passed after {} ms, {}", now.as_millis(), self.stage());
                self.fail(FailureKind::Deadline, message)
            }
            Input::Stopped => {
                let message = format!("the sidecar of {} shuts down", self.decode_worker);
                self.fail(FailureKind::Unavailable, message)
            }
        }
    }

    fn on_decode(&mut self, event: decode::Event, now: Duration) -> Vec<Action> {
        match (event, &self.phase) {
            (decode::Event::Reserved(_), Phase::Reserving) => self.next_try(now),
            (decode::Event::Ticket(ticket), Phase::AwaitingTicket) if ticket.attempt == self.attempt() => {
                self.phase = Phase::Remote { started_at: None, pushed: false };
                match self.tried.last() {
                    Some(candidate) => {
                        vec![Action::RunPrefill { candidate: candidate.clone(), ticket: ticket.ticket }]
                    }
                    None => self.surprise("a ticket"),
                }
            }
            (decode::Event::TransferDone(done), _) => self.on_transfer_done(&done, now),
            (decode::Event::TransferFailed(failed), Phase::AwaitingTicket | Phase::Remote { .. })
                if failed.attempt == self.attempt() =>
            {
                self.setback(Cause::TransferFailed, format!("transfer failed: {}", failed.reason), now)
            }
            // Of an earlier try.
            (decode::Event::Ticket(_) | decode::Event::TransferFailed(_), _) => Vec::new(),
            (decode::Event::Tokens(tokens), Phase::Decoding) => vec![Action::Emit(tokens.tokens)],
            (decode::Event::Tokens(tokens), Phase::Local { since, has_tokens }) => {
                let (since, has_tokens) = (*since, *has_tokens);
                self.phase = Phase::Local { since, has_tokens: true };
                if has_tokens {
                    vec![Action::Emit(tokens.tokens)]
                } else {
                    self.first_local_tokens(tokens.tokens, now)
                }
            }
            (decode::Event::Prefilled(prefilled), Phase::Local { since, has_tokens: false }) => {
                let since = *since;
                self.on_local_prefill(&prefilled, since)
            }
            (decode::Event::Done(done), Phase::Decoding | Phase::Local { .. }) => self.on_done(&done),
            (decode::Event::Failure(failure), _) => self.end_failed(failure),
            (decode::Event::Reserved(_), _) => self.surprise("a second reservation"),
            (decode::Event::Prefilled(_), _) => self.surprise("a prefill that was not asked for"),
            (decode::Event::Tokens(_), _) => self.surprise("tokens of a sequence that was not started"),
            (decode::Event::Done(_), _) => self.surprise("the end of a sequence that was not started"),
        }
    }

    /// Wins over a setback that crossed it on the wire.
    fn on_transfer_done(&mut self, done: &decode::TransferDone, now: Duration) -> Vec<Action> {
        let started_at = match self.phase {
            Phase::Remote { started_at, .. } if done.attempt == self.attempt() => started_at,
            Phase::AwaitingTicket | Phase::Remote { .. } | Phase::Local { has_tokens: false, .. } => {
                self.record.first_token_at
            }
            Phase::Reserving | Phase::Local { .. } | Phase::Decoding | Phase::Over => None,
        };
        let (Some(started_at), Some(by)) =
            (started_at, self.tried.get(done.attempt.wrapping_sub(1) as usize))
        else {
            return self.surprise("a transfer that was not started");
        };
        self.prefilled_by = by.worker_id.clone();
        self.record.transfer_us = done.transfer_us;
        self.record.transfer_bytes = done.bytes;
        self.record.handover = Some(now.saturating_sub(started_at));
        self.has_news = true;
        // The call that served ends by itself; one of a later try is of no use any more.
        let is_current = done.attempt == self.attempt();
        self.phase = Phase::Decoding;
        if is_current { Vec::new() } else { vec![Action::DropPrefill] }
    }

    fn on_done(&mut self, done: &decode::Done) -> Vec<Action> {
        self.record.decode_us = done.decode_us;
        self.record.decode_wait_us = done.decode_wait_us;
        self.finish(done.reason())
    }

    fn on_local_prefill(&mut self, prefilled: &decode::Prefilled, since: Duration) -> Vec<Action> {
        self.record.queue_us = micros(since) + prefilled.queue_us;
        self.record.prefill_us = prefilled.prefill_us;
        self.record.cached_prompt_tokens = prefilled.cached_prompt_tokens;
        self.has_news = true;
        Vec::new()
    }

    fn first_local_tokens(&mut self, mut tokens: Vec<Token>, now: Duration) -> Vec<Action> {
        let Some(local) = tokens.first() else { return Vec::new() };
        if let Some(sent) = &self.first {
            if sent.id != local.id {
                return self.mismatch(sent.id, local.id);
            }
            tokens.remove(0);
        } else {
            self.first_token_is(local.clone(), now);
        }
        if tokens.is_empty() { Vec::new() } else { vec![Action::Emit(tokens)] }
    }

    fn on_prefill(&mut self, event: prefill::Event, now: Duration) -> Vec<Action> {
        let Phase::Remote { started_at, pushed } = self.phase else { return Vec::new() };
        match event {
            prefill::Event::Alive(_) => Vec::new(),
            prefill::Event::FirstToken(first) if started_at.is_none() => self.on_first_token(first, now),
            prefill::Event::FirstToken(_) => {
                self.setback(Cause::PrefillProtocol, "sent a second first token".to_owned(), now)
            }
            prefill::Event::Pushed(done) if started_at.is_some() && !pushed => {
                self.record.link_bytes_per_second = done.link_bytes_per_second;
                self.phase = Phase::Remote { started_at, pushed: true };
                Vec::new()
            }
            prefill::Event::Pushed(_) => {
                self.setback(Cause::PrefillProtocol, "reported its push out of turn".to_owned(), now)
            }
            prefill::Event::Failure(failure) => self.setback(Cause::PrefillFailed, failure.message, now),
        }
    }

    fn on_first_token(&mut self, first: prefill::FirstToken, now: Duration) -> Vec<Action> {
        let finish = first.finish();
        let Some(token) = first.token else {
            return self.setback(
                Cause::PrefillProtocol,
                "sent a first token without a token".to_owned(),
                now,
            );
        };
        let mut actions = Vec::new();
        if let Some(sent) = &self.first {
            if sent.id != token.id {
                return self.mismatch(sent.id, token.id);
            }
        } else {
            self.first_token_is(token.clone(), now);
            actions.push(Action::Emit(vec![token.clone()]));
        }
        // Until the prefill began, whatever it was that took the time.
        self.record.queue_us = micros(now).saturating_sub(first.prefill_us);
        self.record.prefill_us = first.prefill_us;
        self.record.cached_prompt_tokens = first.cached_prompt_tokens;
        if let Some(by) = self.tried.last() {
            self.prefilled_by = by.worker_id.clone();
        }
        self.has_news = true;
        if finish != FinishReason::Unspecified {
            actions.extend(self.finish(finish));
            return actions;
        }
        self.phase = Phase::Remote { started_at: Some(now), pushed: false };
        let start = command::Start { first_token: Some(token), attempt: self.attempt() };
        actions.push(Action::Tell(command::Command::Start(start)));
        actions
    }

    fn on_patience_ended(&mut self, waited: Duration, now: Duration) -> Vec<Action> {
        match self.patience() {
            Patience::Unlimited => Vec::new(),
            Patience::Prefill => self.setback(
                Cause::PrefillSilent,
                format!("no sign of life for {} ms", waited.as_millis()),
                now,
            ),
            Patience::Handover => {
                let reason = format!("pushed, but not received within {} ms", waited.as_millis());
                self.setback(Cause::HandoverLate, reason, now)
            }
        }
    }

    /// The end of a call that has done its work is no setback.
    fn prefill_setback(&mut self, cause: Cause, reason: String, now: Duration) -> Vec<Action> {
        match self.phase {
            Phase::Remote { pushed: false, .. } => self.setback(cause, reason, now),
            _ => Vec::new(),
        }
    }

    fn setback(&mut self, cause: Cause, reason: String, now: Duration) -> Vec<Action> {
        let worker = self.tried.last().map(|candidate| candidate.worker_id.clone()).unwrap_or_default();
        self.record.setbacks.push(Setback { cause, worker, reason });
        let mut actions = vec![Action::DropPrefill];
        actions.extend(self.next_try(now));
        actions
    }

    fn next_try(&mut self, now: Duration) -> Vec<Action> {
        let command = if let Some(candidate) = self.untried.pop_front() {
            let (prefill_worker, block_tokens) = (candidate.worker_id.clone(), candidate.block_tokens);
            self.tried.push(candidate);
            self.phase = Phase::AwaitingTicket;
            let attempt = self.attempt();
            command::Command::Expect(command::Expect { prefill_worker, attempt, block_tokens })
        } else {
            self.phase = Phase::Local { since: now, has_tokens: false };
            self.prefilled_by = self.decode_worker.clone();
            command::Command::PrefillLocally(command::PrefillLocally {})
        };
        vec![Action::Tell(command)]
    }

    /// Number of the current try, from 1.
    fn attempt(&self) -> u32 {
        u32::try_from(self.tried.len()).unwrap_or(u32::MAX)
    }

    fn first_token_is(&mut self, token: Token, now: Duration) {
        self.first = Some(token);
        self.record.first_token_at = Some(now);
    }

    fn finish(&mut self, reason: FinishReason) -> Vec<Action> {
        self.phase = Phase::Over;
        let finished = Finished { reason: reason.into() };
        vec![Action::End(Terminal::Finished(finished), Outcome::Finished(reason))]
    }

    /// The same request gave two different first tokens: one of the workers computes wrongly, and the client has one already.
    fn mismatch(&mut self, sent: u32, repeated: u32) -> Vec<Action> {
        let worker = match self.phase {
            Phase::Local { .. } => &self.decode_worker,
            _ => self.tried.last().map_or(&self.decode_worker, |candidate| &candidate.worker_id),
        };
        self.record.first_token_mismatch = true;
        let message = format!(
            "{worker} repeated the prefill and got first token {repeated}, the client has token {sent} already"
        );
        self.fail(FailureKind::Internal, message)
    }

    fn surprise(&mut self, what: &str) -> Vec<Action> {
        let message = format!("decode worker {} sent {what} {}", self.decode_worker, self.stage());
        self.fail(FailureKind::Internal, message)
    }

    fn fail(&mut self, kind: FailureKind, message: String) -> Vec<Action> {
        self.end_failed(Failure { kind: kind.into(), message })
    }

    fn end_failed(&mut self, failure: Failure) -> Vec<Action> {
        self.phase = Phase::Over;
        let outcome = Outcome::Failed(failure.kind());
        vec![Action::End(Terminal::Failure(failure), outcome)]
    }

    fn stage(&self) -> String {
        let prefill_worker = self.tried.last().map_or("none", |candidate| candidate.worker_id.as_str());
        match self.phase {
            Phase::Reserving => format!("while it waited for KV blocks on {}", self.decode_worker),
            Phase::AwaitingTicket => format!("while {} prepared a transfer", self.decode_worker),
            Phase::Remote { started_at: None, .. } => format!("during prefill on {prefill_worker}"),
            Phase::Remote { .. } => format!("during the transfer from {prefill_worker}"),
            Phase::Local { has_tokens: false, .. } => format!("during prefill on {}", self.decode_worker),
            Phase::Local { .. } | Phase::Decoding => format!("while {} was decoding", self.decode_worker),
            Phase::Over => "after its end".to_owned(),
        }
    }
}
