//! From the engine's prefix cache to the publisher of KV events.

use baton_engine::{CacheEvent, CacheObserver};
use baton_kv_events::{Event, EventSender, Lora, Publisher, Settings, StartError, Stored};

use crate::WorkerArgs;

/// Hands on what the engine says, on the engine's thread.
pub(crate) struct Observer {
    sender: EventSender,
    block_tokens: usize,
}

/// A publisher, and the end that events are put in; when they are asked for.
///
/// # Errors
/// An address cannot be had.
pub(crate) async fn start(args: &WorkerArgs) -> Result<Option<(Publisher, Observer)>, StartError> {
    let Some(endpoint) = args.kv_events_endpoint.clone() else { return Ok(None) };
    let (publisher, sender) = Publisher::start(Settings {
        endpoint,
        replay_endpoint: args.kv_events_replay_endpoint.clone(),
        topic: args.kv_events_topic.clone(),
        format: args.kv_events_format,
        replay_batches: args.kv_events_buffer_steps as usize,
    })
    .await?;
    Ok(Some((publisher, Observer { sender, block_tokens: usize::from(args.block_tokens) })))
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
