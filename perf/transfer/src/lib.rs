//! `baton bench transfer`: KV blocks between two processes, over any fabric, and in the same run, in turn with it, one thread's memcpy of
//! the same pieces: figures without the machine's limit mean little on a shared machine.
//!
//! Deliberately absent: deployments under load, which `perf/load` measures.

mod memcpy;
mod protocol;
mod receiver;
mod report;
mod sender;
mod staging;
mod tables;

use std::path::PathBuf;

use anyhow::Result;
use baton_kv_transfer::{ChecksumMode, FabricSpec};

use self::protocol::Scenario;

/// Options of `baton bench transfer`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Two processes on this host move the same bytes several times, in pieces of each size and in runs of neighbouring blocks of each
length, in random order. In turn with them one thread copies the same pieces between two shared mappings by memcpy: the
machine's limit for a single copying thread. Medians are printed as a Markdown table.

  raw       the fabric's own writes of the same runs, with no protocol on top (not for shm, where memcpy is the limit)
  GB/s      from opening the transfer to \"every byte is here and checked\" at the receiver
  latency   from pushing the last layer to the same moment, the other layers being there already

Examples:
  baton bench transfer
  baton bench transfer --fabric libfabric:tcp --libfabric /path/to/libfabric.so.1 --pieces 64,1024 --runs 1
  baton bench transfer --fabric libfabric:tcp --staging-curve --pieces 4,16,64,256")]
pub struct Args {
    /// What moves the bytes: shm, libfabric, ucx or nixl (libfabric:PROVIDER, ucx:TRANSPORTS, nixl:BACKEND to choose)
    #[arg(long, default_value = "shm", value_name = "FABRIC")]
    fabric: FabricSpec,

    /// Where libfabric.so.1 is, if not where the system looks
    #[arg(long, env = "BATON_LIBFABRIC", value_name = "FILE")]
    libfabric: Option<PathBuf>,

    /// NICs (by libfabric's name) or IP addresses over which libfabric's writes are striped, such as 127.0.0.2,127.0.0.3
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    rails: Vec<String>,

    /// Where NIXL's libnixl_capi.so is: the file, its folder, or the site-packages with NIXL [default: where the loader finds it]
    #[arg(long, env = "BATON_NIXL", value_name = "PATH")]
    nixl: Option<PathBuf>,
    /// Where libucp.so.0 is, if not where the system looks
    #[arg(long, env = "BATON_UCX", value_name = "FILE")]
    ucx: Option<PathBuf>,

    /// Sizes of a piece (one block in one layer), in KiB
    #[arg(long, value_delimiter = ',', default_value = "16,64,256,1024", value_name = "KIB,…", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pieces: Vec<u64>,

    /// Lengths of a run of neighbouring blocks
    #[arg(long, value_delimiter = ',', default_value = "1,8,64", value_name = "BLOCKS,…", value_parser = clap::value_parser!(u32).range(1..=4096))]
    runs: Vec<u32>,

    /// Layers of the pool
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    layers: u32,

    /// MiB moved in one round
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size: u64,

    /// Rounds; their median counts
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,

    /// Small transfers timed for the latency
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    latencies: u32,

    /// Transfers of one block that are started at once, in the smallest pieces; 0 leaves that out
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=4096))]
    crowd: u32,

    /// Blocks of a transfer in which no two are neighbours, timed for what a write costs; 0 leaves that out
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=200_000))]
    operations: u32,

    /// What is hashed at both ends: off, sampled or full
    #[arg(long, default_value = "sampled", value_name = "MODE")]
    checksums: ChecksumMode,

    /// Chunks of 1 MiB through which short pieces travel together (not over shm, which needs none); 0: never
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(0..=1024))]
    staging_chunks: u16,

    /// Only compare, for each size of a piece, a write for each with chunks in which they travel together: up to which size
    /// chunks pay on this link is what a worker's --stage-below takes
    #[arg(long)]
    staging_curve: bool,

    /// Give the receiver another layout (tokens before heads), which the transfer converts
    #[arg(long)]
    convert: bool,

    /// Be the other process of a measurement
    #[arg(long, hide = true)]
    receiver: bool,
}

/// Measures, and prints a table.
///
/// # Errors
/// A fabric that cannot be started, a process that dies, or bytes that do not arrive.
pub async fn run(args: Args) -> Result<()> {
    if args.receiver {
        return receiver::serve().await;
    }
    if args.staging_curve {
        return staging::curve(&args).await;
    }
    report::begin(&args)?;
    for &piece_kib in &args.pieces {
        for &run in &args.runs {
            let scenario = Scenario::new(&args, piece_kib, run);
            if scenario.blocks < run {
                report::note(&format!(
                    "{piece_kib} KiB in runs of {run}: one run is over --size {} MiB",
                    args.size
                ))?;
                continue;
            }
            let measured = sender::measure(&scenario, args.rounds, args.latencies).await?;
            report::row(&scenario, &measured)?;
        }
    }
    let smallest = args.pieces.iter().min().map(|&piece_kib| Scenario::new(&args, piece_kib, 1));
    if let Some(scenario) = smallest.filter(|scenario| args.crowd > 0 && scenario.blocks > 0) {
        let times = sender::measure_crowd(&scenario, args.crowd).await?;
        report::crowd(&scenario, &times)?;
    }
    if args.operations > 0 {
        let operations = sender::measure_operations(&Scenario::of_operations(&args)).await?;
        report::operations(&operations)?;
    }
    Ok(())
}
