//! Keys of a front, and what it recorded of them.

use std::{fs, path::PathBuf};

use baton_front::{Edge, Upstreams};
use baton_process::Metrics;
use baton_tenancy::{KeyHash, Secret, Tenancy, TenancyArgs};
use serde_json::Value;

/// A key file with its keys in the clear, and an audit log.
pub(crate) struct Keys {
    folder: tempfile::TempDir,
    secrets: Vec<(String, Secret)>,
    pub(crate) metrics: Metrics,
}

impl Keys {
    /// A key for each name, with these lines of terms.
    pub(crate) fn new(entries: &[(&str, &[&str])]) -> Self {
        let mut text = "keys:\n".to_owned();
        let mut secrets = Vec::new();
        for (name, terms) in entries {
            let secret = Secret::generate().unwrap();
            text += &format!("- name: {name}\n  hash: {}\n", KeyHash::of(&secret).unwrap());
            terms.iter().for_each(|term| text += &format!("  {term}\n"));
            secrets.push(((*name).to_owned(), secret));
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("keys.yaml"), text).unwrap();
        Self { folder, secrets, metrics: Metrics::new() }
    }

    /// Asks for these keys, and records everything.
    pub(crate) fn edge(&self) -> Edge {
        let args = TenancyArgs {
            api_keys_file: Some(self.folder.path().join("keys.yaml")),
            audit_log: Some(self.audit_file()),
            audit_clients: true,
            audit_prompts: true,
            audit_queue: 100,
            ..TenancyArgs::default()
        };
        Edge { tenancy: Tenancy::open(&args, &self.metrics).unwrap(), upstreams: Upstreams::default() }
    }

    pub(crate) fn secret(&self, name: &str) -> &str {
        self.secrets.iter().find(|(there, _)| there == name).expect("a key of that name").1.reveal()
    }

    /// An `Authorization` with the key of `name`.
    pub(crate) fn bearer(&self, name: &str) -> String {
        format!("Bearer {}", self.secret(name))
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|there| there == line)
    }

    pub(crate) fn audit_text(&self) -> String {
        fs::read_to_string(self.audit_file()).unwrap_or_default()
    }

    /// Waits until the audit log has so many lines.
    pub(crate) async fn audit(&self, lines: usize) -> Vec<Value> {
        let deadline = tokio::time::Instant::now() + super::http::PATIENCE;
        loop {
            let text = self.audit_text();
            let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
            let found: Vec<Value> =
                complete.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(found.len() <= lines, "{text}");
            if found.len() == lines {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "no {lines} lines in {text}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    fn audit_file(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }
}
