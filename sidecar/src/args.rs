//! Command line of the sidecar; every limit has its default here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use baton_front::FrontArgs;
use baton_membership::Schedulers;
use baton_tls::TlsArgs;
use humantime::Duration as Human;

/// Options of `baton sidecar`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where the scheduler's requests and the decode worker's registration come in (gRPC; port 0: any)
    #[arg(long, env = "BATON_SIDECAR_LISTEN", default_value = "127.0.0.1:8000", value_name = "IP:PORT")]
    pub listen: SocketAddr,

    /// Address that the scheduler reaches this sidecar at [default: the one it listens on]
    #[arg(long, env = "BATON_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Serve OpenAI's HTTP API here, too, for gateways that choose the decode worker themselves; port 8000 is usual. Prompts are
    /// computed by the prefill workers that the header x-prefiller-host-port names, without it where the answer is decoded
    #[arg(long, env = "BATON_HTTP_LISTEN", value_name = "IP:PORT", requires = "model")]
    pub http_listen: Option<SocketAddr>,

    /// Model folder in Hugging Face's format, for --http-listen: its tokenizer and configuration, not its weights
    #[arg(long, env = "BATON_MODEL", value_name = "DIR")]
    pub model: Option<PathBuf>,

    /// Where /metrics, /health and /ready are served (port 0: any)
    #[arg(long, env = "BATON_ADMIN_LISTEN", default_value = "127.0.0.1:9090", value_name = "IP:PORT")]
    pub admin_listen: SocketAddr,

    /// The scheduler's registry, or those of several (commas between; dns:HOST:PORT for every address of a name)
    #[arg(long, env = "BATON_REGISTRY", value_name = "HOST:PORT,…")]
    pub registry: Schedulers,

    /// Requests in flight; more are refused as overloaded
    #[arg(long, default_value_t = 1024, value_name = "N")]
    pub max_requests: usize,

    /// Prefill workers to try for a request before its decode worker prefills
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=8))]
    pub prefill_tries: u8,

    /// Silence after which a prefill worker is given up (it gives a sign of life every 200 ms)
    #[arg(long, default_value = "1s", value_name = "DURATION")]
    pub prefill_silence: Human,

    /// Time for what was pushed to be received, after which the transfer is given up
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    pub handover_patience: Human,

    /// Deadline of requests that come without one
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    pub default_deadline: Human,

    /// Longest that requests in flight may take to end once the sidecar is told to stop, in seconds
    #[arg(long, env = "BATON_DRAIN_TIMEOUT", alias = "drain-deadline", default_value = "30", value_parser = parse_seconds, value_name = "SECONDS")]
    pub drain_timeout: Duration,

    /// TLS of listeners and calls.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Of the HTTP front.
    #[command(flatten, next_help_heading = "With --http-listen")]
    pub front: FrontArgs,
}

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    pub(crate) prefill_tries: usize,
    pub(crate) prefill_silence: Duration,
    pub(crate) handover_patience: Duration,
    pub(crate) default_deadline: Duration,
}

/// Whole seconds, with or without their unit.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number.parse().map(Duration::from_secs).map_err(|error| format!("{error}: write a number of seconds"))
}

impl Args {
    pub(crate) fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            prefill_tries: usize::from(self.prefill_tries),
            prefill_silence: *self.prefill_silence,
            handover_patience: *self.handover_patience,
            default_deadline: *self.default_deadline,
        }
    }
}
