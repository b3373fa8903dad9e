//! One session: from `open` to its last event.

use std::time::{Duration, Instant};

use baton_engine::{
    LoraAdapter, Reservation, SequenceEvent, SequenceHandle, SequenceRequest, SequenceTiming, SubmitError,
};
use baton_process::Span;
use baton_proto::v1::{
    DecodeCommand, DecodeEvent, Failure, FailureKind, Tokens,
    decode_command::{Command, Expect, Open, Start},
    decode_event::{Done, Event, Prefilled, Reserved, Ticket, TransferDone, TransferFailed},
};
use baton_worker::{
    TokenClock, Worker, deadline, failure_of_sequence, failure_of_submit, finish_from_engine,
    token_from_engine, token_from_wire, unavailable,
};
use tokio::{sync::mpsc, time::sleep_until};
use tonic::{Status, Streaming};

use crate::landing::{LEASE, Landed, Landing};

/// Longest that a transfer is expected when the request has no deadline.
const MOST_PATIENCE: Duration = Duration::from_secs(600);
/// What a session may take beyond its deadline: the engine and the sidecar are the first to act on it.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// The sidecar's end.
pub(crate) type Sidecar = mpsc::Sender<Result<DecodeEvent, Status>>;

/// Why a session ends before it is done.
enum End {
    Failed(Failure),
    /// The sidecar has left.
    Left,
}

struct Session<'a> {
    worker: &'a Worker,
    commands: Streaming<DecodeCommand>,
    sidecar: &'a Sidecar,
    request: SequenceRequest,
    clock: TokenClock,
    span: &'a mut Span,
}

/// Reserved blocks, and whether a peer may be writing them.
enum Blocks {
    Quiet(Reservation),
    Landing(Box<Landing>),
}

/// What this worker computes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    Both,
    /// All after the first token.
    Second,
}

/// What a session that is not running waits for.
enum Happening {
    Command(Box<Command>),
    Arrived,
    TransferFailed { attempt: u32, reason: String },
}

/// Serves a session to its end; the sidecar leaving is one.
pub(crate) async fn serve(
    worker: &Worker,
    commands: Streaming<DecodeCommand>,
    sidecar: &Sidecar,
    mut span: Span,
) {
    let end = tokio::select! {
        biased;
        () = sidecar.closed() => End::Left,
        () = worker.stop.cancelled() => End::Failed(unavailable("this worker shuts down before the request was done")),
        outcome = Box::pin(open(worker, commands, sidecar, &mut span)) => match outcome {
            Ok(()) => return,
            Err(end) => end,
        },
    };
    match end {
        End::Left => {
            span.set("baton.outcome", "cancelled");
            tracing::debug!("session cancelled");
        }
        End::Failed(failure) => {
            tracing::debug!(kind = ?failure.kind(), reason = failure.message, "session failed");
            span.fail(failure.kind().as_str_name(), failure.message.clone());
            // That the sidecar has left needs no answer.
            let _ = sidecar.send(Ok(DecodeEvent { event: Some(Event::Failure(failure)) })).await;
        }
    }
}

/// Everything that a session holds is given back when this future is dropped.
async fn open(
    worker: &Worker,
    mut commands: Streaming<DecodeCommand>,
    sidecar: &Sidecar,
    span: &mut Span,
) -> Result<(), End> {
    let clock = worker.metrics.start();
    worker.admit()?;
    let Command::Open(Open { request_id, prompt, sampling, deadline_ms, adapter, cache_salt }) =
        next_command(&mut commands).await?
    else {
        return Err(protocol("a session begins with `open`"));
    };
    worker.check_tokens(&prompt)?;
    let adapter = worker.adapter(adapter)?;
    let sampling = worker.sampling(sampling).await?;
    let deadline = deadline(deadline_ms);
    let request = SequenceRequest { id: request_id, prompt, sampling, deadline, adapter, cache_salt };
    span.set("baton.request_id", request.id.clone());
    let session = Session { worker, commands, sidecar, request, clock, span };
    tokio::select! {
        outcome = Box::pin(session.run()) => outcome,
        () = sleep_until((deadline.unwrap_or_else(Instant::now) + DEADLINE_GRACE).into()), if deadline.is_some() => {
            Err(End::Failed(Failure {
                kind: FailureKind::Deadline.into(),
                message: "the request's deadline passed on the decode worker".to_owned(),
            }))
        }
    }
}

impl Session<'_> {
    async fn run(mut self) -> Result<(), End> {
        let reservation = self.reserve().await?;
        let mut blocks = Blocks::Quiet(reservation);
        loop {
            match self.next_happening(&mut blocks).await? {
                Happening::Command(command) => match *command {
                    Command::Expect(expect) => {
                        let reservation = self.quiet(blocks).await?;
                        blocks = self.expect(reservation, &expect).await?;
                    }
                    Command::Start(start) => self.note_first_token(&mut blocks, start)?,
                    Command::PrefillLocally(_) => {
                        let reservation = self.quiet(blocks).await?;
                        let submitted = self.worker.engine.submit_reserved(reservation, self.request.clone());
                        return self.relay(submitted.map_err(refused)?, Leg::Both).await;
                    }
                    Command::Open(_) => return Err(protocol("a session is opened once")),
                },
                Happening::Arrived => {}
                Happening::TransferFailed { attempt, reason } => {
                    self.send(Event::TransferFailed(TransferFailed { reason, attempt })).await?;
                }
            }
            if let Blocks::Landing(landing) = blocks {
                match landing.try_land() {
                    Ok(landed) => return self.decode(landed).await,
                    Err(landing) => blocks = Blocks::Landing(landing),
                }
            }
        }
    }

    /// Waits in the engine's queue for blocks.
    async fn reserve(&mut self) -> Result<Reservation, End> {
        let since = Instant::now();
        let reservation = tokio::select! {
            reservation = self.worker.engine.reserve(&self.request) => reservation.map_err(refused)?,
            end = nothing_but_the_end(&mut self.commands) => return Err(end),
        };
        let blocks = u32::try_from(reservation.block_ids().len()).unwrap_or(u32::MAX);
        self.span.event("blocks reserved", [("blocks", blocks.to_string())]);
        self.send(Event::Reserved(Reserved { blocks, queue_us: micros(since.elapsed()) })).await?;
        Ok(reservation)
    }

    async fn next_happening(&mut self, blocks: &mut Blocks) -> Result<Happening, End> {
        let Blocks::Landing(landing) = blocks else {
            return next_command(&mut self.commands).await.map(Happening::from);
        };
        let attempt = landing.attempt;
        tokio::select! {
            biased;
            outcome = landing.decided() => Ok(match outcome {
                Ok(_) => Happening::Arrived,
                Err(error) => Happening::TransferFailed { attempt, reason: error.to_string() },
            }),
            command = next_command(&mut self.commands) => command.map(Happening::from),
        }
    }

    async fn expect(&mut self, reservation: Reservation, expect: &Expect) -> Result<Blocks, End> {
        let attempt = expect.attempt;
        let reservation = self.fit_to(reservation, expect.block_tokens).await?;
        let ids: Vec<u32> = reservation.blocks_to_fill().iter().map(|id| id.0).collect();
        let tokens = self.request.prompt.len() - reservation.cached_tokens();
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let now = Instant::now();
        let until = self.request.deadline.unwrap_or(now + MOST_PATIENCE);
        let lease = LEASE.min(until.saturating_duration_since(now));
        match self.worker.node.expect(&ids, tokens, lease) {
            Ok(incoming) => {
                tracing::debug!(
                    request_id = self.request.id,
                    adapter = self.adapter(),
                    prefill_worker = expect.prefill_worker,
                    attempt,
                    blocks = ids.len(),
                    cached_tokens = reservation.cached_tokens(),
                    "transfer expected"
                );
                let ticket = incoming.ticket().into();
                let landing = Landing::new(attempt, incoming, reservation, until);
                self.send(Event::Ticket(Ticket { ticket, attempt })).await?;
                Ok(Blocks::Landing(Box::new(landing)))
            }
            Err(error) => {
                self.send(Event::TransferFailed(TransferFailed { reason: error.to_string(), attempt }))
                    .await?;
                Ok(Blocks::Quiet(reservation))
            }
        }
    }

    /// Blocks of which a prefill worker with so large blocks can leave out the cached ones.
    async fn fit_to(&mut self, reservation: Reservation, block_tokens: u32) -> Result<Reservation, End> {
        let cached = reservation.cached_tokens();
        if cached == 0 || (block_tokens > 0 && cached.is_multiple_of(block_tokens as usize)) {
            return Ok(reservation);
        }
        tokio::select! {
            reservation = reservation.unshare(self.request.deadline) => reservation.map_err(refused),
            end = nothing_but_the_end(&mut self.commands) => Err(end),
        }
    }

    fn note_first_token(&mut self, blocks: &mut Blocks, start: Start) -> Result<(), End> {
        let Some(token) = start.first_token else { return Err(protocol("`start` has no first token")) };
        match blocks {
            Blocks::Landing(landing) if landing.attempt == start.attempt && landing.first.is_none() => {
                self.worker.check_tokens(&[token.id])?;
                landing.first = Some((token_from_wire(token), Instant::now()));
                self.clock.tokens(1);
                Ok(())
            }
            _ => Err(protocol(&format!("`start` of try {}, which is not under way", start.attempt))),
        }
    }

    /// Blocks that no peer can write: the same ones, or fresh ones when that is not certain yet.
    async fn quiet(&mut self, blocks: Blocks) -> Result<Reservation, End> {
        let landing = match blocks {
            Blocks::Quiet(reservation) => return Ok(reservation),
            Blocks::Landing(landing) => landing,
        };
        let Some((quiesced, reservation)) = landing.give_up() else {
            return Err(protocol("a transfer was given up twice"));
        };
        if quiesced.is_quiet() {
            return Ok(reservation);
        }
        let (held, fresh) = reservation.replace_blocks(self.request.deadline);
        quiesced.hold(held);
        tokio::select! {
            reservation = fresh => reservation.map_err(refused),
            end = nothing_but_the_end(&mut self.commands) => Err(end),
        }
    }

    async fn decode(&mut self, landed: Landed) -> Result<(), End> {
        let Landed { attempt, reservation, first, first_at, received } = landed;
        let handle = self.worker.engine.decode(reservation, self.request.clone(), first).map_err(refused)?;
        let done = TransferDone { bytes: received.bytes, transfer_us: micros(first_at.elapsed()), attempt };
        self.span.event("runnable", []);
        self.span.set_count("baton.transfer_bytes", received.bytes);
        self.send(Event::TransferDone(done)).await?;
        self.relay(handle, Leg::Second).await
    }

    async fn relay(&mut self, mut handle: SequenceHandle, leg: Leg) -> Result<(), End> {
        loop {
            let event = tokio::select! {
                biased;
                command = next_command(&mut self.commands) => match command? {
                    // Crossed `transfer_done` on the wire.
                    Command::Expect(_) | Command::PrefillLocally(_) => continue,
                    Command::Open(_) | Command::Start(_) => {
                        return Err(protocol("a sequence that runs takes no further commands"));
                    }
                },
                event = handle.recv() => event,
            };
            let mut tokens = Vec::new();
            let mut next = event;
            while let Some(SequenceEvent::Token(token)) = next {
                tokens.push(token_from_engine(token));
                next = handle.try_recv();
            }
            if !tokens.is_empty() {
                self.clock.tokens(tokens.len());
                self.send(Event::Tokens(Tokens { tokens })).await?;
            }
            match next {
                None | Some(SequenceEvent::Token(_)) => {}
                Some(SequenceEvent::Prefilled(prefilled)) => {
                    let SequenceTiming { queue_us, prefill_us, .. } = prefilled.timing;
                    let cached_prompt_tokens = u32::try_from(prefilled.cached_tokens).unwrap_or(u32::MAX);
                    let prefilled = Prefilled { queue_us, prefill_us, cached_prompt_tokens };
                    self.span.event("prompt computed", [("prefill_us", prefill_us.to_string())]);
                    self.send(Event::Prefilled(prefilled)).await?;
                }
                Some(SequenceEvent::Failed(failure)) => {
                    return Err(End::Failed(failure_of_sequence(&failure)));
                }
                Some(SequenceEvent::Finished(reason, timing)) => {
                    self.clock.ended();
                    let reason = finish_from_engine(reason);
                    self.span.set_count("baton.decode_us", timing.decode_us);
                    self.span.set("baton.outcome", "finished");
                    let decode_wait_us = if leg == Leg::Second { timing.queue_us } else { 0 };
                    let done = Done { reason: reason.into(), decode_us: timing.decode_us, decode_wait_us };
                    tracing::debug!(
                        request_id = self.request.id,
                        adapter = self.adapter(),
                        ?reason,
                        "session done"
                    );
                    return self.send(Event::Done(done)).await;
                }
            }
        }
    }

    /// Its adapter's name, for logs.
    fn adapter(&self) -> Option<&str> {
        self.request.adapter.as_ref().map(LoraAdapter::name)
    }

    async fn send(&self, event: Event) -> Result<(), End> {
        self.sidecar.send(Ok(DecodeEvent { event: Some(event) })).await.map_err(|_| End::Left)
    }
}

async fn next_command(commands: &mut Streaming<DecodeCommand>) -> Result<Command, End> {
    match commands.message().await {
        Ok(Some(DecodeCommand { command: Some(command) })) => Ok(command),
        Ok(Some(DecodeCommand { command: None })) => Err(protocol("an empty command")),
        Ok(None) | Err(_) => Err(End::Left),
    }
}

/// Returns when the sidecar leaves, or says something while it is not its turn.
async fn nothing_but_the_end(commands: &mut Streaming<DecodeCommand>) -> End {
    match next_command(commands).await {
        Ok(_) => protocol("a command before the last one was answered"),
        Err(end) => end,
    }
}

fn refused(error: SubmitError) -> End {
    End::Failed(failure_of_submit(&error))
}

/// The sidecar broke the contract.
fn protocol(what: &str) -> End {
    End::Failed(Failure { kind: FailureKind::Internal.into(), message: format!("decode session: {what}") })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<Command> for Happening {
    fn from(command: Command) -> Self {
        Self::Command(Box::new(command))
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
