//! Reads what an upstream's answer says of tokens, while it passes by.

use serde::Deserialize;

/// Longer lines are passed on without being read.
const MOST_LINE_BYTES: usize = 1 << 20;

/// Tokens that an answer took, as far as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
}

#[derive(Deserialize)]
struct Said {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

/// The `usage` of an answer or of a stream's chunk.
pub(super) fn usage(json: &[u8]) -> Option<Used> {
    let Usage { prompt_tokens, completion_tokens, prompt_tokens_details } =
        serde_json::from_slice::<Said>(json).ok()?.usage?;
    let cached = prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
    Some(Used { prompt: prompt_tokens, cached, output: completion_tokens })
}

/// Of a stream of server-sent events.
#[derive(Debug, Default)]
pub(super) struct Meter {
    line: Vec<u8>,
    used: Option<Used>,
    /// Events that may have a token.
    chunks: u64,
    has_failed: bool,
}

impl Meter {
    /// More of the stream, cut anywhere.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.keep(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// What it says; of one that does not say, a token an event. `prompt` is what is known of the prompt otherwise.
    pub(super) fn used(&self, prompt: u64) -> Used {
        self.used.unwrap_or(Used { prompt, cached: 0, output: self.chunks })
    }

    /// Whether what was read ends with a line.
    pub(super) fn is_between_lines(&self) -> bool {
        self.line.is_empty()
    }

    /// Whether the stream told of an error.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MOST_LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { return };
        if data.starts_with(b"{\"error\"") {
            self.has_failed = true;
        } else if data.starts_with(b"{") {
            // Most chunks have none, or a null: only those are parsed that could have one.
            let may_say = data.windows(USAGE.len()).any(|part| part == USAGE);
            match may_say.then(|| usage(data)).flatten() {
                Some(used) => self.used = Some(used),
                None => self.chunks += 1,
            }
        }
    }
}

const USAGE: &[u8] = b"\"usage\"";

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n";
    const LAST: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\
                        \"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\ndata: [DONE]\n\n";

    fn meter(stream: &str, piece: usize) -> Meter {
        let mut meter = Meter::default();
        stream.as_bytes().chunks(piece).for_each(|piece| meter.read(piece));
        meter
    }

    #[test]
    fn usage_is_found_however_the_stream_is_cut() {
        let stream = format!(": hello\r\n{CHUNK}{CHUNK}{LAST}").replace("\n\n", "\r\n\r\n");
        for piece in 1..stream.len() {
            assert_eq!(meter(&stream, piece).used(9), Used { prompt: 7, cached: 2, output: 3 }, "{piece}");
        }
    }

    #[test]
    fn a_stream_that_does_not_say_has_a_token_an_event() {
        let stream = format!("{CHUNK}{CHUNK}data: [DONE]\n\n");
        assert_eq!(meter(&stream, 10).used(9), Used { prompt: 9, cached: 0, output: 2 });
        assert!(!meter(&stream, 10).has_failed());
        assert!(meter("data: {\"error\":{\"message\":\"x\"}}\n\n", 5).has_failed());
    }

    #[test]
    fn endless_lines_are_not_kept() {
        let mut meter = Meter::default();
        for _ in 0..100 {
            meter.read(&[b'x'; 100_000]);
        }
        assert!(meter.line.len() <= MOST_LINE_BYTES);
        meter.read(format!("\n{LAST}").as_bytes());
        assert_eq!(meter.used(0).output, 3);
    }

    #[test]
    fn an_answer_in_one_piece_says_it_too() {
        assert_eq!(
            usage(br#"{"usage":{"prompt_tokens":1}}"#),
            Some(Used { prompt: 1, cached: 0, output: 0 })
        );
        for nothing in ["{}", "[]", r#"{"usage":null}"#, r#"{"usage":{"prompt_tokens":-1}}"#, "no json"] {
            assert_eq!(usage(nothing.as_bytes()), None, "{nothing}");
        }
    }
}
