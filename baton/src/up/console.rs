//! What supervisor and children log, on standard error, with who said it.

use std::io::{self, Write};

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

    /// Passes on a line of `process`. That nobody reads it is no error.
    pub(crate) fn write(self, process: &str, kind: Kind, line: &str) {
        self.put(process, color(kind), line);
    }

    fn put(self, process: &str, color: u8, line: &str) {
        let text = self.format(process, color, line);
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn format(self, process: &str, color: u8, line: &str) -> String {
        match (self.style, line.strip_prefix('{')) {
            // A collector gets one object a line, as it does from a process alone.
            (Style::Json, Some(rest)) => format!("{{\"process\":\"{process}\",{rest}\n"),
            (Style::Colored, _) => format!("\x1b[{color}m{process:<NAME_WIDTH$} │\x1b[0m {line}\n"),
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

/// Takes the supervisor's own log.
pub(crate) struct OwnLog(pub(crate) Console);

impl Write for OwnLog {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        const BLUE: u8 = 34;
        for line in String::from_utf8_lossy(event).lines() {
            self.0.put("baton", BLUE, line);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(style: Style, line: &str, expected: &str) {
        assert_eq!(Console { style }.format("prefill-0", color(Kind::PrefillWorker), line), expected);
    }

    #[test]
    fn a_line_says_who_said_it() {
        check(Style::Plain, "hello", "prefill-0 │ hello\n");
        check(Style::Colored, "hello", "\x1b[36mprefill-0 │\x1b[0m hello\n");
        check(Style::Json, r#"{"level":"INFO"}"#, "{\"process\":\"prefill-0\",\"level\":\"INFO\"}\n");
        check(Style::Json, "thread panicked", "prefill-0 │ thread panicked\n");
    }
}
