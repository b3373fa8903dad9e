//! Sessions driven by hand: a sidecar that changes its mind, or breaks the contract.

use baton_proto::v1::{
    AdapterRef, DecodeCommand, DecodeEvent, FailureKind, PrefillRequest, Token,
    decode_client::DecodeClient,
    decode_command::{Command, Expect, Open, PrefillLocally, Start},
    decode_event::Event,
    prefill_client::PrefillClient,
    prefill_event,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    bed::{greedy, prompt},
    workers::{BLOCK_TOKENS, LAYOUT, Served, within},
};

const PROMPT_TOKENS: usize = 30;

/// A sidecar's end of a session.
struct Session {
    commands: mpsc::Sender<DecodeCommand>,
    events: Streaming<DecodeEvent>,
}

impl Session {
    async fn open(decode: &Served) -> Self {
        let (commands, outgoing) = mpsc::channel(8);
        let mut client = DecodeClient::new(channel(decode).await);
        let events = within(client.session(ReceiverStream::new(outgoing))).await.unwrap().into_inner();
        let mut this = Self { commands, events };
        let open = Open {
            request_id: "r".to_owned(),
            prompt: prompt(3, PROMPT_TOKENS),
            sampling: Some(greedy(6)),
            deadline_ms: 20_000,
            adapter: None,
            cache_salt: None,
        };
        this.tell(Command::Open(open)).await;
        assert!(matches!(this.event().await, Event::Reserved(_)));
        this
    }

    async fn tell(&self, command: Command) {
        self.commands.send(DecodeCommand { command: Some(command) }).await.unwrap();
    }

    async fn event(&mut self) -> Event {
        within(self.events.message()).await.unwrap().expect("a terminal event comes first").event.unwrap()
    }

    async fn expect(&mut self, attempt: u32) -> Vec<u8> {
        self.expect_blocks(attempt, BLOCK_TOKENS as u32).await
    }

    /// From a prefill worker with so large blocks.
    async fn expect_blocks(&mut self, attempt: u32, block_tokens: u32) -> Vec<u8> {
        self.tell(Command::Expect(Expect { prefill_worker: "p".to_owned(), attempt, block_tokens })).await;
        match self.event().await {
            Event::Ticket(ticket) if ticket.attempt == attempt => ticket.ticket.to_vec(),
            other => panic!("not the ticket of try {attempt}: {other:?}"),
        }
    }

    /// Tokens up to the end.
    async fn tokens(&mut self) -> Vec<u32> {
        let mut ids = Vec::new();
        loop {
            match self.event().await {
                Event::Tokens(tokens) => ids.extend(tokens.tokens.iter().map(|token| token.id)),
                Event::Prefilled(_) => assert!(ids.is_empty(), "before the first token"),
                Event::Done(_) => return ids,
                other => panic!("neither tokens nor done: {other:?}"),
            }
        }
    }
}

async fn channel(served: &Served) -> Channel {
    Channel::from_shared(format!("http://{}", served.address)).unwrap().connect().await.unwrap()
}

/// Prefills with that ticket: the first token, or why not.
async fn prefill(prefill: &Served, ticket: Vec<u8>) -> Result<Token, String> {
    prefill_with(prefill, ticket, None).await
}

/// The same with an adapter.
async fn prefill_with(
    prefill: &Served,
    ticket: Vec<u8>,
    adapter: Option<AdapterRef>,
) -> Result<Token, String> {
    let request = PrefillRequest {
        request_id: "r".to_owned(),
        prompt: prompt(3, PROMPT_TOKENS),
        sampling: Some(greedy(6)),
        ticket: ticket.into(),
        deadline_ms: 20_000,
        adapter,
        cache_salt: None,
    };
    let mut events =
        within(PrefillClient::new(channel(prefill).await).run(request)).await.unwrap().into_inner();
    let mut first = None;
    while let Some(event) = within(events.message()).await.unwrap() {
        match event.event.unwrap() {
            prefill_event::Event::Alive(_) => {}
            prefill_event::Event::FirstToken(token) => first = token.token,
            prefill_event::Event::Pushed(_) => return Ok(first.expect("a first token before the push ends")),
            prefill_event::Event::Failure(failure) => return Err(failure.message),
        }
    }
    panic!("the call ended without a terminal event")
}

async fn expected() -> Vec<u32> {
    let decode = Served::decode(32).await;
    let mut session = Session::open(&decode).await;
    session.tell(Command::PrefillLocally(PrefillLocally {})).await;
    session.tokens().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_that_the_prefill_worker_has_not_is_named_and_the_session_can_go_on() {
    let (decode, worker) = (Served::decode(32).await, Served::prefill().await);
    let mut session = Session::open(&decode).await;
    let ticket = session.expect(1).await;
    let adapter = AdapterRef { name: "sql".to_owned(), revision: "1".to_owned() };
    let refused = prefill_with(&worker, ticket, Some(adapter)).await.unwrap_err();
    assert_eq!(refused, "lora adapter \"sql\" is not loaded on this worker");
    session.tell(Command::PrefillLocally(PrefillLocally {})).await;
    assert_eq!(session.tokens().await, expected().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_expect_gives_up_the_first_whose_ticket_is_void() {
    let (decode, worker) = (Served::decode(32).await, Served::prefill().await);
    let mut session = Session::open(&decode).await;
    let first = session.expect(1).await;
    let second = session.expect(2).await;
    let refused = prefill(&worker, first).await.unwrap_err();
    assert!(refused.contains("no longer expects"), "{refused}");
    let first_token = prefill(&worker, second).await.unwrap();
    let id = first_token.id;
    session.tell(Command::Start(Start { first_token: Some(first_token), attempt: 2 })).await;
    assert!(
        matches!(session.event().await, Event::TransferDone(done) if done.attempt == 2 && done.bytes > 0)
    );
    let tokens = session.tokens().await;
    assert_eq!([vec![id], tokens].concat(), expected().await);
    decode.empties().await;
    worker.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_complete_transfer_the_sidecar_may_still_have_it_prefilled_here() {
    let (decode, worker) = (Served::decode(32).await, Served::prefill().await);
    let mut session = Session::open(&decode).await;
    let ticket = session.expect(1).await;
    prefill(&worker, ticket).await.unwrap();
    session.tell(Command::PrefillLocally(PrefillLocally {})).await;
    assert_eq!(session.tokens().await, expected().await);
    decode.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_crosses_the_end_of_the_transfer_is_void() {
    let (decode, worker) = (Served::decode(32).await, Served::prefill().await);
    let mut session = Session::open(&decode).await;
    let ticket = session.expect(1).await;
    let first_token = prefill(&worker, ticket).await.unwrap();
    decode.gate.close(1);
    session.tell(Command::Start(Start { first_token: Some(first_token), attempt: 1 })).await;
    assert!(matches!(session.event().await, Event::TransferDone(_)));
    session
        .tell(Command::Expect(Expect {
            prefill_worker: "p".to_owned(),
            attempt: 2,
            block_tokens: BLOCK_TOKENS as u32,
        }))
        .await;
    session.tell(Command::PrefillLocally(PrefillLocally {})).await;
    decode.gate.open();
    assert_eq!(session.tokens().await, expected().await[1..]);
    decode.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_leaves_at_any_point_leaves_nothing_behind() {
    let (decode, worker) = (Served::decode(32).await, Served::prefill().await);
    drop(Session::open(&decode).await);
    decode.empties().await;

    let mut session = Session::open(&decode).await;
    session.expect(1).await;
    drop(session);
    decode.empties().await;

    let mut session = Session::open(&decode).await;
    let ticket = session.expect(1).await;
    prefill(&worker, ticket).await.unwrap();
    drop(session);
    decode.empties().await;
    worker.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_contract_ends_the_session_and_frees_its_blocks() {
    let decode = Served::decode(32).await;
    let start = |attempt| Command::Start(Start { first_token: Some(Token::default()), attempt });
    for command in [start(1), Command::Open(Open::default())] {
        let mut session = Session::open(&decode).await;
        session.tell(command).await;
        assert!(
            matches!(session.event().await, Event::Failure(failure) if failure.kind() == FailureKind::Internal)
        );
        decode.empties().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_that_is_cached_is_left_out_when_the_other_sides_blocks_end_there() {
    let [decode, source] = [Served::decode(64).await, Served::prefill().await];
    let expected = expected().await;
    let received = || decode.worker.node.stats().bytes_received;
    let mut before = 0;
    let all = PROMPT_TOKENS.div_ceil(BLOCK_TOKENS) as u64;
    // At first nothing is cached; then all but the last block, unless the other side's blocks end elsewhere, or who knows where.
    for (block_tokens, blocks) in [(BLOCK_TOKENS, all), (BLOCK_TOKENS, 1), (0, all), (1024, all), (1, 1)] {
        let mut session = Session::open(&decode).await;
        let ticket = session.expect_blocks(1, block_tokens as u32).await;
        let first = prefill(&source, ticket).await.unwrap();
        assert_eq!(first.id, expected[0]);
        session.tell(Command::Start(Start { first_token: Some(first), attempt: 1 })).await;
        assert!(matches!(session.event().await, Event::TransferDone(_)));
        assert_eq!(session.tokens().await, expected[1..]);
        let moved = received() - before;
        before = received();
        assert_eq!(moved, blocks * LAYOUT.pool_bytes(1) as u64, "for blocks of {block_tokens} tokens");
    }
    decode.empties().await;
    source.empties().await;
}
