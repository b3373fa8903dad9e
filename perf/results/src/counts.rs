//! Counting a window's requests and tokens.

use std::collections::HashMap;

use crate::{ErrorCount, Figures, Goodput, Measured, Outcome, Record, Requests, Slo, Throughput, Window};

/// Different errors that a summary lists.
const ERRORS: usize = 10;

/// Characters of an error that a summary tells: servers answer with whole pages.
const ERROR_CHARACTERS: usize = 300;

pub(crate) fn requests(records: &[Record], window: Window) -> Requests {
    let mut counted = Requests::default();
    for record in records {
        if !window.has(record.intended_us) {
            counted.left_out += 1;
            continue;
        }
        counted.total += 1;
        *match record.outcome {
            Outcome::Complete { .. } => &mut counted.complete,
            Outcome::Failed { .. } => &mut counted.failed,
            Outcome::Cancelled => &mut counted.cancelled,
            Outcome::Unfinished => &mut counted.unfinished,
        } += 1;
    }
    counted
}

pub(crate) fn throughput(records: &[Record], window: Window) -> Throughput {
    let seconds = window.seconds();
    if seconds <= 0.0 {
        return Throughput::default();
    }
    let served = || records.iter().filter(|record| !matches!(record.outcome, Outcome::Failed { .. }));
    let output = |record: &Record| record.tokens_between(window.start_us, window.end_us);
    let ended = |record: &&Record| {
        matches!(record.outcome, Outcome::Complete { .. }) && record.end_us.is_some_and(|at| window.has(at))
    };
    let prompts = || served().filter(|record| record.first_chunk().is_some_and(|first| window.has(first.at)));
    let input: f64 = prompts().filter_map(|record| record.input).map(|count| f64::from(count.tokens)).sum();
    Throughput {
        offered_requests_per_s: offered(records, window),
        requests_per_s: records.iter().filter(ended).count() as f64 / seconds,
        input_tokens_per_s: input / seconds,
        output_tokens_per_s: served().map(output).sum::<f64>() / seconds,
        cancelled_output_tokens_per_s: served()
            .filter(|record| matches!(record.outcome, Outcome::Cancelled))
            .map(output)
            .sum::<f64>()
            / seconds,
        cached_share: cached_share(prompts()),
    }
}

/// Requests per second over the part of the window in which any were due: what comes after the last is only waiting for answers.
fn offered(records: &[Record], window: Window) -> f64 {
    let due: Vec<_> = records.iter().map(|record| record.intended_us).filter(|&at| window.has(at)).collect();
    let (Some(first), Some(last)) = (due.iter().min(), due.iter().max()) else { return 0.0 };
    let seconds = last.since(*first).seconds();
    if seconds > 0.0 { (due.len() - 1) as f64 / seconds } else { due.len() as f64 / window.seconds() }
}

fn cached_share<'a>(prompts: impl Iterator<Item = &'a Record>) -> Option<f64> {
    let (mut cached, mut input) = (0.0, 0.0);
    for (hit, all) in prompts.filter_map(|record| Some((record.cached?, record.input?))) {
        cached += f64::from(hit.tokens);
        input += f64::from(all.tokens);
    }
    (input > 0.0).then(|| cached / input)
}

pub(crate) fn goodput(measured: &Measured, window: Window) -> Option<Goodput> {
    if measured.slo == Slo::default() {
        return None;
    }
    let asked = || {
        let within = measured.records.iter().filter(|record| window.has(record.intended_us));
        within.filter(|record| !matches!(record.outcome, Outcome::Cancelled))
    };
    let met = |record: &&Record| Figures::of(record, measured.run.streaming).meet(&measured.slo);
    let (good, all) = (asked().filter(met).count(), asked().count());
    Some(Goodput {
        slo: measured.slo,
        requests: good as u64,
        requests_per_s: if window.seconds() > 0.0 { good as f64 / window.seconds() } else { 0.0 },
        share: if all > 0 { good as f64 / all as f64 } else { 0.0 },
    })
}

pub(crate) fn errors(records: &[Record], window: Window) -> Vec<ErrorCount> {
    let mut counted: HashMap<(Option<u16>, &str), u64> = HashMap::new();
    for record in records.iter().filter(|record| window.has(record.intended_us)) {
        if let Outcome::Failed { status, message } = &record.outcome {
            *counted.entry((*status, beginning(message))).or_default() += 1;
        }
    }
    let mut errors: Vec<ErrorCount> = counted
        .into_iter()
        .map(|((status, message), count)| ErrorCount { status, message: message.to_owned(), count })
        .collect();
    errors.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.message.cmp(&b.message)));
    errors.truncate(ERRORS);
    errors
}

fn beginning(message: &str) -> &str {
    message.char_indices().nth(ERROR_CHARACTERS).map_or(message, |(end, _)| &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Micros;
    use crate::testing::steady;

    #[test]
    fn long_errors_are_told_by_their_beginning() {
        let mut records = steady(3);
        for (record, end) in records.iter_mut().zip(["one", "two", "three"]) {
            record.outcome =
                Outcome::Failed { status: Some(502), message: format!("{}{end}", "é".repeat(300)) };
        }
        let whole = Window { start_us: Micros(0), end_us: Micros(u64::MAX) };
        let expected = ErrorCount { status: Some(502), message: "é".repeat(300), count: 3 };
        assert_eq!(errors(&records, whole), [expected]);
    }
}
