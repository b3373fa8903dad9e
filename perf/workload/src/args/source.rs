//! What requests ask.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use super::{LimitArgs, OptionsInvalid, load::parse_positive};
use crate::{
    distribution::{Distribution, Seconds, Tokens, parse_time},
    trace::TraceFormat,
    workload::{
        CancelAfter, CancelShare, Load, PrefixGroups, Sessions, Source, Synthetic, Trace, TraceOutput,
        Workload,
    },
};

const INPUT_TOKENS: u32 = 512;
const OUTPUT_TOKENS: u32 = 128;

/// What requests ask: lengths from distributions, or a file. A distribution is a number or
/// uniform:100-2000, normal:mean=500,stddev=100, lognormal:median=350,p99=1100, exponential:mean=500,
/// histogram:1-100=5,101-200=3 or file:FILE; the last four can have min= and max= as well.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Requests")]
pub struct SourceArgs {
    /// Root of all random numbers: the same seed and options give the same requests, byte for byte
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Tokens of a prompt, after the prefix that it shares [default: 512]: a number, uniform:100-2000,
    /// normal:mean=500,stddev=100, lognormal:median=350,p99=1100 (or p90=, p95=, sigma=), exponential:mean=500 (these with
    /// min= and max= where wanted), histogram:1-100=5,101-200=3, or file:FILE with a value or a range and its weight a line
    #[arg(long, visible_alias = "isl", value_name = "DISTRIBUTION", conflicts_with = "recorded")]
    input_tokens: Option<Distribution<Tokens>>,

    /// Tokens of an answer, in the same way [default: 128, or as the trace says; given, it takes the place of what the trace says]
    #[arg(long, visible_alias = "osl", value_name = "DISTRIBUTION")]
    output_tokens: Option<Distribution<Tokens>>,

    /// Let all prompts begin with one of some shared prefixes of so many tokens
    #[arg(long, value_name = "DISTRIBUTION", conflicts_with = "recorded")]
    prefix_tokens: Option<Distribution<Tokens>>,

    /// How many shared prefixes there are, each as frequent as the others
    #[arg(long, value_name = "N", default_value = "1", requires = "prefix_tokens")]
    prefix_groups: NonZeroU32,

    /// Make conversations of so many turns; each turn's prompt is all that was said before and --next-input-tokens more
    #[arg(long, value_name = "DISTRIBUTION", conflicts_with = "recorded")]
    turns: Option<Distribution<Tokens>>,

    /// Tokens that each turn after the first adds [default: as --input-tokens]
    #[arg(long, value_name = "DISTRIBUTION", requires = "turns")]
    next_input_tokens: Option<Distribution<Tokens>>,

    /// Time between an answer and the next turn, such as 2s or exponential:mean=5s
    #[arg(long, value_name = "DISTRIBUTION", default_value = "0s", requires = "turns")]
    think_time: Distribution<Seconds>,

    /// Cancel this share of requests, from 0 to 1 [default: none]
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    cancel_share: Option<f64>,

    /// Cancel after so many tokens [default: any number up to what was asked for, each alike]
    #[arg(
        long,
        value_name = "DISTRIBUTION",
        requires = "cancel_share",
        conflicts_with = "cancel_after_time"
    )]
    cancel_after_tokens: Option<Distribution<Tokens>>,

    /// Cancel so long after sending
    #[arg(long, value_name = "DISTRIBUTION", requires = "cancel_share")]
    cancel_after_time: Option<Distribution<Seconds>>,

    /// Take requests from this file: a trace of Mooncake (JSONL) or Azure (CSV), conversations of ShareGPT, JSONL of one's own, or
    /// prompts, one a line
    #[arg(long, value_name = "FILE", group = "recorded", help_heading = "Trace")]
    trace: Option<PathBuf>,

    /// The file's format: mooncake, azure, jsonl, sharegpt or lines [default: seen from its content]
    #[arg(long, value_name = "FORMAT", requires = "trace", help_heading = "Trace")]
    trace_format: Option<TraceFormat>,

    /// Multiply the trace's times: 0.5 replays it twice as fast
    #[arg(long, value_name = "FACTOR", value_parser = parse_positive, requires = "recorded", help_heading = "Trace")]
    time_scale: Option<f64>,

    /// Spread requests with the same time evenly up to the next time: some traces have time stamps in steps of seconds
    #[arg(long, requires = "recorded", help_heading = "Trace")]
    spread: bool,

    /// Begin so far into the trace, in its own time
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time, requires = "recorded", help_heading = "Trace")]
    trace_skip: Duration,

    /// Multiply the trace's lengths: 0.1 fits long prompts into a small model
    #[arg(long, value_name = "FACTOR", value_parser = parse_positive, default_value_t = 1.0, requires = "recorded", help_heading = "Trace")]
    token_scale: f64,

    /// Leave out the trace's requests that are longer than the model's context, prompt and answer together
    #[arg(long, value_name = "TOKENS", requires = "recorded", help_heading = "Trace")]
    max_context_tokens: Option<NonZeroU32>,

    /// Leave out turns of the trace's conversations after so many
    #[arg(long, value_name = "N", default_value = "1000", requires = "recorded", help_heading = "Trace")]
    max_turns: NonZeroU32,
}

impl SourceArgs {
    /// The settings, for a load.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub fn workload(&self, load: Load, limit: &LimitArgs) -> Result<Workload, OptionsInvalid> {
        let has_end =
            self.is_trace() || matches!(&load, Load::Open { profile, .. } if profile.length().is_some());
        let (requests, duration) = limit.limit(has_end);
        let output = || self.output_tokens.clone().unwrap_or_else(|| Distribution::fixed(OUTPUT_TOKENS));
        let source = match &self.trace {
            None => Source::Synthetic(self.synthetic(output())),
            Some(path) => Source::Trace(Trace {
                path: path.clone(),
                format: self.trace_format,
                output: match self.output_tokens {
                    Some(_) => TraceOutput::Drawn(output()),
                    None => TraceOutput::Recorded { otherwise: output() },
                },
                token_scale: self.token_scale,
                max_context_tokens: self.max_context_tokens,
                skip: self.trace_skip,
                max_turns: self.max_turns,
            }),
        };
        Ok(Workload { seed: self.seed, load, requests, duration, source, cancel: self.cancel() })
    }

    fn synthetic(&self, output: Distribution<Tokens>) -> Synthetic {
        let input = self.input_tokens.clone().unwrap_or_else(|| Distribution::fixed(INPUT_TOKENS));
        let prefixes = self.prefix_tokens.clone();
        let sessions = self.turns.clone().map(|turns| Sessions {
            turns,
            next_input: self.next_input_tokens.clone().unwrap_or_else(|| input.clone()),
            think: self.think_time.clone(),
        });
        Synthetic {
            prefixes: prefixes.map(|tokens| PrefixGroups { groups: self.prefix_groups, tokens }),
            sessions,
            input,
            output,
        }
    }

    fn cancel(&self) -> Option<CancelShare> {
        let after = match (&self.cancel_after_tokens, &self.cancel_after_time) {
            (Some(tokens), _) => CancelAfter::Tokens(tokens.clone()),
            (None, Some(time)) => CancelAfter::Time(time.clone()),
            (None, None) => CancelAfter::AnyToken,
        };
        self.cancel_share.map(|share| CancelShare { share, after })
    }

    /// Takes requests from this file of the project's own rows. An option of a command that leads here belongs to the group `recorded`, beside `--trace`.
    pub fn take_rows(&mut self, path: PathBuf) {
        (self.trace, self.trace_format) = (Some(path), Some(TraceFormat::Jsonl));
    }

    /// The root of all random numbers, which content is made from too.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn is_trace(&self) -> bool {
        self.trace.is_some()
    }

    pub(super) fn recorded(&self, max_in_flight: Option<NonZeroU32>) -> Load {
        Load::Recorded { time_scale: self.time_scale.unwrap_or(1.0), is_spread: self.spread, max_in_flight }
    }

    pub(super) fn check_no_replay(&self) -> Result<(), OptionsInvalid> {
        match self.time_scale.is_some() || self.spread {
            true => Err(OptionsInvalid(
                "--time-scale and --spread are for the trace's own times, which --rate and --concurrency replace".into(),
            )),
            false => Ok(()),
        }
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("it must be a number from 0 to 1".into()),
    }
}
