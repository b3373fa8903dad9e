//! Options; every default is written here.

use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr};

use clap::Args;
use serde::{Serialize, Serializer};

use crate::key::{KeyHash, Secret};

/// Options of a front that knows its clients.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Tenancy")]
pub struct TenancyArgs {
    /// API keys and what each may do: a YAML file, read again whenever it changes. `baton key new` makes a key and its entry
    /// [default: everybody is served]
    #[arg(long, env = "BATON_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// API keys without limits: NAME=KEY or NAME=HASH, several with commas between. Others on this machine can read command lines:
    /// use the variable for keys
    #[arg(
        long,
        env = "BATON_API_KEYS",
        value_name = "NAME=KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub api_key: Vec<ApiKeyOption>,

    /// Append a JSON line for each request (who, when, model, tokens, outcome) to this file
    #[arg(long, env = "BATON_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// Refuse requests (503) while they could not be recorded, rather than serve them unrecorded
    #[arg(long, env = "BATON_AUDIT_STRICT", requires = "audit_log")]
    pub audit_strict: bool,

    /// Record the address that each request came from
    #[arg(long, env = "BATON_AUDIT_CLIENTS", requires = "audit_log")]
    pub audit_clients: bool,

    /// Record the text of prompts, up to 64 KiB of each
    #[arg(long, env = "BATON_AUDIT_PROMPTS", requires = "audit_log")]
    pub audit_prompts: bool,

    /// Lines that may wait for the disk; with --audit-strict, also requests at a time
    #[arg(long, default_value_t = 16384, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub audit_queue: u32,
}

impl TenancyArgs {
    /// As they stand on a command line: a name, and its value if it has one. Keys are their hashes.
    pub fn words(&self) -> Vec<(&'static str, Option<OsString>)> {
        let file = |name, path: &Option<PathBuf>| path.clone().map(|path| (name, Some(path.into())));
        let flag = |name, is_set: bool| is_set.then_some((name, None));
        let keys = self
            .api_key
            .iter()
            .map(|ApiKeyOption { name, hash }| ("--api-key", Some(format!("{name}={hash}").into())));
        let one = [
            file("--api-keys-file", &self.api_keys_file),
            file("--audit-log", &self.audit_log),
            flag("--audit-strict", self.audit_strict),
            flag("--audit-clients", self.audit_clients),
            flag("--audit-prompts", self.audit_prompts),
            Some(("--audit-queue", Some(self.audit_queue.to_string().into()))),
        ];
        one.into_iter().flatten().chain(keys).collect()
    }
}

/// `NAME=KEY` or `NAME=HASH`. `Debug` shows no key, and neither does JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyOption {
    pub(crate) name: String,
    pub(crate) hash: KeyHash,
}

impl FromStr for ApiKeyOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, key) =
            text.split_once('=').ok_or("write NAME=KEY, with the name that logs and metrics show")?;
        let is_good = |c: char| c.is_ascii_alphanumeric() || "._-@+/".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_good) {
            return Err("a name has 1 to 64 letters, digits and . _ - @ + /".to_owned());
        }
        let hash = match key.parse() {
            Ok(hash) => hash,
            Err(_) => {
                let secret = Secret::try_new(key).map_err(|weak| format!("{name}: {weak}"))?;
                KeyHash::of(&secret).map_err(|error| error.to_string())?
            }
        };
        Ok(Self { name: name.to_owned(), hash })
    }
}

impl Serialize for ApiKeyOption {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl fmt::Debug for ApiKeyOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_hashes_are_taken_and_weak_keys_refused_without_saying_them() {
        let secret = Secret::generate().unwrap();
        let option: ApiKeyOption = format!("alice={}", secret.reveal()).parse().unwrap();
        assert!(bool::from(option.hash.matches(secret.reveal().as_bytes())));
        assert!(!format!("{option:?}").contains(secret.reveal()));
        assert_eq!(serde_json::to_value(&option).unwrap(), "alice=…");
        let hashed: ApiKeyOption = format!("alice={}", option.hash).parse().unwrap();
        assert_eq!(hashed, option);
        let error = "alice=hunter2".parse::<ApiKeyOption>().unwrap_err();
        assert!(
            error.contains("alice") && error.contains("baton key new") && !error.contains("hunter2"),
            "{error}"
        );
        assert!("hunter2".parse::<ApiKeyOption>().is_err());
    }
}
