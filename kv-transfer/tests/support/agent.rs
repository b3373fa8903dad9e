//! The peer process: carries out orders, one JSON line each, and answers with JSON lines that start with `@`.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_kv_transfer::{Incoming, Offered, Outgoing, Quiesced, TransferNode};
use serde::{Deserialize, Serialize};

use super::world::{Setup, config};
use super::{fill, first_wrong_of};

/// What the peer is told. `id` names a transfer within the peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    Expect {
        id: u64,
        blocks: Vec<u32>,
        tokens: u32,
        expires_ms: u64,
    },
    Wait {
        id: u64,
    },
    AbortIncoming {
        id: u64,
    },
    Open {
        id: u64,
        ticket: Vec<u8>,
    },
    Push {
        id: u64,
        layers: (u32, u32),
        blocks: Vec<(u32, u32)>,
    },
    Finish {
        id: u64,
    },
    AbortOutgoing {
        id: u64,
    },
    /// Answers with a ticket.
    Offer {
        id: u64,
        blocks: Vec<u32>,
        tokens: u32,
        expires_ms: u64,
    },
    TakeBack {
        id: u64,
    },
    /// Fetches whole.
    Fetch {
        ticket: Vec<u8>,
        blocks: Vec<u32>,
    },
    Quiet {
        id: u64,
    },
    Fill {
        blocks: Vec<u32>,
        seed: u64,
    },
    Check {
        blocks: Vec<u32>,
        tokens: u32,
        seed: u64,
    },
    /// Answers with what [`Order::Connect`] takes.
    Describe,
    Connect {
        endpoint: String,
        node_id: Vec<u8>,
    },
    Stats,
    Shutdown,
}

/// What it answers. Errors are the text of the crate's errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Ticket(Vec<u8>),
    Bytes(u64),
    Description(String, Vec<u8>),
    Wrong(Option<(u32, u32)>),
    Stats(PeerStats),
    Error(String),
}

/// The peer's counters that the tests look at.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PeerStats {
    pub writes_sent: u64,
    pub writes_received: u64,
    pub late_writes: u64,
    pub quarantined_blocks: u64,
    pub incoming_live: u64,
    pub in_flight_writes: u64,
    pub queued_pushes: u64,
}

struct Agent {
    node: TransferNode,
    setup: Setup,
    incoming: Mutex<HashMap<u64, Incoming>>,
    outgoing: Mutex<HashMap<u64, Arc<Outgoing>>>,
    quiesced: Mutex<HashMap<u64, Quiesced>>,
    offered: Mutex<HashMap<u64, Offered>>,
}

/// Runs until standard input ends.
pub fn serve(setup: Setup) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let node = runtime.block_on(TransferNode::start(config(&setup))).unwrap();
    let agent = Arc::new(Agent {
        node,
        setup,
        incoming: Mutex::default(),
        outgoing: Mutex::default(),
        quiesced: Mutex::default(),
        offered: Mutex::default(),
    });
    answer(u64::MAX, &Reply::Done);
    for line in std::io::stdin().lock().lines() {
        let Ok((tag, order)) = serde_json::from_str::<(u64, Order)>(&line.unwrap()) else { continue };
        let agent = agent.clone();
        runtime.spawn(async move { answer(tag, &agent.obey(order).await.unwrap_or_else(Reply::Error)) });
    }
}

fn answer(tag: u64, reply: &Reply) {
    let line = format!("\n@{}\n", serde_json::to_string(&(tag, reply)).unwrap());
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Agent {
    async fn obey(&self, order: Order) -> Result<Reply, String> {
        let geometry = self.setup.geometry();
        match order {
            Order::Expect { id, blocks, tokens, expires_ms } => {
                let incoming =
                    self.node.expect(&blocks, tokens, Duration::from_millis(expires_ms)).map_err(text)?;
                let ticket = incoming.ticket();
                self.incoming.lock().unwrap().insert(id, incoming);
                Ok(Reply::Ticket(ticket))
            }
            Order::Wait { id } => {
                let mut incoming = self.incoming.lock().unwrap().remove(&id).ok_or("no such transfer")?;
                let outcome = incoming.wait().await;
                self.incoming.lock().unwrap().insert(id, incoming);
                outcome.map(|received| Reply::Bytes(received.bytes)).map_err(text)
            }
            Order::AbortIncoming { id } => {
                let incoming = self.incoming.lock().unwrap().remove(&id).ok_or("no such transfer")?;
                self.quiesced.lock().unwrap().insert(id, incoming.abort());
                Ok(Reply::Done)
            }
            Order::Open { id, ticket } => {
                let outgoing = self.node.open(&ticket).await.map_err(text)?;
                self.outgoing.lock().unwrap().insert(id, Arc::new(outgoing));
                Ok(Reply::Done)
            }
            Order::Push { id, layers, blocks } => {
                let outgoing = self.outgoing.lock().unwrap().get(&id).cloned().ok_or("no such transfer")?;
                outgoing.push(layers.0..layers.1, &blocks).map_err(text)?;
                Ok(Reply::Done)
            }
            Order::Finish { id } => {
                let sent = self.take_outgoing(id)?.finish().await.map_err(text)?;
                Ok(Reply::Bytes(sent.bytes))
            }
            Order::AbortOutgoing { id } => {
                let quiesced = self.take_outgoing(id)?.abort();
                self.quiesced.lock().unwrap().insert(id, quiesced);
                Ok(Reply::Done)
            }
            Order::Offer { id, blocks, tokens, expires_ms } => {
                let offered = self.node.offer(&blocks, tokens, Duration::from_millis(expires_ms));
                let offered = offered.map_err(text)?;
                let ticket = offered.ticket();
                self.offered.lock().unwrap().insert(id, offered);
                Ok(Reply::Ticket(ticket))
            }
            Order::TakeBack { id } => {
                self.offered.lock().unwrap().remove(&id).ok_or("no such offer")?;
                Ok(Reply::Done)
            }
            Order::Fetch { ticket, blocks } => {
                let mut fetching = self.node.fetch(&ticket, &blocks).await.map_err(text)?;
                fetching.wait().await.map(|received| Reply::Bytes(received.bytes)).map_err(text)
            }
            Order::Quiet { id } => {
                let quiesced = self.quiesced.lock().unwrap().remove(&id).ok_or("not aborted")?;
                quiesced.await;
                Ok(Reply::Done)
            }
            Order::Fill { blocks, seed } => {
                fill(&self.node.pool(), &geometry, &blocks, seed);
                Ok(Reply::Done)
            }
            Order::Check { blocks, tokens, seed } => {
                Ok(Reply::Wrong(first_wrong_of(&self.node.pool(), &geometry, &blocks, tokens, seed)))
            }
            Order::Describe => {
                let fabric = self.node.fabric();
                Ok(Reply::Description(fabric.control_endpoint, fabric.node_id))
            }
            Order::Connect { endpoint, node_id } => {
                self.node.connect(&endpoint, &node_id).await.map_err(text)?;
                Ok(Reply::Done)
            }
            Order::Stats => {
                let stats = self.node.stats();
                Ok(Reply::Stats(PeerStats {
                    writes_sent: stats.writes_sent,
                    writes_received: stats.writes_received,
                    late_writes: stats.late_writes,
                    quarantined_blocks: stats.quarantined_blocks,
                    incoming_live: stats.incoming_live,
                    in_flight_writes: stats.in_flight_writes,
                    queued_pushes: stats.queued_pushes,
                }))
            }
            Order::Shutdown => {
                self.node.shutdown().await;
                Ok(Reply::Done)
            }
        }
    }

    fn take_outgoing(&self, id: u64) -> Result<Outgoing, String> {
        let outgoing = self.outgoing.lock().unwrap().remove(&id).ok_or("no such transfer")?;
        Arc::try_unwrap(outgoing).map_err(|_| "a push is still running".to_owned())
    }
}
