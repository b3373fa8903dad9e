use serde::{Deserialize, Serialize};

use crate::Micros;

/// One request as it went. Times are since the start of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the plan.
    pub index: u32,
    /// The session whose turn it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Its place in the session, from 0.
    #[serde(default)]
    pub turn: u32,
    /// When the plan said to send it: what latencies are counted from.
    pub intended_us: Micros,
    /// When its first byte was handed to the socket; absent if it never came to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_us: Option<Micros>,
    /// Each event that brought output, in order. An answer that was not streamed is one chunk.
    pub chunks: Vec<Chunk>,
    /// When the answer's last byte, the error, or the cancel came; absent if the run ended first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_us: Option<Micros>,
    /// Tokens of the prompt, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Count>,
    /// Those of them that the server says it had cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<Count>,
    /// Tokens of the answer, as far as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Count>,
    /// Where the counts of `chunks` come from.
    pub chunk_tokens: CountSource,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The server's name for it, by which its records are joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// Where its time went inside the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phases: Option<Phases>,
}

/// An event that brought output: `[microseconds, tokens]` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Micros, u32)", into = "(Micros, u32)")]
pub struct Chunk {
    /// When it was read from the socket.
    pub at: Micros,
    /// How many tokens it brought; 0 for text that completes no token.
    pub tokens: u32,
}

impl From<(Micros, u32)> for Chunk {
    fn from((at, tokens): (Micros, u32)) -> Self {
        Self { at, tokens }
    }
}

impl From<Chunk> for (Micros, u32) {
    fn from(chunk: Chunk) -> Self {
        (chunk.at, chunk.tokens)
    }
}

/// A number of tokens, and who counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many.
    pub tokens: u32,
    /// Who says so.
    pub source: CountSource,
}

/// Who counted tokens, the most trustworthy first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountSource {
    /// The server, in the usage of each event (`continuous_usage_stats`).
    ContinuousUsage,
    /// The server, in the usage at the end.
    Usage,
    /// The client, with the model's tokenizer.
    Tokenizer,
    /// The plan: what was asked for.
    Plan,
    /// Nobody: one token for each chunk is assumed.
    Assumed,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// With a whole answer.
    Complete {
        /// The server's word why the answer ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        finish_reason: Option<String>,
    },
    /// With an error, whoever's fault it is.
    Failed {
        /// The HTTP status, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// What was said.
        message: String,
    },
    /// By the client, as planned.
    Cancelled,
    /// Not, when the run ended.
    Unfinished,
}

/// The server's own account of a request, in microseconds. A phase that the server does not report is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// From arrival to the start of prefill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_us: Option<Micros>,
    /// Computing the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_us: Option<Micros>,
    /// Moving the KV cache, as far as it was not hidden behind prefill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer_us: Option<Micros>,
    /// From having the KV cache to the first step of decode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_wait_us: Option<Micros>,
    /// From arrival to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_us: Option<Micros>,
    /// From the first token to the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_us: Option<Micros>,
    /// Who computed the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_worker: Option<String>,
    /// Who computed the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_worker: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_json_and_is_compact() {
        let record = Record {
            index: 3,
            session: None,
            turn: 0,
            intended_us: Micros(1_000),
            sent_us: Some(Micros(1_040)),
            chunks: vec![Chunk { at: Micros(21_040), tokens: 8 }, Chunk { at: Micros(61_040), tokens: 8 }],
            end_us: Some(Micros(61_090)),
            input: Some(Count { tokens: 12, source: CountSource::Usage }),
            cached: None,
            output: Some(Count { tokens: 16, source: CountSource::Usage }),
            chunk_tokens: CountSource::ContinuousUsage,
            outcome: Outcome::Failed { status: Some(500), message: "out of blocks".into() },
            server_id: Some("chatcmpl-1".into()),
            phases: Some(Phases { queue_us: Some(Micros(7)), ..Phases::default() }),
        };
        let json = serde_json::to_string(&record).expect("a record is JSON");
        assert_eq!(
            json,
            concat!(
                r#"{"index":3,"turn":0,"intended_us":1000,"sent_us":1040,"chunks":[[21040,8],[61040,8]],"end_us":61090,"#,
                r#""input":{"tokens":12,"source":"usage"},"output":{"tokens":16,"source":"usage"},"#,
                r#""chunk_tokens":"continuous_usage","outcome":"failed","status":500,"message":"out of blocks","#,
                r#""server_id":"chatcmpl-1","phases":{"queue_us":7}}"#
            )
        );
        assert_eq!(serde_json::from_str::<Record>(&json).expect("it is a record"), record);
    }
}
