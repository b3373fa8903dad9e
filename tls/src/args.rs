//! Options, the same for every component.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

/// Options of every component.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Serve HTTPS with this certificate (PEM, with its chain); read again when it changes. `baton dev-ca` makes one to try
    #[arg(long, env = "BATON_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, env = "BATON_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Between components, mutual TLS: each must show a certificate of this CA (PEM, one or several)
    #[arg(long, env = "BATON_TLS_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,

    /// Name that the certificates of other components must carry [default: the host or IP address at which each is called]
    #[arg(long, env = "BATON_TLS_SERVER_NAME", value_name = "NAME", requires = "tls_ca")]
    pub tls_server_name: Option<String>,
}

/// Options of the front beside those: what clients see may be another certificate than what components see.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[command(next_help_heading = "TLS")]
pub struct FrontTlsArgs {
    /// Certificate of the front [default: --tls-cert]
    #[arg(long, env = "BATON_FRONT_TLS_CERT", value_name = "FILE", requires = "front_tls_key")]
    pub front_tls_cert: Option<PathBuf>,

    /// Its private key
    #[arg(long, env = "BATON_FRONT_TLS_KEY", value_name = "FILE", requires = "front_tls_cert")]
    pub front_tls_key: Option<PathBuf>,

    /// Serve only clients who show a certificate of this CA
    #[arg(long, env = "BATON_FRONT_CLIENT_CA", value_name = "FILE")]
    pub front_client_ca: Option<PathBuf>,
}

impl TlsArgs {
    /// With files called as in the secrets that cert-manager makes.
    pub fn in_folder(folder: &Path) -> Self {
        let file = |name| Some(folder.join(name));
        Self {
            tls_cert: file("tls.crt"),
            tls_key: file("tls.key"),
            tls_ca: file("ca.crt"),
            tls_server_name: None,
        }
    }

    /// As they stand on a command line.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let options = [
            ("--tls-cert", path(&self.tls_cert)),
            ("--tls-key", path(&self.tls_key)),
            ("--tls-ca", path(&self.tls_ca)),
            ("--tls-server-name", self.tls_server_name.clone()),
        ];
        options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
