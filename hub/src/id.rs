//! `org/name[@revision]`.

use std::{fmt, str::FromStr};

/// A model on the hub, parsed from `org/name[@revision]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    org: String,
    name: String,
    revision: String,
}

/// Text that is no hub id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a hub id: expected org/name or org/name@revision")]
pub struct NotAnId;

impl HubId {
    /// `org/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }

    /// The last part, without the organisation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Branch, tag or commit; `main` unless given.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Folder below the cache's root.
    pub(crate) fn cache_folder(&self) -> String {
        format!("models--{}--{}", self.org, self.name)
    }

    /// Whether the revision names a commit, which never changes, rather than a branch or tag.
    pub(crate) fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }
}

pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl FromStr for HubId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (org, name) = repository.split_once('/').ok_or(NotAnId)?;
        if is_part(org) && is_part(name) && revision.split('/').all(is_part) {
            Ok(Self { org: org.to_owned(), name: name.to_owned(), revision: revision.to_owned() })
        } else {
            Err(NotAnId)
        }
    }
}

/// The parts become folder names, so none may be empty, hidden or lead upwards.
fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=96).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && !text.contains("--")
        && text.bytes().all(allowed)
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_shown_alike() {
        for text in ["Qwen/Qwen3-0.6B", "a/b@v1.0", "a/b@refs/pr/1"] {
            assert_eq!(text.parse::<HubId>().unwrap().to_string(), text);
        }
        assert_eq!("a/b@main".parse::<HubId>().unwrap().to_string(), "a/b");
    }

    #[test]
    fn paths_are_not_ids() {
        for text in
            ["", "gpt2", "./a", "/a/b", "../a", "a/..", "a/b/c", "a/b@", "a/b@../c", "a b/c", "a/b@x/../y"]
        {
            assert_eq!(text.parse::<HubId>(), Err(NotAnId), "{text}");
        }
    }
}
