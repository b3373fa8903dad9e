//! vLLM's encoding of a batch of events.
//!
//! Each record is either an array of its fields in their order, as in the first versions and as most readers expect, or a map of
//! named fields, as since vLLM's pull request 42892. An event's kind is its first element, or its field `type`.

use std::str::FromStr;

use crate::{Event, Stored, msgpack::Writer};

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By position.
    #[default]
    Array,
    /// By name.
    Map,
}

/// Which memory the blocks are in: vLLM's word for where its engine computes from, on machines without a GPU, too. Routers value
/// other words less, as blocks that have to be brought back first.
const MEDIUM: &str = "GPU";
/// There is no data parallelism here: each worker publishes for itself.
const DATA_PARALLEL_RANK: u64 = 0;

/// Writes one record, field by field.
struct Record<'a> {
    out: &'a mut Writer,
    format: Format,
}

/// A batch of events that happened at `timestamp`, in seconds since 1970.
pub fn batch(timestamp: f64, events: &[Event], format: Format) -> Vec<u8> {
    let mut out = Writer::default();
    let mut record = Record::start(&mut out, format, None, 3);
    record.field("ts").float(timestamp);
    record.field("events").each(events, |out, event| write_event(out, event, format));
    record.field("data_parallel_rank").uint(DATA_PARALLEL_RANK);
    out.into_bytes()
}

fn write_event(out: &mut Writer, event: &Event, format: Format) {
    match event {
        Event::Stored(stored) => write_stored(out, stored, format),
        Event::Removed { hashes } => {
            let mut record = Record::start(out, format, Some("BlockRemoved"), 2);
            record.field("block_hashes").each(hashes, |out, hash| out.uint(*hash));
            record.field("medium").text(MEDIUM);
        }
        Event::Cleared => {
            Record::start(out, format, Some("AllBlocksCleared"), 0);
        }
    }
}

fn write_stored(out: &mut Writer, stored: &Stored, format: Format) {
    let Stored { hashes, parent, token_ids, block_tokens, lora, salt } = stored;
    let has_extra_keys = lora.is_some() || salt.is_some();
    // What is nothing at the end is left out, as there.
    let mut record = Record::start(out, format, Some("BlockStored"), 7 + usize::from(has_extra_keys));
    record.field("block_hashes").each(hashes, |out, hash| out.uint(*hash));
    record.field("parent_block_hash").or_nil(*parent, Writer::uint);
    record.field("token_ids").each(token_ids, |out, id| out.uint(u64::from(*id)));
    record.field("block_size").uint(*block_tokens as u64);
    record.field("lora_id").or_nil(lora.as_ref(), |out, lora| out.uint(lora.id));
    record.field("medium").text(MEDIUM);
    record.field("lora_name").or_nil(lora.as_ref(), |out, lora| out.text(&lora.name));
    if has_extra_keys {
        let out = record.field("extra_keys");
        out.array(hashes.len());
        for index in 0..hashes.len() {
            // The salt changes the first block of a sequence, and with it all that hang from it.
            let salt = salt.as_ref().filter(|_| index == 0 && parent.is_none());
            let keys: Vec<&str> = [lora.as_ref().map(|lora| &lora.name), salt]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect();
            out.or_nil((!keys.is_empty()).then_some(keys), |out, keys| {
                out.each(&keys, |out, key| out.text(key));
            });
        }
    }
}

impl<'a> Record<'a> {
    /// `kind` of the events is a field, too, beside the `fields` that follow.
    fn start(out: &'a mut Writer, format: Format, kind: Option<&str>, fields: usize) -> Self {
        let len = fields + usize::from(kind.is_some());
        match format {
            Format::Array => out.array(len),
            Format::Map => out.map(len),
        }
        let mut record = Self { out, format };
        if let Some(kind) = kind {
            record.field("type").text(kind);
        }
        record
    }

    /// The next field, to be written.
    fn field(&mut self, name: &str) -> &mut Writer {
        if self.format == Format::Map {
            self.out.text(name);
        }
        self.out
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "array" => Ok(Self::Array),
            "map" => Ok(Self::Map),
            _ => Err("use array or map".to_owned()),
        }
    }
}
