//! `baton pull`: download a model, and say where it is.

use std::io::Write as _;

use anyhow::Context as _;
use baton_hub::{HubArgs, HubId, Progress};

/// Options of `baton pull`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  baton pull Qwen/Qwen3-0.6B               the newest state of its main branch
  baton pull Qwen/Qwen3-0.6B@refs/pr/1     another branch, tag or commit

The files go to the cache that other tools use too. A download that broke off is continued. The folder is printed.")]
pub(crate) struct PullArgs {
    /// The model: org/name, or org/name@revision
    #[arg(value_name = "HUB_ID")]
    model: HubId,

    #[command(flatten)]
    hub: HubArgs,
}

pub(crate) async fn run(args: PullArgs) -> anyhow::Result<()> {
    let folder = baton_hub::pull(&args.model, &args.hub.into_config(), &mut Progress::to_stderr()).await?;
    writeln!(std::io::stdout(), "{}", folder.path.display()).context("cannot write to standard output")
}
