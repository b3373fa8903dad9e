//! What became of requests over time.

use super::pick;
use crate::chart::{Bar, Segment, Timeline};
use crate::{Chart, Document, Outcome, Phases, Record};

/// Runs that are shown.
const RUNS: usize = 4;

/// Requests of a run that are shown.
const REQUESTS: usize = 40;

const LEGEND: [&str; 7] =
    ["not yet sent", "queue", "prefill", "transfer", "decode wait", "to the first token", "decode"];
const UNSENT: usize = 0;
const FIRST_TOKEN: usize = 5;
const DECODE: usize = 6;

/// Requests from the middle of each shown run's window.
pub(super) fn charts(runs: &[Document]) -> Vec<Chart> {
    let chosen = pick::spread(runs, RUNS);
    chosen.into_iter().enumerate().filter_map(|(n, run)| chart(n, run)).collect()
}

fn chart(n: usize, run: &Document) -> Option<Chart> {
    let window = run.summary.window;
    let mut records: Vec<&Record> =
        run.measured.records.iter().filter(|record| window.has(record.intended_us)).collect();
    records.sort_by_key(|record| record.intended_us);
    let first = records.len().saturating_sub(REQUESTS) / 2;
    let shown: Vec<&Record> = records.into_iter().skip(first).take(REQUESTS).collect();
    let bars: Vec<Bar> = shown.iter().map(|record| bar(record)).collect();
    let count = bars.len();
    let timeline = Timeline {
        name: format!("timeline-{}", n + 1),
        title: format!("Requests over time: {}", pick::title(run)),
        subtitle: format!("{count} requests from the middle of the run, from their intended send times"),
        invalid: pick::invalid([run]),
        legend: LEGEND.to_vec(),
        bars,
    };
    (count > 0).then(|| timeline.draw())
}

fn bar(record: &Record) -> Bar {
    let mut segments = Vec::new();
    let mut at = record.intended_us.seconds();
    let mut until = |kind: usize, to: f64| {
        if to > at {
            segments.push(Segment { from: at, to, kind });
            at = to;
        }
    };
    let last = record.end_us.or(record.chunks.last().map(|chunk| chunk.at)).or(record.sent_us);
    if let Some(sent) = record.sent_us {
        until(UNSENT, sent.seconds());
        let first = record.first_chunk().map_or(last, |chunk| Some(chunk.at)).unwrap_or(sent).seconds();
        let mut phase = sent.seconds();
        for (kind, length) in record.phases.iter().flat_map(phases) {
            phase = (phase + length).min(first);
            until(kind, phase);
        }
        until(FIRST_TOKEN, first);
    }
    if let Some(last) = last {
        until(DECODE, last.seconds());
    }
    let ended = match &record.outcome {
        Outcome::Complete { .. } => None,
        Outcome::Failed { message, .. } => Some(format!("failed: {message}")),
        Outcome::Cancelled => Some("cancelled, as planned".into()),
        Outcome::Unfinished => Some("unfinished".into()),
    };
    Bar { label: format!("#{}", record.index), ended: ended.map(|how| (at, how)), segments }
}

/// The server's phases in their order, by their number in the legend, in seconds. Where they lie is not told; they are drawn from
/// the send time on, one after the other, and what they leave until the first token is the network and the rest.
fn phases(phases: &Phases) -> Vec<(usize, f64)> {
    let all = [phases.queue_us, phases.prefill_us, phases.transfer_us, phases.decode_wait_us];
    all.iter().enumerate().filter_map(|(n, length)| Some((n + 1, (*length)?.seconds()))).collect()
}
