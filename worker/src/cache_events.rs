//! From the engine's prefix cache to the publisher of KV events.

use std::net::SocketAddr;

use baton_engine::{CacheEvent, CacheObserver};
use baton_kv_events::{Event, EventSender, EventStats, Lora, Publisher, Settings, StartError, Stored};

use crate::WorkerArgs;

/// Hands on what the engine says, on the engine's thread.
struct Observer {
    sender: EventSender,
    block_tokens: usize,
}

/// What publishing takes; nothing when it is not asked for.
#[derive(Default)]
pub(crate) struct KvEvents {
    pub(crate) publisher: Option<Publisher>,
    pub(crate) observer: Option<Box<dyn CacheObserver>>,
    pub(crate) stats: Option<EventStats>,
    /// Where it listens, by what for.
    pub(crate) addresses: Vec<(&'static str, SocketAddr)>,
}

impl KvEvents {
    /// Opens the sockets.
    ///
    /// # Errors
    /// An address cannot be had.
    pub(crate) async fn start(args: &WorkerArgs) -> Result<Self, StartError> {
        let Some(endpoint) = args.kv_events_endpoint.clone() else { return Ok(Self::default()) };
        let (publisher, sender) = Publisher::start(Settings {
            endpoint,
            replay_endpoint: args.kv_events_replay_endpoint.clone(),
            topic: args.kv_events_topic.clone(),
            format: args.kv_events_format,
            replay_batches: args.kv_events_buffer_steps as usize,
        })
        .await?;
        let observer = Observer { sender, block_tokens: usize::from(args.block_tokens) };
        let (stats, addresses) = (Some(publisher.stats()), publisher.addresses().to_vec());
        for (listener, address) in &addresses {
            tracing::info!(listener, %address, topic = args.kv_events_topic, "KV events can be had here");
        }
        Ok(Self { publisher: Some(publisher), observer: Some(Box::new(observer)), stats, addresses })
    }
}

impl CacheObserver for Observer {
    fn changed(&mut self, events: Vec<CacheEvent>) {
        let block_tokens = self.block_tokens;
        self.sender.send(events.into_iter().map(|event| to_wire(event, block_tokens)).collect());
    }
}

fn to_wire(event: CacheEvent, block_tokens: usize) -> Event {
    match event {
        CacheEvent::Stored { hashes, parent, tokens, scope } => {
            let scope = scope.as_deref();
            let adapter = scope.and_then(|scope| scope.adapter.as_ref());
            Event::Stored(Stored {
                hashes,
                parent,
                token_ids: tokens,
                block_tokens,
                lora: adapter.map(|adapter| Lora { id: adapter.id, name: adapter.name.clone() }),
                salt: scope.and_then(|scope| scope.salt.clone()),
            })
        }
        CacheEvent::Removed { hashes } => Event::Removed { hashes },
        CacheEvent::Cleared => Event::Cleared,
    }
}
