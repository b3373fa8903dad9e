//! Traces in Mooncake's format, one JSON object a line.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

/// Tokens of a block that a trace's `hash_ids` stand for.
pub(crate) const BLOCK_TOKENS: u64 = 512;

#[derive(Deserialize)]
struct Row {
    timestamp: f64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
}

/// A request of the trace.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// ms from the beginning.
    pub(crate) at: f64,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    /// One for each block of the prompt; equal ones are equal prefixes.
    pub(crate) blocks: Vec<u64>,
}

/// Reads a trace. Requests with the same time stamp are spread evenly up to the next one: traces come in steps of seconds.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Request>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut requests = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Row =
            serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
        requests.push(Request {
            at: row.timestamp,
            prompt_tokens: row.input_length.max(1),
            output_tokens: row.output_length.max(1),
            blocks: row.hash_ids,
        });
    }
    requests.sort_by(|a, b| a.at.total_cmp(&b.at));
    spread(&mut requests);
    Ok(requests)
}

fn spread(requests: &mut [Request]) {
    let mut begin = 0;
    while begin < requests.len() {
        let at = requests[begin].at;
        let end = begin + requests[begin..].iter().take_while(|request| request.at == at).count();
        let next = requests.get(end).map_or(at, |request| request.at);
        for (k, request) in requests[begin..end].iter_mut().enumerate() {
            request.at = at + (next - at) * k as f64 / (end - begin) as f64;
        }
        begin = end;
    }
}
