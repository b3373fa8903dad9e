//! `baton dev-ca`: certificates to try TLS with.

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use baton_tls::DevCa;

/// Options of `baton dev-ca`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Makes DIR/ca.crt and DIR/ca.key, unless they are there, and DIR/tls.crt and DIR/tls.key, each time anew: one certificate for all
components, for localhost, 127.0.0.1, ::1, this host's name and what --san adds. Components that run take it over. The CA's key lies
beside it, so this is for development.

The options for the components are printed:
  baton scheduler --model ./my-model $(baton dev-ca ./certificates)
  curl --cacert ./certificates/ca.crt https://localhost:8000/v1/models")]
pub(crate) struct DevCaArgs {
    /// Folder of the CA
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Another host name or IP address of components; several with commas between
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    san: Vec<String>,

    /// Days that the certificate is good for; the CA's is for ten years
    #[arg(long, default_value_t = 365, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

pub(crate) fn run(args: &DevCaArgs) -> anyhow::Result<()> {
    let made = DevCa::open_or_create(&args.folder)?.equip(&args.folder, &args.san, args.days)?;
    let words: Vec<String> =
        made.words().into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    writeln!(std::io::stdout(), "{}", words.join(" ")).context("cannot write to standard output")
}
