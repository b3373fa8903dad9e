//! One line of the audit log.

use std::time::SystemTime;

use serde::Serialize;

/// What clients choose themselves is cut to this.
const MOST_NAME_BYTES: usize = 256;
const MOST_PROMPT_BYTES: usize = 64 << 10;

/// A request that is over.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Line {
    /// When it came, RFC 3339 in UTC.
    pub(crate) time: String,
    pub(crate) request_id: String,
    /// The key's name; empty: it had none that is known.
    pub(crate) key: String,
    pub(crate) team: String,
    pub(crate) endpoint: String,
    pub(crate) model: String,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) status: u16,
    pub(crate) outcome: String,
    pub(crate) duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<String>,
}

impl Line {
    /// As it stands in the file, with its end.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        for text in [&mut self.request_id, &mut self.endpoint, &mut self.model, &mut self.outcome] {
            cut(text, MOST_NAME_BYTES);
        }
        if let Some(prompt) = &mut self.prompt {
            cut(prompt, MOST_PROMPT_BYTES);
        }
        // Strings and numbers can always be written as JSON.
        let mut bytes = serde_json::to_vec(&self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

pub(crate) fn time(moment: SystemTime) -> String {
    humantime::format_rfc3339_millis(moment).to_string()
}

fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_cannot_break_a_line_or_make_it_endless() {
        let line = Line {
            request_id: "a\nb\"}".to_owned(),
            model: "é".repeat(1000),
            prompt: Some("x".repeat(1 << 20)),
            ..Line::default()
        };
        let bytes = line.into_bytes();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read["request_id"], "a\nb\"}");
        assert_eq!(read["model"].as_str().unwrap().len(), MOST_NAME_BYTES);
        assert_eq!(read["prompt"].as_str().unwrap().len(), MOST_PROMPT_BYTES);
        assert!(read.get("client").is_none());
    }

    #[test]
    fn times_are_in_utc_with_milliseconds() {
        let moment = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_795_237_184_007);
        assert_eq!(time(moment), "2026-11-21T04:59:44.007Z");
    }
}
