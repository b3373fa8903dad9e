//! Performs what the [`Plan`] of a request decides: two legs, one client, three limits of time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use baton_process::TraceContext;
use baton_proto::{
    MAX_MESSAGE_BYTES,
    v1::{
        Account, DecodeCommand, DecodeEvent, GenerateEvent, GenerateRequest, PrefillCandidate, PrefillEvent,
        PrefillRequest, Tokens,
        decode_client::DecodeClient,
        decode_command::{Command, Open},
        generate_event,
        prefill_client::PrefillClient,
    },
};
use bytes::Bytes;
use tokio::{sync::mpsc, time::sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::{
    args::RequestLimits,
    channels::Channels,
    control::{Action, Input, Outcome, Patience, Plan},
    leg::{Leg, Lost},
    link::DecodeWorker,
};

/// Events kept for a client that reads slowly, before the decode worker's are left unread.
const MAX_OUTBOX: usize = 64;
/// Commands of one session are at most two for each prefill worker tried, and two more.
const MAX_COMMANDS: usize = 32;

/// The client's end of a request.
pub(crate) type Client = mpsc::Sender<Result<GenerateEvent, Status>>;

/// One request under way. Dropping it drops both legs.
pub(crate) struct Drive<'a> {
    request: GenerateRequest,
    plan: Plan,
    limits: RequestLimits,
    channels: &'a Channels,
    arrival: Instant,
    deadline: Instant,
    commands: mpsc::Sender<DecodeCommand>,
    decode: Leg<DecodeEvent>,
    prefill: Leg<PrefillEvent>,
    /// When the prefill worker was called, or last gave a sign of life.
    heard_at: Instant,
    outbox: VecDeque<GenerateEvent>,
    /// The workers' spans are parts of it.
    trace: TraceContext,
}

impl<'a> Drive<'a> {
    /// Opens the session on `worker`.
    pub(crate) fn start(
        mut request: GenerateRequest,
        worker: DecodeWorker,
        channels: &'a Channels,
        limits: RequestLimits,
        arrival: Instant,
        trace: TraceContext,
    ) -> Self {
        let patience = match request.deadline_ms {
            0 => limits.default_deadline,
            ms => Duration::from_millis(ms),
        };
        let candidates = std::mem::take(&mut request.prefill_candidates);
        let plan = Plan::new(worker.worker_id.clone(), candidates, limits.prefill_tries);
        let (commands, outgoing) = mpsc::channel(MAX_COMMANDS);
        let mut session = Request::new(ReceiverStream::new(outgoing));
        trace.write(session.metadata_mut().as_mut());
        let decode = Leg::opening(async move {
            let mut client = DecodeClient::new(worker.channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            client.session(session).await
        });
        let open = Open {
            request_id: request.request_id.clone(),
            prompt: request.prompt.clone(),
            sampling: request.sampling.clone(),
            deadline_ms: millis(patience),
            adapter: request.adapter.clone(),
            cache_salt: request.cache_salt.clone(),
        };
        let mut this = Self {
            request,
            plan,
            limits,
            channels,
            arrival,
            deadline: arrival + patience,
            commands,
            decode,
            prefill: Leg::Idle,
            heard_at: arrival,
            outbox: VecDeque::new(),
            trace,
        };
        this.tell(Command::Open(open));
        this
    }

    /// Serves the request to its end. `stop` ends it before its time.
    pub(crate) async fn run(mut self, client: &Client, stop: &CancellationToken) -> (Plan, Outcome) {
        let outcome = loop {
            let Some(input) = self.next_input(client, stop).await else { break Outcome::Cancelled };
            let now = self.arrival.elapsed();
            let mut outcome = None;
            for action in self.plan.on(input, now) {
                outcome = outcome.or(self.perform(action));
            }
            if let Some(outcome) = outcome {
                break outcome;
            }
        };
        let Self { plan, outbox, commands, decode, prefill, .. } = self;
        // What was held for the request is freed now, however slowly the client reads the rest.
        drop((commands, decode, prefill));
        for event in outbox {
            if client.send(Ok(event)).await.is_err() {
                break;
            }
        }
        (plan, outcome)
    }

    /// What happens next; `None` when the client has left.
    async fn next_input(&mut self, client: &Client, stop: &CancellationToken) -> Option<Input> {
        loop {
            let patience = self.patience();
            tokio::select! {
                biased;
                () = client.closed() => return None,
                () = stop.cancelled() => return Some(Input::Stopped),
                () = sleep_until(self.deadline.into()) => return Some(Input::DeadlinePassed),
                permit = client.reserve(), if !self.outbox.is_empty() => {
                    let (permit, event) = (permit.ok()?, self.outbox.pop_front()?);
                    permit.send(Ok(event));
                }
                event = self.decode.next(), if self.outbox.len() < MAX_OUTBOX => match event {
                    Ok(DecodeEvent { event: Some(event) }) => return Some(Input::Decode(event)),
                    Ok(DecodeEvent { event: None }) => {}
                    Err(Lost { reason, .. }) => return Some(Input::DecodeLost(reason)),
                },
                event = self.prefill.next() => {
                    self.heard_at = Instant::now();
                    match event {
                        Ok(PrefillEvent { event: Some(event) }) => return Some(Input::Prefill(event)),
                        Ok(PrefillEvent { event: None }) => {}
                        Err(Lost { unreachable, reason }) => return Some(Input::PrefillLost { unreachable, reason }),
                    }
                }
                () = sleep_until((self.heard_at + patience.unwrap_or_default()).into()), if patience.is_some() => {
                    return Some(Input::PatienceEnded(patience.unwrap_or_default()));
                }
            }
        }
    }

    fn patience(&self) -> Option<Duration> {
        match self.plan.patience() {
            Patience::Unlimited => None,
            Patience::Prefill => Some(self.limits.prefill_silence),
            Patience::Handover => Some(self.limits.handover_patience),
        }
    }

    /// The outcome, when the action was the last one.
    fn perform(&mut self, action: Action) -> Option<Outcome> {
        match action {
            Action::Tell(command) => self.tell(command),
            Action::RunPrefill { candidate, ticket } => self.run_prefill(&candidate, ticket),
            Action::DropPrefill => self.prefill = Leg::Idle,
            Action::Emit(tokens) => {
                let account = self.plan.news();
                self.emit(generate_event::Event::Tokens(Tokens { tokens }), account);
            }
            Action::End(event, outcome) => {
                let account = self.plan.account();
                self.emit(event, Some(account));
                return Some(outcome);
            }
        }
        None
    }

    fn emit(&mut self, event: generate_event::Event, account: Option<Account>) {
        self.outbox.push_back(GenerateEvent { event: Some(event), account });
    }

    fn tell(&mut self, command: Command) {
        // A session that broke says so itself; one that has room for every command there can be is never full.
        let _ = self.commands.try_send(DecodeCommand { command: Some(command) });
    }

    fn run_prefill(&mut self, candidate: &PrefillCandidate, ticket: Bytes) {
        let request = PrefillRequest {
            request_id: self.request.request_id.clone(),
            prompt: self.request.prompt.clone(),
            sampling: self.request.sampling.clone(),
            ticket,
            deadline_ms: millis(self.deadline.saturating_duration_since(Instant::now())),
            adapter: self.request.adapter.clone(),
            cache_salt: self.request.cache_salt.clone(),
        };
        let mut request = Request::new(request);
        self.trace.write(request.metadata_mut().as_mut());
        let channel = self.channels.to(candidate);
        self.heard_at = Instant::now();
        self.prefill = Leg::opening(async move {
            let channel = channel.map_err(|error| Status::invalid_argument(error.to_string()))?;
            let mut client = PrefillClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            client.run(request).await
        });
    }
}

/// At least 1: 0 would mean "no deadline".
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
