//! The file of upstreams.
//!
//! ```yaml
//! upstreams:
//!   - name: spare                       # in logs, metrics and the answer's header
//!     models: [my-model]                # or ["*"]: every model that is served here and named nowhere else
//!     url: https://api.example.com/v1   # what /chat/completions is appended to
//!     send-model: their-model           # default: the name that the client asked for
//!     key-env: SPARE_API_KEY            # or key-file: PATH; default: no key
//!     ca: /etc/ca.pem                   # trusted beside the system's
//!     connect-timeout-ms: 2000
//!     answer-timeout-s: 120             # until the answer begins
//!     idle-timeout-s: 60                # between two pieces of it
//!     retries: 1
//! ```

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use http::HeaderValue;
use reqwest::{Certificate, Url};
use serde::Deserialize;
use serde_saphyr::Spanned;

const CONNECT_TIMEOUT_MS: u64 = 2_000;
const ANSWER_TIMEOUT_S: u64 = 120;
const IDLE_TIMEOUT_S: u64 = 60;
const RETRIES: u32 = 1;
const MOST_RETRIES: u32 = 5;
const MOST_UPSTREAMS: usize = 100;
const MOST_NAME_BYTES: usize = 64;

/// Upstreams that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UpstreamError(String);

/// What one upstream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Models {
    Named(Vec<String>),
    /// Those that are served here, as far as no other upstream names them.
    Others,
}

/// What is written about one upstream.
pub(super) struct Terms {
    pub(super) name: String,
    pub(super) models: Models,
    pub(super) url: Url,
    pub(super) send_model: Option<String>,
    pub(super) key: Option<HeaderValue>,
    pub(super) ca: Option<Certificate>,
    pub(super) connect_timeout: Duration,
    pub(super) answer_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) retries: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    upstreams: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: Spanned<String>,
    models: Spanned<Vec<String>>,
    url: Spanned<String>,
    send_model: Option<String>,
    key_env: Option<Spanned<String>>,
    key_file: Option<Spanned<PathBuf>>,
    // Files hold no keys; who writes one is told where it belongs.
    key: Option<Spanned<String>>,
    ca: Option<Spanned<PathBuf>>,
    connect_timeout_ms: Option<Spanned<u64>>,
    answer_timeout_s: Option<Spanned<u64>>,
    idle_timeout_s: Option<Spanned<u64>>,
    retries: Option<Spanned<u32>>,
}

impl UpstreamError {
    pub(super) fn of(name: &str, error: &impl std::error::Error) -> Self {
        Self(format!("the upstream {name} can't be used: {error}"))
    }
}

/// Reads the file, and the keys that it names.
pub(super) fn read(path: &Path) -> Result<Vec<Terms>, UpstreamError> {
    let failed = |what: String| UpstreamError(format!("--upstream {}: {what}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    parse(&text).map_err(|UpstreamError(what)| failed(what))
}

fn parse(text: &str) -> Result<Vec<Terms>, UpstreamError> {
    let file: File =
        serde_saphyr::from_str(text).map_err(|error| UpstreamError(error.without_snippet().to_string()))?;
    if file.upstreams.len() > MOST_UPSTREAMS {
        return Err(UpstreamError(format!("more than {MOST_UPSTREAMS} upstreams")));
    }
    let (mut names, mut models) = (HashMap::new(), HashMap::new());
    let mut terms = Vec::with_capacity(file.upstreams.len());
    for entry in &file.upstreams {
        let Entry { name, models: served, .. } = &entry.value;
        if let Some(line) = names.insert(&name.value, line_of(name)) {
            return Err(at(
                name,
                format!("{:?} is there already, in line {line}: names are unique", name.value),
            ));
        }
        for model in &served.value {
            if let Some(line) = models.insert(model, line_of(served)) {
                return Err(at(served, format!("{model:?} has an upstream already, in line {line}")));
            }
        }
        terms.push(terms_of(&entry.value)?);
    }
    Ok(terms)
}

fn terms_of(entry: &Entry) -> Result<Terms, UpstreamError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let name = &entry.name;
    if name.value.is_empty() || name.value.len() > MOST_NAME_BYTES || !name.value.chars().all(is_good) {
        return Err(at(name, format!("a name has 1 to {MOST_NAME_BYTES} letters, digits and . _ - /")));
    }
    Ok(Terms {
        name: name.value.clone(),
        models: models_of(&entry.models)?,
        url: url_of(&entry.url)?,
        send_model: entry.send_model.clone(),
        key: key_of(entry)?,
        ca: entry.ca.as_ref().map(certificate_of).transpose()?,
        connect_timeout: Duration::from_millis(above_0(
            entry.connect_timeout_ms.as_ref(),
            CONNECT_TIMEOUT_MS,
        )?),
        answer_timeout: Duration::from_secs(above_0(entry.answer_timeout_s.as_ref(), ANSWER_TIMEOUT_S)?),
        idle_timeout: Duration::from_secs(above_0(entry.idle_timeout_s.as_ref(), IDLE_TIMEOUT_S)?),
        retries: match &entry.retries {
            Some(retries) if retries.value > MOST_RETRIES => {
                return Err(at(retries, format!("{MOST_RETRIES} retries at most")));
            }
            retries => retries.as_ref().map_or(RETRIES, |retries| retries.value),
        },
    })
}

fn models_of(models: &Spanned<Vec<String>>) -> Result<Models, UpstreamError> {
    match &models.value[..] {
        [] => Err(at(models, "name the models, or write [\"*\"] for all that are served here".to_owned())),
        [all] if all == "*" => Ok(Models::Others),
        names if names.iter().any(|name| name == "*") => {
            Err(at(models, "\"*\" stands alone: write another upstream for models by name".to_owned()))
        }
        names => Ok(Models::Named(names.to_vec())),
    }
}

fn url_of(text: &Spanned<String>) -> Result<Url, UpstreamError> {
    let wrong = |why: &str| at(text, format!("{why}: write a URL such as https://api.example.com/v1"));
    let url: Url = text.value.parse().map_err(|_| wrong("this is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("only http and https are spoken"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(wrong("neither passwords nor parameters belong here"));
    }
    Ok(url)
}

/// As an `Authorization`.
fn key_of(entry: &Entry) -> Result<Option<HeaderValue>, UpstreamError> {
    if let Some(key) = &entry.key {
        return Err(at(
            key,
            "no keys in this file: name a variable (key-env) or a file (key-file)".to_owned(),
        ));
    }
    let (key, place) = match (&entry.key_env, &entry.key_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(file)) => return Err(at(file, "key-env or key-file, not both".to_owned())),
        (Some(variable), None) => {
            let key = std::env::var(&variable.value);
            (
                key.map_err(|_| at(variable, format!("the variable {} is not set", variable.value)))?,
                line_of(variable),
            )
        }
        (None, Some(file)) => (text_of(file)?, line_of(file)),
    };
    let is_good = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    let header =
        Some(key.trim()).filter(|key| is_good(key)).and_then(|key| format!("Bearer {key}").parse().ok());
    let mut header: HeaderValue =
        header.ok_or_else(|| UpstreamError(format!("line {place}: what it names holds no key")))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn certificate_of(file: &Spanned<PathBuf>) -> Result<Certificate, UpstreamError> {
    let text = text_of(file)?;
    Certificate::from_pem(text.as_bytes())
        .map_err(|_| at(file, format!("{} holds no certificate in PEM form", file.value.display())))
}

fn text_of(file: &Spanned<PathBuf>) -> Result<String, UpstreamError> {
    fs::read_to_string(&file.value).map_err(|error| at(file, format!("{}: {error}", file.value.display())))
}

fn above_0(number: Option<&Spanned<u64>>, default: u64) -> Result<u64, UpstreamError> {
    match number {
        Some(zero) if zero.value == 0 => Err(at(zero, "write a number above 0".to_owned())),
        number => Ok(number.map_or(default, |number| number.value)),
    }
}

fn line_of<T>(place: &Spanned<T>) -> u64 {
    place.referenced.line()
}

fn at<T>(place: &Spanned<T>, message: String) -> UpstreamError {
    UpstreamError(format!("line {}: {message}", line_of(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lines: &str) -> String {
        format!("upstreams:\n- name: spare\n  models: [m]\n  url: https://a.example/v1\n{lines}")
    }

    #[test]
    fn an_upstream_has_all_its_terms() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, "sk-theirs\n").unwrap();
        let text = entry(&format!(
            "  send-model: big\n  key-file: {}\n  answer-timeout-s: 5\n  retries: 0\n\
             - name: rest\n  models: [\"*\"]\n  url: http://127.0.0.1:1\n",
            key.display()
        ));
        let terms = parse(&text).unwrap();
        assert_eq!(
            (terms[0].name.as_str(), &terms[0].models),
            ("spare", &Models::Named(vec!["m".to_owned()]))
        );
        assert_eq!(terms[0].key.as_ref().unwrap(), "Bearer sk-theirs");
        assert!(!format!("{:?}", terms[0].key).contains("theirs"));
        assert_eq!((terms[0].send_model.as_deref(), terms[0].retries), (Some("big"), 0));
        assert_eq!(
            (terms[0].answer_timeout, terms[0].idle_timeout),
            (Duration::from_secs(5), Duration::from_secs(60))
        );
        assert_eq!((&terms[1].models, terms[1].retries), (&Models::Others, RETRIES));
        assert!(terms[1].key.is_none());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_to_do() {
        let second = |lines: &str| entry("") + "- name: other\n" + lines;
        for (text, words) in [
            (entry("  colour: red\n"), &["line 5", "colour"][..]),
            (entry("  key: sk-theirs\n"), &["line 5", "key-env"]),
            (entry("  key-env: BATON_NO_SUCH_VARIABLE\n"), &["line 5", "BATON_NO_SUCH_VARIABLE"]),
            (entry("  key-file: /nowhere/key\n"), &["line 5", "/nowhere/key"]),
            (entry("  key-env: A\n  key-file: b\n"), &["line 6", "not both"]),
            (entry("  ca: /nowhere/ca\n"), &["line 5", "/nowhere/ca"]),
            (entry("  retries: 9\n"), &["line 5", "at most"]),
            (entry("  idle-timeout-s: 0\n"), &["line 5", "above 0"]),
            (second("  models: [m]\n  url: http://b\n"), &["line 6", "\"m\"", "line 3"]),
            (second("  models: []\n  url: http://b\n"), &["line 6", "\"*\""]),
            (second("  models: [a, \"*\"]\n  url: http://b\n"), &["line 6", "alone"]),
            (second("  models: [a]\n  url: ftp://b\n"), &["line 7", "https"]),
            (second("  models: [a]\n  url: http://u:secret@b\n"), &["line 7", "passwords"]),
            (second("  models: [a]\n"), &["line 6", "url"]),
            (entry("- name: spare\n  models: [a]\n  url: http://b\n"), &["line 5", "unique", "line 2"]),
            (entry("").replace("spare", "s p"), &["line 2", "letters"]),
        ] {
            let error = parse(&text).err().unwrap_or_else(|| panic!("taken:\n{text}")).to_string();
            for word in words {
                assert!(error.contains(word), "no {word:?} in {error:?} of\n{text}");
            }
            assert!(!error.contains("theirs") && !error.contains("secret"), "{error}");
        }
    }
}
