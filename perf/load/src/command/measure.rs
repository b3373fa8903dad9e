//! What is asked of a run.

use std::{sync::Arc, time::Duration};

use baton_results::Slo;
use tokio_util::sync::CancellationToken;

use crate::{Form, modes::Measure, trim};

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Measurement")]
pub struct MeasureArgs {
    /// What tables and charts call the server [default: its URL]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Count requests whose first token came within this time, such as 500ms, from when they were to be sent
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) slo_ttft: Option<Duration>,

    /// … whose time per token after the first was at most this
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) slo_tpot: Option<Duration>,

    /// … that were complete within this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) slo_e2e: Option<Duration>,

    /// Leave out requests that were to be sent in this time from the start
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = humantime::parse_duration)]
    warm_up: Duration,

    /// Leave out so many requests at the start, those that were to be sent first; with --warm-up, whichever is more
    #[arg(long, visible_alias = "warmup-requests", default_value_t = 0, value_name = "N")]
    warm_up_requests: u32,

    /// Leave out requests that were to be sent in this time before the end
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = humantime::parse_duration)]
    cool_down: Duration,

    /// Do not measure the client itself first; the run is then marked INVALID
    #[arg(long)]
    no_calibration: bool,

    /// Say nothing while it runs
    #[arg(long, short)]
    quiet: bool,

    /// Keep a remark with the results, such as --note commit=1a2b3c; several may follow
    #[arg(long = "note", value_name = "NAME=TEXT", value_parser = parse_note)]
    notes: Vec<(String, String)>,
}

impl MeasureArgs {
    pub(super) fn measure(
        &self,
        name: String,
        form: Form,
        made: Arc<baton_workload::Content>,
        interrupt: &CancellationToken,
    ) -> Measure {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        Measure {
            name: self.name.clone().unwrap_or(name),
            command: shown(std::env::args()),
            form,
            made,
            slo: Slo {
                ttft_ms: self.slo_ttft.map(millis),
                tpot_ms: self.slo_tpot.map(millis),
                e2e_ms: self.slo_e2e.map(millis),
            },
            trim: trim(self.warm_up, self.cool_down),
            warm_up_requests: self.warm_up_requests,
            notes: self.notes.iter().cloned().collect(),
            calibrates: !self.no_calibration,
            shows_progress: !self.quiet,
            interrupt: interrupt.clone(),
        }
    }
}

/// A command line without what nobody else may know.
fn shown(args: impl Iterator<Item = String>) -> Vec<String> {
    const SECRET: [&str; 2] = ["--api-key", "--header"];
    let mut hides_next = false;
    let show = |arg: String| {
        if std::mem::take(&mut hides_next) {
            return "…".to_owned();
        }
        match arg.split_once('=') {
            Some((name, _)) if SECRET.contains(&name) => format!("{name}=…"),
            _ => {
                hides_next = SECRET.contains(&arg.as_str());
                arg
            }
        }
    };
    args.map(show).collect()
}

fn parse_note(text: &str) -> Result<(String, String), String> {
    let (name, note) = text.split_once('=').ok_or("give it as NAME=TEXT")?;
    Ok((name.to_owned(), note.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_kept() {
        let args = [
            "baton",
            "bench",
            "--api-key",
            "k1",
            "--url",
            "u",
            "--api-key=k2",
            "--header=a: b",
            "--header",
            "c: d",
        ];
        let expected =
            ["baton", "bench", "--api-key", "…", "--url", "u", "--api-key=…", "--header=…", "--header", "…"];
        assert_eq!(shown(args.map(str::to_owned).into_iter()), expected);
    }
}
