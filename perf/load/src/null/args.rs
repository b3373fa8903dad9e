//! `baton bench null-server`.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use super::{Freeze, NullServer, Truth};

/// What a null server does.
#[derive(clap::Args, Clone, Debug)]
pub struct TruthArgs {
    /// Time to the first event
    #[arg(long, default_value = "50ms", value_name = "TIME", value_parser = humantime::parse_duration)]
    ttft: Duration,

    /// Time from a token to the next
    #[arg(long, default_value = "10ms", value_name = "TIME", value_parser = humantime::parse_duration)]
    itl: Duration,

    /// Tokens of each event
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    tokens_per_event: u32,

    /// Tokens of an answer where the request names no limit
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,

    /// Share of requests that get status 500, from 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = parse_share)]
    error_share: f64,

    /// Stand still for so long, all streams at a time; --freeze-after says when
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    freeze: Option<Duration>,

    /// When the first freeze begins, counted from the first request
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    freeze_after: Duration,

    /// Freeze again so long after each freeze [default: once]
    #[arg(long, value_name = "TIME", value_parser = parse_some_time)]
    freeze_every: Option<Duration>,

    /// Answer 400 to stream_options.continuous_usage_stats, as servers do that do not know it
    #[arg(long)]
    no_continuous_usage: bool,

    /// Which requests fail follows from this
    #[arg(long, default_value_t = 0, value_name = "N")]
    error_seed: u64,
}

impl From<&TruthArgs> for Truth {
    fn from(args: &TruthArgs) -> Self {
        Self {
            ttft: args.ttft,
            itl: args.itl,
            tokens_per_event: args.tokens_per_event,
            default_tokens: args.tokens,
            error_share: args.error_share,
            freeze: args.freeze.map(|length| Freeze {
                after: args.freeze_after,
                length,
                every: args.freeze_every,
            }),
            has_continuous_usage: !args.no_continuous_usage,
            seed: args.error_seed,
            ..Self::default()
        }
    }
}

/// Options of `baton bench null-server`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
A server with OpenAI's API that computes nothing and keeps time exactly: what a client measures beside --ttft and --itl is the
client's own error. GET /sent/REQUEST_ID says when each event of an answer was really sent, in nanoseconds of the machine's
monotonic clock.

Examples:
  baton bench null-server
  baton bench null-server --ttft 20ms --itl 5ms --tokens-per-event 8
  baton bench null-server --freeze 2s --freeze-after 10s --freeze-every 30s")]
pub struct NullServerArgs {
    /// Where to listen; port 0: any that is free
    #[arg(long, default_value = "127.0.0.1:8001", value_name = "ADDRESS")]
    listen: SocketAddr,

    #[command(flatten)]
    truth: TruthArgs,
}

/// Serves until the process ends. Prints `ready URL` when it does.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(args: &NullServerArgs) -> io::Result<()> {
    let server = NullServer::start(Truth::from(&args.truth), args.listen)?;
    writeln!(io::stdout(), "ready {}", server.url())?;
    server.join()
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is from 0 to 1".to_owned()) }
}

fn parse_some_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(time) }
}
