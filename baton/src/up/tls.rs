//! TLS of `baton up`: with certificates of one's own, or of a development CA that is made when it is first needed.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use baton_tls::{DevCa, Dial, Tls, TlsArgs};
use clap::Args;

/// A new certificate is made at each start.
const DAYS: u32 = 365;

/// Options.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
pub(crate) struct UpTlsOptions {
    /// HTTPS at the front, and mutual TLS between the processes, with a development CA that is made and kept in --tls-dir
    #[arg(long, conflicts_with = "tls_cert")]
    tls: bool,

    /// Folder of the CA for --tls, as `baton dev-ca` makes it; one with tls.crt, tls.key and ca.crt but no ca.key is used as it is
    /// [default: ~/.local/state/baton/tls]
    #[arg(long, env = "BATON_TLS_DIR", value_name = "DIR", requires = "tls")]
    tls_dir: Option<PathBuf>,

    #[arg(long, env = "XDG_STATE_HOME", value_name = "DIR", hide = true)]
    user_state: Option<PathBuf>,

    #[command(flatten)]
    files: TlsArgs,
}

/// How the processes speak.
#[derive(Clone, Debug)]
pub(crate) struct UpTls {
    /// Options of each process; none: plain text.
    pub(crate) files: TlsArgs,
    /// Where the certificate is made.
    folder: Option<PathBuf>,
}

impl UpTls {
    /// # Errors
    /// The processes could not know each other.
    pub(crate) fn try_new(options: UpTlsOptions) -> anyhow::Result<Self> {
        if !options.tls {
            let files = options.files;
            ensure!(
                files.tls_cert.is_none() || files.tls_ca.is_some(),
                "--tls-cert needs --tls-ca, too: the processes know each other by it; or use --tls"
            );
            return Ok(Self { files, folder: None });
        }
        let folder = options.tls_dir.or_else(|| Some(state_folder(options.user_state)?.join("baton/tls")));
        let folder = folder.context("no home folder is known to keep a CA in: name one with --tls-dir")?;
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        Ok(Self { files: TlsArgs::in_folder(&folder), folder: Some(folder) })
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.files.tls_cert.is_some() { "https" } else { "http" }
    }

    /// Makes the certificate, if it is to be made; `name` is one more name of the front. Says how the processes are asked.
    ///
    /// # Errors
    /// Certificates can't be made or used.
    pub(crate) fn prepare(&self, name: &str) -> anyhow::Result<Dial> {
        if let Some(folder) = &self.folder {
            let is_given = folder.join("tls.crt").exists() && !folder.join("ca.key").exists();
            if !is_given {
                DevCa::open_or_create(folder)?.equip(folder, &[name.to_owned()], DAYS)?;
            }
            let ca = folder.join("ca.crt");
            tracing::info!(ca = %ca.display(), "clients know the front by this CA: curl --cacert, SSL_CERT_FILE");
        }
        Ok(Tls::load(&self.files)?.dial())
    }
}

fn state_folder(user_state: Option<PathBuf>) -> Option<PathBuf> {
    user_state.or_else(|| Some(std::env::home_dir()?.join(".local/state")))
}
