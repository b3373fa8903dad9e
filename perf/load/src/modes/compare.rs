//! Two servers, in turn.

use baton_results::{Comparison, Document, NotComparable};
use baton_workload::Workload;

use super::{Measure, ModeError, Prepared};
use crate::Bench;

/// Runs the same plan on both, each pair with other words, in pairs whose order alternates (ABBA), so that a slow drift of the machine is in both alike; `done` is told
/// of each run. Blocks.
///
/// # Errors
/// [`ModeError`]; fewer than two whole pairs, be it because of an interrupt.
pub fn compare(
    [a, b]: [(&Bench, &Measure); 2],
    workload: &Workload,
    pairs: u32,
    mut done: impl FnMut(&Document),
) -> Result<Comparison, ModeError> {
    if pairs < 2 {
        return Err(NotComparable::TooFew(pairs as usize).into());
    }
    let mut prepared = Prepared::new(workload, a.1, None, 0)?;
    // The load is the same in all runs, and so is the client.
    let calibration = prepared.calibrate(a.0, a.1)?;
    let mut run = |prepared: &Prepared, (bench, measure): (&Bench, &Measure)| {
        let document = prepared.run(bench, measure, calibration.clone())?;
        done(&document);
        Ok::<_, ModeError>(document)
    };
    let mut documents = Vec::new();
    for pair in 0..pairs {
        // What one pair has left in caches is no help to the next.
        prepared.say_other_words(a.1, pair.into())?;
        let is_a_first = pair % 2 == 0;
        let [first, second] = if is_a_first { [a, b] } else { [b, a] };
        let (first, second) = (run(&prepared, first)?, run(&prepared, second)?);
        if a.1.interrupt.is_cancelled() {
            break;
        }
        documents.push(if is_a_first { (first, second) } else { (second, first) });
    }
    Ok(Comparison::new(&documents)?)
}
