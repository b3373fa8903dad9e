//! `baton explain`: where a request went and why, and where it would have gone with other weights.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use baton_policy::{
    estimate::Term,
    record::{Record, explain, what_if},
};

/// Options of `baton explain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Each decision lists the cheapest places with the parts of their cost in milliseconds, cheapest first, and what then happened.
A request's id is in its answer's header x-request-id, and in the scheduler's log.

Examples:
  baton explain 4f0c…                            why it went where it went
  baton explain 4f0c… --what-if transfer=0       with transfers for nothing
  baton explain 4f0c… --what-if queue=2 --what-if prefill=0.5
  baton explain --last 5                         the last five decisions
  baton explain 4f0c… --file decisions.jsonl     from the file of `scheduler --decision-log`")]
pub(crate) struct ExplainArgs {
    /// The request's id; of several completions ID.1, ID.2, … are the others
    #[arg(value_name = "REQUEST_ID", required_unless_present = "last")]
    request_id: Option<String>,

    /// The last decisions instead
    #[arg(long, value_name = "N", conflicts_with = "request_id", value_parser = clap::value_parser!(u16).range(1..=100))]
    last: Option<u16>,

    /// The scheduler that decided
    #[arg(long, env = "BATON_URL", default_value = "http://127.0.0.1:8000", value_name = "URL")]
    url: String,

    /// From this file instead, which the scheduler's --decision-log wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "api_key", "tls_ca"])]
    file: Option<PathBuf>,

    /// Key, where the scheduler asks for one
    #[arg(long, env = "BATON_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,

    /// Certificates that the scheduler's is checked against, beside the system's
    #[arg(long, env = "BATON_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Decide again with another weight for a part of the cost; several may follow. Only the places that are shown are compared
    #[arg(long, value_name = "PART=WEIGHT", value_parser = parse_change)]
    what_if: Vec<(Term, f64)>,

    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: ExplainArgs) -> anyhow::Result<()> {
    let records = match &args.file {
        Some(file) => read(&args, file)?,
        None => fetch(&args).await?,
    };
    let mut text = String::new();
    for record in &records {
        if args.json {
            let _ = writeln!(text, "{}", serde_json::to_string(record)?);
            continue;
        }
        text.push_str(&explain(record));
        if !args.what_if.is_empty() {
            tell_what_if(&mut text, record, &args.what_if);
        }
        text.push('\n');
    }
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

async fn fetch(args: &ExplainArgs) -> anyhow::Result<Vec<Record>> {
    let mut client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(10));
    if let Some(path) = &args.tls_ca {
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let ca = reqwest::Certificate::from_pem(&pem)
            .with_context(|| format!("{} holds no certificate in PEM form", path.display()))?;
        client = client.add_root_certificate(ca);
    }
    let base = args.url.trim_end_matches('/');
    let url = match &args.request_id {
        Some(id) => format!("{base}/v1/decisions/{id}"),
        None => format!("{base}/v1/decisions"),
    };
    let mut request = client.build()?.get(&url);
    if let Some(key) = &args.api_key {
        request = request.bearer_auth(key);
    }
    let answer = request
        .send()
        .await
        .with_context(|| format!("no scheduler at {base} (--url, or BATON_URL, says where it is)"))?;
    let (status, body) = (answer.status(), answer.bytes().await?);
    let body: serde_json::Value = serde_json::from_slice(&body).with_context(|| {
        format!("{url} answers {status} with something that is no JSON: is it a scheduler?")
    })?;
    if !status.is_success() {
        match body["error"]["message"].as_str() {
            Some(message) => bail!("{message}"),
            None => bail!("{url} answers {status}"),
        }
    }
    Ok(match args.last {
        None => vec![serde_json::from_value(body)?],
        Some(most) => {
            let mut records: Vec<Record> = serde_json::from_value(body["data"].clone())?;
            records.truncate(usize::from(most));
            records
        }
    })
}

/// The same from a file. A request that was decided more than once stands there more than once: the last time it ended counts.
fn read(args: &ExplainArgs, path: &Path) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut records = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // Not each of what may be gigabytes is parsed.
        if args.request_id.as_ref().is_none_or(|id| line.contains(id.as_str())) {
            let record: Record = serde_json::from_str(line)
                .with_context(|| format!("{} line {}: this is no decision", path.display(), index + 1))?;
            records.push(record);
        }
    }
    records.reverse();
    match (&args.request_id, args.last) {
        (Some(id), _) => {
            let found = records.into_iter().find(|record| record.request_id == *id);
            let missing = || format!("{} has no decision on request {id:?}", path.display());
            Ok(vec![found.with_context(missing)?])
        }
        (None, most) => {
            records.truncate(most.map_or(usize::MAX, usize::from));
            Ok(records)
        }
    }
}

fn tell_what_if(text: &mut String, record: &Record, changes: &[(Term, f64)]) {
    let again = what_if(record, changes);
    let changed: Vec<_> =
        changes.iter().map(|(term, weight)| format!("{} = {weight}", term.name())).collect();
    let place = |index: usize| {
        let choice = &record.choices[index];
        choice.prefill.as_ref().map_or_else(
            || format!("{} alone", choice.decode),
            |prefill| format!("{prefill} then {}", choice.decode),
        )
    };
    let Some(&(first, _)) = again.order.first() else { return };
    let verdict = if again.is_changed {
        format!("it would have gone to {}", place(first))
    } else {
        "it would have gone to the same place".to_owned()
    };
    let _ = writeln!(text, "with {}: {verdict}", changed.join(", "));
    for &(index, cost) in &again.order {
        let mark = if index == record.winner { "→" } else { " " };
        let _ = writeln!(text, "{mark} {cost:>10.1} ms  {}", place(index));
    }
}

fn parse_change(text: &str) -> Result<(Term, f64), String> {
    let names = || Term::ALL.map(Term::name).join(", ");
    let Some((name, weight)) = text.split_once('=') else {
        return Err(format!("use PART=WEIGHT; parts are {}", names()));
    };
    let term =
        Term::by_name(name).ok_or_else(|| format!("there is no part {name:?}; there are {}", names()))?;
    match weight.parse::<f64>() {
        Ok(weight) if weight.is_finite() && weight >= 0.0 => Ok((term, weight)),
        _ => Err(format!("{weight:?} is no weight: use a number from 0 on")),
    }
}
