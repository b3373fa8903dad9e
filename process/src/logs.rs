//! Logs: readable text for people, JSON lines for collectors.

use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// Whether log lines are coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogColor {
    /// When standard error is a terminal.
    #[default]
    Auto,
    /// Also into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// Stands last in a subcommand's help, after its own options.
const HEADING: &str = "Logs";

/// Log options that every subcommand takes.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What to log: a level, or directives such as `info,baton_kv_transfer=debug`
    #[arg(long, env = "BATON_LOG", default_value = "info", value_name = "FILTER", global = true, help_heading = HEADING)]
    pub log: String,

    /// How log lines look
    #[arg(long, env = "BATON_LOG_FORMAT", value_enum, default_value_t, global = true, help_heading = HEADING)]
    pub log_format: LogFormat,

    /// Whether log lines are coloured
    #[arg(long, env = "BATON_LOG_COLOR", value_enum, default_value_t, global = true, help_heading = HEADING)]
    pub log_color: LogColor,
}

impl LogArgs {
    /// Whether to write colours to standard error.
    pub fn colored(&self) -> bool {
        match self.log_color {
            LogColor::Auto => self.log_format == LogFormat::Text && std::io::stderr().is_terminal(),
            LogColor::Always => self.log_format == LogFormat::Text,
            LogColor::Never => false,
        }
    }
}

impl Default for LogArgs {
    fn default() -> Self {
        Self { log: "info".to_owned(), log_format: LogFormat::Text, log_color: LogColor::Auto }
    }
}

/// Starts logging to standard error; call once, first thing in `main`.
///
/// # Errors
/// A filter that can't be parsed, with the filter's own message.
pub fn init_logs(args: &LogArgs) -> Result<(), String> {
    init_logs_to(args, std::io::stderr)
}

/// [`init_logs`] to somewhere else: `writer` makes what takes one event, a line or more, with one `write`.
///
/// # Errors
/// A filter that can't be parsed, with the filter's own message.
pub fn init_logs_to<W>(args: &LogArgs, writer: W) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| format!("--log {:?} is not a filter: {error}; try `info` or `debug`", args.log))?;
    // When nobody reads standard error any more, a line is lost; saying so there would panic whoever logged it.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(args.colored()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
