//! From the engine's prefix cache to those who route by it: the publisher of KV events, and the schedulers that this worker has joined.

use std::net::SocketAddr;

use baton_engine::{CacheEvent, CacheObserver};
use baton_kv_events::{Event, EventSender, EventStats, Lora, Publisher, Settings, StartError, Stored};

use crate::{WorkerArgs, cache_feed::CacheFeeds};

/// Hands on what the engine says, on the engine's thread.
struct Observer {
    sender: Option<EventSender>,
    feeds: CacheFeeds,
    block_tokens: usize,
}

/// What telling takes.
pub(crate) struct KvEvents {
    /// Nothing when it is not asked for.
    pub(crate) publisher: Option<Publisher>,
    pub(crate) observer: Box<dyn CacheObserver>,
    /// For the schedulers.
    pub(crate) feeds: CacheFeeds,
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
        let feeds = CacheFeeds::default();
        let block_tokens = usize::from(args.block_tokens);
        let Some(endpoint) = args.kv_events_endpoint.clone() else {
            let observer = Box::new(Observer { sender: None, feeds: feeds.clone(), block_tokens });
            return Ok(Self { publisher: None, observer, feeds, stats: None, addresses: Vec::new() });
        };
        let (publisher, sender) = Publisher::start(Settings {
            endpoint,
            replay_endpoint: args.kv_events_replay_endpoint.clone(),
            topic: args.kv_events_topic.clone(),
            format: args.kv_events_format,
            replay_batches: args.kv_events_buffer_steps as usize,
        })
        .await?;
        let observer = Observer { sender: Some(sender), feeds: feeds.clone(), block_tokens };
        let (stats, addresses) = (Some(publisher.stats()), publisher.addresses().to_vec());
        for (listener, address) in &addresses {
            tracing::info!(listener, %address, topic = args.kv_events_topic, "KV events can be had here");
        }
        Ok(Self { publisher: Some(publisher), observer: Box::new(observer), feeds, stats, addresses })
    }
}

impl CacheObserver for Observer {
    fn changed(&mut self, events: Vec<CacheEvent>) {
        if self.sender.is_none() && !self.feeds.are_wanted() {
            return;
        }
        let events = self.to_wire(events);
        self.feeds.changed(&events);
        if let Some(sender) = &mut self.sender {
            sender.send(events);
        }
    }

    fn all(&mut self, stored: Vec<CacheEvent>) {
        let events = self.to_wire(stored);
        self.feeds.all(events);
    }
}

impl Observer {
    fn to_wire(&self, events: Vec<CacheEvent>) -> Vec<Event> {
        events.into_iter().map(|event| to_wire(event, self.block_tokens)).collect()
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
