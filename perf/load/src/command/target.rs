//! Whom to put under load.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::{ApiShape, Extras, Form, Limits, Manner, Setup, Target, TokenEnds};

/// The server.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub struct TargetArgs {
    /// The server's base URL
    #[arg(long, env = "BATON_URL", default_value = "http://127.0.0.1:8000", value_name = "URL")]
    pub(super) url: Target,

    #[command(flatten)]
    pub(super) endpoint: EndpointArgs,
}

/// How a server is spoken to.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub struct EndpointArgs {
    /// The model to ask for [default: the first that the server names]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Which API: chat (/v1/chat/completions) or completions (/v1/completions)
    #[arg(long, value_enum, default_value = "chat", value_name = "API")]
    endpoint: Endpoint,

    /// Send prompts as token ids (completions only)
    #[arg(long)]
    token_ids: bool,

    /// Key, where the server asks for one
    #[arg(long, env = "BATON_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,

    /// Add a header to each request; several may follow
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,

    /// Add fields to the body of each request, such as '{"temperature": 0}'; a field that is there already is replaced
    #[arg(long, value_name = "JSON", value_parser = parse_body)]
    body: Option<Map<String, Value>>,

    /// Certificates that the server's is checked against [default: the system's]
    #[arg(long, env = "BATON_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Ask for answers in one piece: nothing is known of first tokens and gaps then
    #[arg(long)]
    no_stream: bool,

    /// Let answers end where the model ends them, instead of at the planned length
    #[arg(long)]
    no_ignore_eos: bool,

    /// Threads of the client, one core each
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,

    /// A request without a whole answer fails after this time
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = humantime::parse_duration)]
    request_timeout: Duration,

    /// When all is sent, wait so long for answers; the rest is unfinished
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = humantime::parse_duration)]
    drain: Duration,

    /// Do not ask the server afterwards where requests' time went (Baton servers tell)
    #[arg(long)]
    no_phases: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Endpoint {
    Chat,
    Completions,
}

impl EndpointArgs {
    pub(super) fn shape(&self) -> ApiShape {
        match self.endpoint {
            Endpoint::Chat => ApiShape::Chat,
            Endpoint::Completions => ApiShape::Completion,
        }
    }

    /// # Errors
    /// A conversation of token ids.
    pub(super) fn form(&self) -> Result<Form, String> {
        match (self.shape(), self.token_ids) {
            (ApiShape::Chat, false) => Ok(Form::Messages),
            (ApiShape::Completion, false) => Ok(Form::Text),
            (ApiShape::Completion, true) => Ok(Form::TokenIds),
            (ApiShape::Chat, true) => {
                Err("conversations can't be sent as token ids: --token-ids goes with --endpoint completions"
                    .to_owned())
            }
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            threads: usize::from(self.threads),
            request_timeout: self.request_timeout,
            drain: self.drain,
            ..Limits::default()
        }
    }

    pub(super) fn setup(&self, target: Target, token_ends: Option<Arc<dyn TokenEnds>>) -> Setup {
        let key = self.api_key.iter().map(|key| ("authorization".to_owned(), format!("Bearer {key}")));
        Setup {
            target,
            ca: self.tls_ca.clone(),
            manner: Manner {
                shape: self.shape(),
                model: self.model.clone().unwrap_or_default(),
                is_stream: !self.no_stream,
                extras: Extras { ignore_eos: !self.no_ignore_eos, ..Extras::ALL },
                body: self.body.clone().unwrap_or_default(),
                headers: key.chain(self.headers.iter().cloned()).collect(),
            },
            limits: self.limits(),
            token_ends,
            asks_for_phases: !self.no_phases,
        }
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("give it as NAME: VALUE")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no header's name"));
    }
    if value.chars().any(char::is_control) {
        return Err("a header's value has no control characters".to_owned());
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn parse_body(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("this is no JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_bodies_are_checked() {
        assert_eq!(parse_header("X-Tenant:  a b "), Ok(("X-Tenant".to_owned(), "a b".to_owned())));
        for bad in ["x", ": y", "a b: c", "a: b\r\nc: d"] {
            assert!(parse_header(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_body(r#"{"top_k": 5}"#).unwrap()["top_k"], 5);
        assert!(parse_body("[1]").is_err());
    }
}
