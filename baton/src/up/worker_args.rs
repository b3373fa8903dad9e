//! Options of `baton up` that are every worker's: passed on as they are, with the worker's own defaults where nothing is said.
//!
//! What a worker has beside them is either for `up` to choose (names, addresses) or for those who measure a link (`--push-group`,
//! `--stage-below`) or bound a queue behind the front's own (`--max-waiting`): they start workers by hand.

use clap::{Args, value_parser};
use serde::Serialize;

/// Options of each worker.
#[derive(Args, Clone, Debug, Serialize)]
#[command(next_help_heading = "Workers")]
pub(crate) struct WorkerOptions {
    /// Memory for the KV cache of each worker, such as 512MiB or 4GiB [default: the worker's own]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_memory: Option<String>,

    /// KV blocks of each worker, instead of a size in bytes
    #[arg(long, value_name = "N", conflicts_with = "kv_memory")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_blocks: Option<u32>,

    /// Tokens in one KV block, which is what the prefix cache shares [default: 16]
    #[arg(long, value_name = "TOKENS", value_parser = value_parser!(u16).range(1..=1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    block_tokens: Option<u16>,

    /// Compute every prompt in full, rather than keep KV blocks for requests that begin the same
    #[arg(long)]
    no_prefix_cache: bool,

    /// Number format of weights and KV cache: bf16 or f32 [default: bf16]
    #[arg(long, value_name = "DTYPE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,

    /// What weights become when they are loaded: none or int8 [default: none]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    quantization: Option<String>,

    /// Requests that each worker computes at a time; others wait [default: 64]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_running: Option<u32>,

    /// Tokens that each worker computes in one step [default: 512]
    #[arg(long, value_name = "TOKENS", value_parser = value_parser!(u32).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_step_tokens: Option<u32>,

    /// Prompt tokens in a step in which requests generate, who wait for it [default: as many as keep such a step under twice as long as without, as measured]
    #[arg(long, value_name = "TOKENS", value_parser = value_parser!(u32).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_chunk_tokens: Option<u32>,

    /// Compute for this part of the time only, as on processors that are so much slower: for comparing splits of many workers on a small
    /// machine [default: 100]
    #[arg(long, value_name = "PERCENT", value_parser = value_parser!(u8).range(1..=100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_percent: Option<u8>,

    /// Take as long for each step as this profile says, from `baton tune profile` or an estimate by `baton tune recommend --write-profile`,
    /// computing all the same: a fleet as on hardware that one does not have
    #[arg(long, value_name = "FILE", conflicts_with = "compute_percent")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pace: Option<String>,
}

impl WorkerOptions {
    /// As they stand on a worker's command line: a name, and its value if it has one.
    pub(crate) fn words(&self) -> Vec<(&'static str, Option<String>)> {
        let Self {
            kv_memory,
            kv_blocks,
            block_tokens,
            no_prefix_cache,
            dtype,
            quantization,
            max_running,
            max_step_tokens,
            prefill_chunk_tokens,
            compute_percent,
            pace,
        } = self;
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        let options = [
            ("--kv-memory", kv_memory.clone()),
            ("--kv-blocks", number(*kv_blocks)),
            ("--block-tokens", number(block_tokens.map(u32::from))),
            ("--dtype", dtype.clone()),
            ("--quantization", quantization.clone()),
            ("--max-running", number(*max_running)),
            ("--max-step-tokens", number(*max_step_tokens)),
            ("--prefill-chunk-tokens", number(*prefill_chunk_tokens)),
            ("--compute-percent", number(compute_percent.map(u32::from))),
            ("--pace", pace.clone()),
        ];
        let given = options.into_iter().filter(|(_, value)| value.is_some());
        given.chain(no_prefix_cache.then_some(("--no-prefix-cache", None))).collect()
    }
}
