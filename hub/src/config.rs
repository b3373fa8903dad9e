//! Where the hub and its cache are: the variables that the Python tools read, as options.

use std::path::PathBuf;

use clap::{Args, builder::FalseyValueParser};

/// Options for finding and downloading models by hub id.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Model hub")]
pub struct HubArgs {
    /// Use downloaded models only; never ask the hub
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = FalseyValueParser::new())]
    pub offline: bool,

    /// Address of the hub or of a mirror
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL", default_value = "https://huggingface.co")]
    pub hub_endpoint: String,

    /// Folder of downloaded models [default: hub/ in HF_HOME, which is ~/.cache/huggingface unless set]
    #[arg(long, env = "HF_HUB_CACHE", value_name = "DIR")]
    pub hub_cache: Option<PathBuf>,

    #[arg(long, env = "HF_HOME", value_name = "DIR", hide = true)]
    hub_home: Option<PathBuf>,

    #[arg(long, env = "XDG_CACHE_HOME", value_name = "DIR", hide = true)]
    user_cache: Option<PathBuf>,

    /// Access token for gated and private models [default: the one that `hf auth login` stored]
    #[arg(long, env = "HF_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub hub_token: Option<String>,
}

/// Where models come from and where they are kept.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// Folder that holds `models--org--name` folders.
    pub cache: PathBuf,
    /// Access token, if any.
    pub token: Option<String>,
    /// Whether the network must not be used.
    pub offline: bool,
}

impl HubArgs {
    /// Fills in the defaults.
    pub fn into_config(self) -> HubConfig {
        let home = self.hub_home.unwrap_or_else(|| default_home(self.user_cache));
        let stored = || std::fs::read_to_string(home.join("token")).ok();
        let token =
            self.hub_token.or_else(stored).map(|token| token.trim().to_owned()).filter(|t| !t.is_empty());
        HubConfig {
            endpoint: self.hub_endpoint.trim_end_matches('/').to_owned(),
            cache: self.hub_cache.unwrap_or_else(|| home.join("hub")),
            token,
            offline: self.offline,
        }
    }
}

fn default_home(user_cache: Option<PathBuf>) -> PathBuf {
    let cache = user_cache.or_else(|| Some(std::env::home_dir()?.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("huggingface")
}
