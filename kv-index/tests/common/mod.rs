//! vLLM's records, written as it writes them, in both encodings.
#![allow(dead_code, reason = "each test uses some of it")]

/// A field's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Nil,
    Uint(u64),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
}

/// An event: its kind and its fields in their order.
pub(crate) type Event = (&'static str, Vec<(&'static str, Value)>);

impl Value {
    pub(crate) fn uints<T: Copy + Into<u64>>(values: &[T]) -> Self {
        Self::Array(values.iter().map(|value| Self::Uint((*value).into())).collect())
    }

    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => out.push(0xc0),
            Self::Uint(value @ 0..128) => out.push(*value as u8),
            Self::Uint(value @ 128..256) => out.extend([0xcc, *value as u8]),
            Self::Uint(value @ 256..65_536) => {
                out.push(0xcd);
                out.extend((*value as u16).to_be_bytes());
            }
            Self::Uint(value @ 65_536..0x1_0000_0000) => {
                out.push(0xce);
                out.extend((*value as u32).to_be_bytes());
            }
            Self::Uint(value) => {
                out.push(0xcf);
                out.extend(value.to_be_bytes());
            }
            Self::Text(text) => {
                out.extend([0xd9, text.len() as u8]);
                out.extend(text.as_bytes());
            }
            Self::Bytes(bytes) => {
                out.extend([0xc4, bytes.len() as u8]);
                out.extend(bytes);
            }
            Self::Array(values) => {
                out.push(0xdc);
                out.extend((values.len() as u16).to_be_bytes());
                values.iter().for_each(|value| value.write(out));
            }
        }
    }
}

pub(crate) fn stored(
    hashes: &[u64],
    parent: Option<u64>,
    tokens: &[u32],
    block_tokens: u64,
    medium: &str,
) -> Event {
    (
        "BlockStored",
        vec![
            ("block_hashes", Value::uints(hashes)),
            ("parent_block_hash", parent.map_or(Value::Nil, Value::Uint)),
            ("token_ids", Value::uints(tokens)),
            ("block_size", Value::Uint(block_tokens)),
            ("lora_id", Value::Nil),
            ("medium", Value::text(medium)),
            ("lora_name", Value::Nil),
        ],
    )
}

pub(crate) fn removed(hashes: &[u64], medium: &str) -> Event {
    ("BlockRemoved", vec![("block_hashes", Value::uints(hashes)), ("medium", Value::text(medium))])
}

pub(crate) fn cleared() -> Event {
    ("AllBlocksCleared", vec![])
}

/// Replaces a field, or adds it.
pub(crate) fn with(mut event: Event, name: &'static str, value: Value) -> Event {
    event.1.retain(|(field, _)| *field != name);
    event.1.push((name, value));
    event
}

pub(crate) fn batch(events: &[Event], by_name: bool) -> Vec<u8> {
    let mut out = vec![if by_name { 0x83 } else { 0x93 }];
    let name = |out: &mut Vec<u8>, name: &str| {
        if by_name {
            Value::text(name).write(out);
        }
    };
    name(&mut out, "ts");
    out.push(0xcb);
    out.extend(1.5_f64.to_be_bytes());
    name(&mut out, "events");
    out.push(0xdc);
    out.extend((events.len() as u16).to_be_bytes());
    for (kind, fields) in events {
        out.push(if by_name { 0x80 } else { 0x90 } | (fields.len() as u8 + 1));
        name(&mut out, "type");
        Value::text(kind).write(&mut out);
        for (field, value) in fields {
            name(&mut out, field);
            value.write(&mut out);
        }
    }
    name(&mut out, "data_parallel_rank");
    out.push(0);
    out
}
