//! A model's revision: the same on every machine that has the same weights.

use std::hash::Hasher;

use serde_json::Value;
use twox_hash::XxHash3_64;

use super::checkpoint::Checkpoint;

/// Places of a tensor whose bytes are hashed.
const SAMPLES: usize = 16;
/// Bytes hashed at each place.
const SAMPLE_BYTES: usize = 64;

/// Hash, as 16 hexadecimal digits, over `config.json` (not its formatting), each tensor's name, type and shape in the order of names, and
/// [`SAMPLES`] pieces of its bytes. How tensors are spread over files does not matter. A retrained model has another
/// revision; a single flipped byte in a large tensor need not (checking files is a download's business).
pub(super) fn revision(config: &Value, checkpoint: &Checkpoint) -> String {
    hash_of(config, checkpoint, |bytes, field| {
        for sample in 0..SAMPLES {
            let last = bytes.len().saturating_sub(SAMPLE_BYTES);
            let start = last * sample / (SAMPLES - 1);
            field(&bytes[start..bytes.len().min(start + SAMPLE_BYTES)]);
        }
    })
}

/// The same over every byte: what is small enough for it, and is exchanged while others remember what they computed with it.
pub(super) fn revision_of_all(config: &Value, checkpoint: &Checkpoint) -> String {
    hash_of(config, checkpoint, |bytes, field| field(bytes))
}

fn hash_of(
    config: &Value,
    checkpoint: &Checkpoint,
    contents: impl Fn(&[u8], &mut dyn FnMut(&[u8])),
) -> String {
    let mut hash = XxHash3_64::with_seed(0);
    let mut field = |bytes: &[u8]| {
        hash.write(&(bytes.len() as u64).to_le_bytes());
        hash.write(bytes);
    };
    let mut settings = String::new();
    write_sorted(config, &mut settings);
    field(settings.as_bytes());
    for header in checkpoint.headers() {
        field(header.name.as_bytes());
        field(header.stored.as_bytes());
        for dim in header.shape {
            field(&(*dim as u64).to_le_bytes());
        }
        contents(header.bytes, &mut field);
    }
    format!("{:016x}", hash.finish())
}

/// `value` as JSON with the keys of objects in order and no spaces, whatever the file's formatting.
fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for value in list {
                write_sorted(value, out);
                out.push(',');
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let write = |text: &str| {
            let mut out = String::new();
            write_sorted(&serde_json::from_str(text).unwrap(), &mut out);
            out
        };
        assert_eq!(
            write(r#"{"a": 1, "b": {"d": [1, "x"], "c": null}}"#),
            write(r#"{"b":{"c":null,"d":[1,"x"]},"a":1}"#)
        );
        assert_ne!(write(r#"{"a": 1}"#), write(r#"{"a": 2}"#));
    }
}
