//! One call: from ticket to last acknowledged write.

use std::time::{Duration, Instant};

use baton_engine::{KvLayout, SequenceRequest};
use baton_kv_transfer::{OpenError, Outgoing};
use baton_process::Span;
use baton_proto::v1::{
    Failure, FailureKind, FinishReason, PrefillEvent, PrefillRequest,
    prefill_event::{Alive, Event, FirstToken, Pushed},
};
use baton_worker::{
    TokenClock, Worker, deadline, failure_of_sequence, failure_of_submit, finish_from_engine,
    token_from_engine, unavailable,
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout, timeout_at},
};
use tonic::Status;

use crate::{sink::Push, spans};

/// Time for a caller that has its only token to hang up.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(1);
/// Between signs of life.
const ALIVE_EVERY: Duration = Duration::from_millis(200);

/// The caller's end.
pub(crate) type Caller = mpsc::Sender<Result<PrefillEvent, Status>>;

/// Serves a call to its end; the caller leaving is one.
pub(crate) async fn serve(worker: &Worker, request: PrefillRequest, caller: &Caller, mut span: Span) {
    let request_id = request.request_id.clone();
    let adapter = request.adapter.as_ref().map(|adapter| adapter.name.clone());
    let clock = worker.metrics.start();
    let failure = tokio::select! {
        biased;
        () = caller.closed() => {
            tracing::debug!(request_id, adapter, "prefill cancelled");
            span.set("baton.outcome", "cancelled");
            return;
        }
        () = worker.stop.cancelled() => unavailable("this worker shuts down before the prompt was pushed"),
        outcome = Box::pin(run(worker, request, caller, clock, &mut span)) => match outcome {
            Ok(()) => return,
            Err(failure) => failure,
        },
        never = stay_alive(caller) => match never {},
    };
    span.fail(failure.kind().as_str_name(), failure.message.clone());
    tracing::info!(request_id, adapter, kind = ?failure.kind(), reason = failure.message, "prefill failed");
    send(caller, Event::Failure(failure)).await;
}

/// Everything that was begun ends when this future is dropped.
async fn run(
    worker: &Worker,
    request: PrefillRequest,
    caller: &Caller,
    mut clock: TokenClock,
    span: &mut Span,
) -> Result<(), Failure> {
    worker.admit()?;
    let PrefillRequest { request_id, prompt, sampling, ticket, deadline_ms, adapter, cache_salt } = request;
    let adapter_name = adapter.as_ref().map(|adapter| adapter.name.clone());
    let adapter = worker.adapter(adapter)?;
    let sampling = worker.sampling(sampling).await?;
    let deadline = deadline(deadline_ms);
    let layout = worker.engine.kv_layout();
    let outgoing = open(worker, &ticket, deadline).await?;
    let skipped_blocks = check_ticket(&outgoing, prompt.len(), &layout)?;

    let push = Push::through(outgoing, skipped_blocks);
    let request = SequenceRequest { id: request_id.clone(), prompt, sampling, deadline, adapter, cache_salt };
    let mut leg = worker.engine.prefill(request, push.sink()).map_err(|error| failure_of_submit(&error))?;
    push.hold(leg.held_blocks());
    let first = tokio::select! {
        biased;
        first = leg.first_token() => first.map_err(|failure| failure_of_sequence(&failure))?,
        error = push.failed() => return Err(unavailable(&format!("cannot push: {error}"))),
    };
    clock.tokens(1);
    let computed_at = spans::computed(span, &request_id, &first);
    let finish = first.finish.map_or(FinishReason::Unspecified, finish_from_engine);
    let event = FirstToken {
        token: Some(token_from_engine(first.token)),
        finish: finish.into(),
        queue_us: first.timing.queue_us,
        prefill_us: first.timing.prefill_us,
        cached_prompt_tokens: u32::try_from(first.cached_tokens).unwrap_or(u32::MAX),
    };
    send(caller, Event::FirstToken(event)).await;
    if finish != FinishReason::Unspecified {
        clock.ended();
        // The request is over, and dropping the push gives the transfer up. The decode worker would see that, and report a
        // failed transfer, before the caller has this token: the caller hangs up first.
        let _ = timeout(HANG_UP_PATIENCE, caller.closed()).await;
        return Ok(());
    }

    let outgoing = push.into_outgoing().map_err(|error| unavailable(&format!("cannot push: {error}")))?;
    let sent = within(deadline, outgoing.finish())
        .await?
        .map_err(|error| unavailable(&format!("the push failed: {error}")))?;
    clock.ended();
    spans::pushed(span, computed_at, sent.bytes);
    tracing::debug!(
        request_id,
        adapter = adapter_name,
        bytes = sent.bytes,
        writes = sent.writes,
        queue_us = first.timing.queue_us,
        prefill_us = first.timing.prefill_us,
        "prompt computed and pushed"
    );
    let pushed = Pushed {
        bytes: sent.bytes,
        writes: u64::from(sent.writes),
        link_bytes_per_second: sent.link_bytes_per_second,
    };
    send(caller, Event::Pushed(pushed)).await;
    Ok(())
}

async fn open(worker: &Worker, ticket: &[u8], deadline: Option<Instant>) -> Result<Outgoing, Failure> {
    within(deadline, worker.node.open(ticket)).await?.map_err(|error| {
        let kind = match &error {
            OpenError::BadTicket { .. } | OpenError::Incompatible { .. } | OpenError::NotNeeded { .. } => {
                FailureKind::Invalid
            }
            OpenError::Full { .. } => FailureKind::Overloaded,
            OpenError::StaleIncarnation { .. }
            | OpenError::Revoked { .. }
            | OpenError::Unreachable { .. }
            | OpenError::TimedOut { .. }
            | OpenError::DataPlane(_)
            | OpenError::ShuttingDown => FailureKind::Unavailable,
        };
        Failure { kind: kind.into(), message: format!("cannot open the transfer: {error}") }
    })
}

/// How many blocks at the prompt's beginning the decode worker has already.
fn check_ticket(outgoing: &Outgoing, prompt_tokens: usize, layout: &KvLayout) -> Result<usize, Failure> {
    let (ticket_tokens, ticket_blocks) = (outgoing.tokens() as usize, outgoing.block_count());
    let fits = |skipped: &usize| {
        ticket_tokens > 0
            && skipped.is_multiple_of(layout.block_tokens)
            && ticket_blocks == layout.blocks_for(ticket_tokens)
    };
    match prompt_tokens.checked_sub(ticket_tokens).filter(fits) {
        Some(skipped) => Ok(skipped / layout.block_tokens),
        None => Err(Failure {
            kind: FailureKind::Invalid.into(),
            message: format!(
                "the ticket is for {ticket_tokens} tokens in {ticket_blocks} blocks, which are not the last ones of a prompt of \
                 {prompt_tokens} tokens in blocks of {}",
                layout.block_tokens
            ),
        }),
    }
}

async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Result<T, Failure> {
    let Some(deadline) = deadline else { return Ok(future.await) };
    timeout_at(deadline.into(), future).await.map_err(|_| Failure {
        kind: FailureKind::Deadline.into(),
        message: "the request's deadline passed on the prefill worker".to_owned(),
    })
}

/// Never returns.
async fn stay_alive(caller: &Caller) -> std::convert::Infallible {
    let mut tick = interval(ALIVE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // With no room there are other signs of life on their way.
        let _ = caller.try_send(Ok(PrefillEvent { event: Some(Event::Alive(Alive {})) }));
    }
}

async fn send(caller: &Caller, event: Event) {
    // That the caller has left is seen by `serve`.
    let _ = caller.send(Ok(PrefillEvent { event: Some(event) })).await;
}
