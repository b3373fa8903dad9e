//! What children log, on the supervisor's standard error, with who said it.

use std::io::Write as _;

use baton_process::{LogArgs, LogFormat};

use super::plan::Kind;

/// Writes children's lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    style: Style,
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Plain,
    Colored,
    Json,
}

/// Room for the longest usual name.
const NAME_WIDTH: usize = 9;

impl Console {
    pub(crate) fn new(logs: &LogArgs) -> Self {
        let style = match logs.log_format {
            LogFormat::Json => Style::Json,
            LogFormat::Text if logs.colored() => Style::Colored,
            LogFormat::Text => Style::Plain,
        };
        Self { style }
    }

    /// Passes on a line of `process`. Nobody to read it is no error.
    pub(crate) fn write(self, process: &str, kind: Kind, line: &str) {
        let text = self.format(process, kind, line);
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn format(self, process: &str, kind: Kind, line: &str) -> String {
        match (self.style, line.strip_prefix('{')) {
            // A collector gets one object a line, as it does from a process alone.
            (Style::Json, Some(rest)) => format!("{{\"process\":\"{process}\",{rest}\n"),
            (Style::Colored, _) => format!("\x1b[{}m{process:<NAME_WIDTH$} │\x1b[0m {line}\n", color(kind)),
            _ => format!("{process:<NAME_WIDTH$} │ {line}\n"),
        }
    }
}

/// ANSI colour.
fn color(kind: Kind) -> u8 {
    match kind {
        Kind::Front => 35,
        Kind::Sidecar => 33,
        Kind::PrefillWorker => 36,
        Kind::DecodeWorker => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(style: Style, line: &str, expected: &str) {
        assert_eq!(Console { style }.format("prefill-0", Kind::PrefillWorker, line), expected);
    }

    #[test]
    fn a_line_says_who_said_it() {
        check(Style::Plain, "hello", "prefill-0 │ hello\n");
        check(Style::Colored, "hello", "\x1b[36mprefill-0 │\x1b[0m hello\n");
        check(Style::Json, r#"{"level":"INFO"}"#, "{\"process\":\"prefill-0\",\"level\":\"INFO\"}\n");
        check(Style::Json, "thread panicked", "prefill-0 │ thread panicked\n");
    }
}
