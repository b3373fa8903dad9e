//! What a process tells whoever started it: one JSON object a line on standard output (logs go to standard error).
//!
//! Every role calls [`report_listening`] once, when all its listeners are bound. So a supervisor can give port 0 to
//! everybody and still tell each where the others are: no port is guessed, and none is lost between looking and binding.
//!
//! | role | names it reports |
//! |---|---|
//! | scheduler | `http` (the front, which also answers `/ready` and `/metrics`), `registry` |
//! | sidecar | `grpc` (generation, and the registry that its decode worker joins), `admin`, with `--http-listen` `http` |
//! | prefill-worker, decode-worker | `grpc`, `admin`, `transfer` |

use std::{collections::BTreeMap, io::Write as _, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// One line of a process's standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Its listeners by name, all bound.
    Listening(BTreeMap<String, SocketAddr>),
    /// It cannot go on; the text is for a person. Only a supervised process says so here, instead of on standard error.
    Failed(String),
}

impl Report {
    /// Reads a line; `None` if it is anything else.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// Writes the line to standard output. That nobody reads it (any more) is no error.
    pub fn print(&self) {
        let line = serde_json::to_string(self).unwrap_or_default();
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    }
}

/// Prints a [`Report::Listening`]: once a process, when every listener is bound.
pub fn report_listening<'a>(listeners: impl IntoIterator<Item = (&'a str, SocketAddr)>) {
    let named = listeners.into_iter().map(|(name, address)| (name.to_owned(), address));
    Report::Listening(named.collect()).print();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_as_it_was_written() {
        let report =
            Report::Listening([("http".to_owned(), SocketAddr::from(([127, 0, 0, 1], 8000)))].into());
        let line = serde_json::to_string(&report).unwrap();
        assert_eq!(line, r#"{"listening":{"http":"127.0.0.1:8000"}}"#);
        assert_eq!(Report::parse(&line), Some(report));
    }

    #[test]
    fn other_output_is_no_report() {
        for line in ["", "ready http://127.0.0.1:8000", "{}", r#"{"listening":3}"#] {
            assert_eq!(Report::parse(line), None, "{line}");
        }
    }
}
