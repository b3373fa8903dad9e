//! The key file.
//!
//! ```yaml
//! keys:
//!   - name: alice                  # shown in logs, metrics and the audit log
//!     hash: sha256:…               # as `baton key new` prints it
//!     team: research
//!     models: [llama, my-adapter]  # default: all
//!     requests-per-minute: 60      # default: no limit; so for each of them
//!     tokens-per-minute: 100000    # prompt and output
//!     max-concurrent: 4
//!     priority: 10                 # default 0; higher goes first
//!     weight: 3                    # default 1; its share, beside others of its priority, when not all can be served
//!     admin: true                  # default false; may look at workers and decisions, and load adapters
//!     expires: 2027-01-31          # from then on (UTC) the key is void; or 2027-01-31T12:00:00Z
//!     disabled: false
//! anonymous:                       # who comes without a key; without this section they are refused
//!   requests-per-minute: 5
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    time::SystemTime,
};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{KeyHash, Secret};
use crate::limit::Limits;

/// Who comes without a key, in metrics and logs.
pub(crate) const ANONYMOUS: &str = "anonymous";
/// Each has a limiter and metrics.
const MOST_KEYS: usize = 10_000;
const MOST_NAME_BYTES: usize = 64;

/// A key file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyFileError(pub(crate) String);

/// What is written about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyTerms {
    pub(crate) name: String,
    /// Empty: none.
    pub(crate) team: String,
    /// `None`: who comes without a key.
    pub(crate) hash: Option<KeyHash>,
    /// `None`: all.
    pub(crate) models: Option<BTreeSet<String>>,
    pub(crate) limits: Limits,
    pub(crate) priority: i32,
    /// At least 1.
    pub(crate) weight: u32,
    pub(crate) is_admin: bool,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) is_disabled: bool,
}

impl KeyTerms {
    /// Without limits.
    pub(crate) fn unlimited(name: &str, hash: Option<KeyHash>) -> Self {
        Self {
            name: name.to_owned(),
            team: String::new(),
            hash,
            models: None,
            limits: Limits::default(),
            priority: 0,
            weight: 1,
            is_admin: false,
            expires: None,
            is_disabled: false,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    keys: Vec<Spanned<Entry>>,
    anonymous: Option<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: Option<Spanned<String>>,
    team: Option<Spanned<String>>,
    hash: Option<Spanned<String>>,
    // Files hold no keys in the clear; who writes one is told what to write instead.
    key: Option<Spanned<String>>,
    models: Option<Spanned<Vec<String>>>,
    requests_per_minute: Option<Spanned<u32>>,
    tokens_per_minute: Option<Spanned<u64>>,
    max_concurrent: Option<Spanned<u32>>,
    priority: Option<i32>,
    weight: Option<Spanned<u32>>,
    admin: Option<Spanned<bool>>,
    expires: Option<Spanned<String>>,
    disabled: Option<bool>,
}

/// Whether `text` could be a key file.
///
/// # Errors
/// [`KeyFileError`]: the line, and what to write there.
pub fn check_key_file(text: &str) -> Result<(), KeyFileError> {
    parse(text).map(|_| ())
}

/// Reads a key file.
///
/// # Errors
/// [`KeyFileError`]: the line, and what to write there.
pub(crate) fn parse(text: &str) -> Result<Vec<KeyTerms>, KeyFileError> {
    let nothing = || KeyFileError("there are no keys: make one with `baton key new`".to_owned());
    if text.trim().is_empty() {
        return Err(nothing());
    }
    // Errors of the parser may show the text around them, which is nobody's business.
    let file: File =
        serde_saphyr::from_str(text).map_err(|error| KeyFileError(error.without_snippet().to_string()))?;
    if file.keys.len() > MOST_KEYS {
        return Err(KeyFileError(format!("{} keys are too many: {MOST_KEYS} at most", file.keys.len())));
    }
    let mut terms = Vec::with_capacity(file.keys.len() + 1);
    let mut lines = HashMap::new();
    for entry in &file.keys {
        let of_entry = terms_of(entry)?;
        if let Some(first) = lines.insert(of_entry.name.clone(), entry.referenced.line()) {
            return Err(at(
                entry,
                format!("{:?} is there already, in line {first}: names are unique", of_entry.name),
            ));
        }
        terms.push(of_entry);
    }
    terms.extend(file.anonymous.as_ref().map(anonymous).transpose()?);
    if terms.is_empty() { Err(nothing()) } else { Ok(terms) }
}

fn terms_of(entry: &Spanned<Entry>) -> Result<KeyTerms, KeyFileError> {
    let name = entry.value.name.as_ref().ok_or_else(|| at(entry, "a key needs a name".to_owned()))?;
    check_name("name", name)?;
    if name.value == ANONYMOUS {
        return Err(at(name, format!("{ANONYMOUS} is who comes without a key: choose another name")));
    }
    if let Some(key) = &entry.value.key {
        return Err(at(key, in_the_clear(&key.value)));
    }
    let hash = entry.value.hash.as_ref().ok_or_else(|| {
        at(
            entry,
            format!(
                "{} has no hash: make key and hash with `baton key new --name {}`",
                name.value, name.value
            ),
        )
    })?;
    let parsed = hash.value.parse::<KeyHash>().map_err(|error| at(hash, error.to_string()))?;
    common(&entry.value, &name.value, Some(parsed))
}

fn in_the_clear(key: &str) -> String {
    let advice = match Secret::try_new(key) {
        Ok(_) => "write `hash:` with what `baton key hash` makes of it".to_owned(),
        Err(weak) => format!("and {weak}"),
    };
    format!("the file holds a key in the clear, where only hashes may stand: {advice}")
}

fn anonymous(entry: &Spanned<Entry>) -> Result<KeyTerms, KeyFileError> {
    let Entry { name, hash, key, admin, .. } = &entry.value;
    if let Some(admin) = admin.as_ref().filter(|admin| admin.value) {
        return Err(at(admin, "who comes without a key is no admin".to_owned()));
    }
    match name.as_ref().or(hash.as_ref()).or(key.as_ref()) {
        Some(wrong) => Err(at(wrong, format!("{ANONYMOUS} has neither name nor key"))),
        None => common(&entry.value, ANONYMOUS, None),
    }
}

fn common(entry: &Entry, name: &str, hash: Option<KeyHash>) -> Result<KeyTerms, KeyFileError> {
    if let Some(team) = &entry.team {
        check_name("team", team)?;
    }
    let models = entry.models.as_ref().map(|models| match &models.value[..] {
        [] => Err(at(
            models,
            "no model is allowed: leave `models` out for all, or write `disabled: true`".to_owned(),
        )),
        names => Ok(names.iter().cloned().collect()),
    });
    let expires = entry.expires.as_ref().map(moment).transpose()?;
    Ok(KeyTerms {
        name: name.to_owned(),
        team: entry.team.as_ref().map_or_else(String::new, |team| team.value.clone()),
        hash,
        models: models.transpose()?,
        limits: Limits {
            requests_per_minute: above_0(entry.requests_per_minute.as_ref())?.map(u64::from),
            tokens_per_minute: above_0(entry.tokens_per_minute.as_ref())?,
            max_concurrent: above_0(entry.max_concurrent.as_ref())?,
        },
        priority: entry.priority.unwrap_or(0),
        weight: above_0(entry.weight.as_ref())?.unwrap_or(1),
        is_admin: entry.admin.as_ref().is_some_and(|admin| admin.value),
        expires,
        is_disabled: entry.disabled.unwrap_or(false),
    })
}

fn above_0<T: Copy + PartialEq + From<u8>>(limit: Option<&Spanned<T>>) -> Result<Option<T>, KeyFileError> {
    match limit {
        Some(zero) if zero.value == T::from(0) => Err(at(
            zero,
            "0 allows nothing: leave it out for the default, or write `disabled: true`".to_owned(),
        )),
        limit => Ok(limit.map(|limit| limit.value)),
    }
}

/// Names become labels of metrics and fields of logs.
fn check_name(what: &str, name: &Spanned<String>) -> Result<(), KeyFileError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "._-@+/".contains(c);
    let length = name.value.len();
    if (1..=MOST_NAME_BYTES).contains(&length) && name.value.chars().all(is_good) {
        return Ok(());
    }
    Err(at(
        name,
        format!(
            "a {what} has 1 to {MOST_NAME_BYTES} letters, digits and . _ - @ + /, unlike {:?}",
            name.value
        ),
    ))
}

fn moment(text: &Spanned<String>) -> Result<SystemTime, KeyFileError> {
    let with_time = if text.value.len() == "2027-01-31".len() { "T00:00:00Z" } else { "" };
    humantime::parse_rfc3339(&format!("{}{with_time}", text.value)).map_err(|_| {
        at(text, format!("{:?} is no date: write 2027-01-31, or 2027-01-31T12:00:00Z", text.value))
    })
}

fn at<T>(place: &Spanned<T>, message: String) -> KeyFileError {
    KeyFileError(format!("line {}: {message}", place.referenced.line()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        KeyHash::of(&Secret::generate().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_key_has_all_its_terms() {
        let hash = hash();
        let text = format!(
            "keys:\n- name: alice\n  team: research\n  hash: {hash}\n  models: [m, a]\n  requests-per-minute: 60\n  \
             tokens-per-minute: 100000\n  max-concurrent: 4\n  priority: -3\n  weight: 5\n  admin: true\n  \
             expires: 2027-01-31\n  disabled: true\n\
             - name: bob\n  hash: {}\nanonymous:\n  requests-per-minute: 5\n",
            self::hash()
        );
        let terms = parse(&text).unwrap();
        let alice = KeyTerms {
            name: "alice".to_owned(),
            team: "research".to_owned(),
            hash: Some(hash.parse().unwrap()),
            models: Some(["m", "a"].map(str::to_owned).into()),
            limits: Limits {
                requests_per_minute: Some(60),
                tokens_per_minute: Some(100_000),
                max_concurrent: Some(4),
            },
            priority: -3,
            weight: 5,
            is_admin: true,
            expires: Some(humantime::parse_rfc3339("2027-01-31T00:00:00Z").unwrap()),
            is_disabled: true,
        };
        assert_eq!(terms[0], alice);
        assert_eq!(terms[1], KeyTerms::unlimited("bob", terms[1].hash.clone()));
        assert_eq!((terms[2].name.as_str(), terms[2].limits.requests_per_minute), ("anonymous", Some(5)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_to_do() {
        let good = format!("keys:\n- name: alice\n  hash: {}\n", hash());
        let strong = Secret::generate().unwrap();
        let second = |line: &str| format!("{good}- name: bob\n  hash: {}\n  {line}\n", hash());
        for (text, words) in [
            (String::new(), &["no keys", "baton key new"][..]),
            ("keys: []\n".to_owned(), &["no keys"]),
            (second("colour: red"), &["line 6", "colour"]),
            (second("tokens-per-minute: many"), &["line 6"]),
            (second("requests-per-minute: 0"), &["line 6", "disabled"]),
            (second("weight: 0"), &["line 6", "disabled"]),
            (second("models: []"), &["line 6", "disabled"]),
            (second("expires: tomorrow"), &["line 6", "2027-01-31"]),
            (second("key: hunter2hunter2"), &["line 6", "guessed", "baton key new"]),
            (second(&format!("key: {}", strong.reveal())), &["line 6", "baton key hash"]),
            (format!("{good}- name: alice\n  hash: {}\n", hash()), &["line 4", "alice", "line 2"]),
            (format!("{good}- name: bob\n"), &["bob", "baton key new --name bob"]),
            (format!("{good}- name: \"b b\"\n  hash: x\n"), &["line 4", "letters"]),
            (format!("{good}- name: bob\n  hash: secret\n"), &["line 5", "sha256:TAG"]),
            (format!("{good}- name: anonymous\n  hash: {}\n", hash()), &["line 4", "another name"]),
            (format!("{good}anonymous:\n  name: x\n"), &["line 5", "neither name nor key"]),
            (format!("{good}anonymous:\n  admin: true\n"), &["line 5", "no admin"]),
            ("keys: {".to_owned(), &["line 1"]),
        ] {
            let error = parse(&text).expect_err(&text).to_string();
            for word in words {
                assert!(error.contains(word), "no {word:?} in {error:?} of\n{text}");
            }
            assert!(!error.contains(strong.reveal()) && !error.contains("hunter2"), "{error}");
        }
    }
}
