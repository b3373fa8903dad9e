//! `baton key`: API keys, which are shown once and kept as hashes.

use std::io::{Read as _, Write as _};

use anyhow::Context as _;
use baton_tenancy::{KeyHash, Secret};

/// Longer ones are no keys.
const MOST_BYTES: u64 = 4096;

/// What to do with keys.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// Make a key: it is shown once, with its entry for the key file
    #[command(after_help = "\
Examples:
  baton key new --name alice --team research
  baton key new --name alice >> keys.yaml      the entry alone; the key is shown on the terminal

The scheduler reads the file with --api-keys-file.")]
    New {
        /// Name that logs, metrics and the audit log show
        #[arg(long, default_value = "my-key", value_name = "NAME")]
        name: String,

        /// Team that its usage is counted for
        #[arg(long, value_name = "NAME")]
        team: Option<String>,

        /// For an operator, who may look at workers and decisions, and load adapters
        #[arg(long)]
        admin: bool,
    },
    /// Print the hash of a key that you have, read from standard input: for `hash:` in the key file
    Hash,
}

pub(crate) fn run(command: &KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::New { name, team, admin } => new(name, team.as_deref(), *admin),
        KeyCommand::Hash => hash(),
    }
}

/// The key goes to standard error, so that the entry can be appended to the file as it is.
fn new(name: &str, team: Option<&str>, is_admin: bool) -> anyhow::Result<()> {
    let secret = Secret::generate().context("the system gives no random numbers")?;
    let hash = KeyHash::of(&secret).context("the system gives no random numbers")?;
    let team = team.map_or_else(String::new, |team| format!("    team: {team}\n"));
    let admin = if is_admin { "    admin: true\n" } else { "" };
    let entry = format!("  - name: {name}\n{team}    hash: {hash}\n{admin}");
    baton_tenancy::check_key_file(&format!("keys:\n{entry}"))?;
    writeln!(
        std::io::stderr(),
        "key (shown this once; give it to its holder): {}\nentry (append it below `keys:` in the key file):",
        secret.reveal()
    )
    .context("cannot write to standard error")?;
    std::io::stdout().write_all(entry.as_bytes()).context("cannot write to standard output")
}

fn hash() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().take(MOST_BYTES).read_to_string(&mut text).context("cannot read standard input")?;
    let secret = Secret::try_new(text.trim())?;
    let hash = KeyHash::of(&secret).context("the system gives no random numbers")?;
    writeln!(std::io::stdout(), "{hash}").context("cannot write to standard output")
}
