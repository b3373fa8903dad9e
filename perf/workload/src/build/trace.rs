//! Requests out of a file.

use std::time::Duration;

use super::{
    Built, PlanError,
    rows::{self, Rows, Unit},
    schedule,
};
use crate::{
    content::CountTokens,
    plan::{Fill, Piece, Planned, Prompt, Start},
    workload::{Load, Trace, Workload},
};

pub(super) fn requests(
    workload: &Workload,
    trace: &Trace,
    texts: &dyn CountTokens,
) -> Result<Built, PlanError> {
    let Rows { mut units, texts, next_id } = rows::read(trace, texts, workload.limit(), workload.seed)?;
    from_time(&mut units, trace.skip);
    let starts: Box<dyn Iterator<Item = Start>> = match workload.load {
        Load::Recorded { time_scale, is_spread, .. } => {
            let times = recorded(&units, time_scale, is_spread);
            let times = times.ok_or_else(|| PlanError::NoTimes { path: trace.path.clone() })?;
            let end = workload.duration.unwrap_or(Duration::MAX);
            Box::new(times.into_iter().take_while(move |&at| at < end).map(Start::At))
        }
        // The file's end is an end, too.
        _ => schedule::slots(workload, Some(units.len()))?,
    };
    let mut emit = Emit { built: Built { texts, ..Built::default() }, next_id, limit: workload.limit() };
    let max_context = trace.max_context_tokens.map_or(u64::MAX, |tokens| tokens.get().into());
    units.retain(|unit| {
        let fits = unit.fits(max_context);
        emit.built.left_out += (unit.turns.len() - fits) as u64;
        fits > 0
    });
    for ((unit, start), number) in units.into_iter().zip(starts).zip(0..) {
        if !emit.unit(unit, start, number, max_context) {
            break;
        }
    }
    Ok(emit.built)
}

/// Sorts by time, where there are times, and lets the trace begin there.
fn from_time(units: &mut Vec<Unit>, begin: Duration) {
    let Some(first) = units.iter().filter_map(|unit| unit.at).min() else { return };
    units.sort_by_key(|unit| unit.at);
    units.retain_mut(|unit| {
        unit.at = unit.at.and_then(|at| (at - first).checked_sub(begin));
        unit.at.is_some()
    });
}

/// The units' times, rising; `None` when they have none.
fn recorded(units: &[Unit], time_scale: f64, is_spread: bool) -> Option<Vec<Duration>> {
    let mut times: Vec<f64> =
        units.iter().map(|unit| Some(unit.at?.as_secs_f64() * time_scale)).collect::<Option<_>>()?;
    if is_spread {
        spread(&mut times);
    }
    let far = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Some(times.into_iter().map(far).collect())
}

/// Equal times are spread evenly up to the next; the last ones stay.
fn spread(times: &mut [f64]) {
    let mut rest = times;
    while let Some(&at) = rest.first() {
        let equal = rest.iter().take_while(|&&time| time == at).count();
        let (group, after) = rest.split_at_mut(equal);
        let next = after.first().copied().unwrap_or(at);
        for (time, k) in group.iter_mut().zip(0_u32..) {
            *time = at + (next - at) * f64::from(k) / equal as f64;
        }
        rest = after;
    }
}

impl Unit {
    /// How many of its turns there are before one that is too long.
    fn fits(&self, max_context: u64) -> usize {
        let mut said = 0;
        let fits = self.turns.iter().take_while(|turn| {
            said += turn.new.iter().map(|piece| u64::from(piece.tokens)).sum::<u64>()
                + u64::from(turn.output_tokens);
            said <= max_context
        });
        fits.count()
    }
}

struct Emit {
    built: Built,
    next_id: u64,
    limit: usize,
}

impl Emit {
    /// Plans the unit's turns; false when there is no room for more.
    fn unit(&mut self, unit: Unit, start: Start, number: u32, max_context: u64) -> bool {
        let fits = unit.fits(max_context);
        let mut start = start;
        let mut said: Vec<Piece> = Vec::new();
        for (turn, place) in unit.turns.into_iter().take(fits).zip(0..) {
            let index = self.built.requests.len() as u32;
            if index as usize >= self.limit {
                return false;
            }
            if place > 0 {
                start = Start::After { index: index - 1, think: turn.think };
            }
            said.extend(turn.new);
            self.built.requests.push(Planned {
                index,
                start,
                session: unit.is_session.then_some(number),
                turn: place,
                prompt: Prompt { pieces: said.clone() },
                output_tokens: turn.output_tokens,
                cancel: None,
            });
            said.push(Piece { id: self.next_id, tokens: turn.output_tokens, fill: Fill::Answer { index } });
            self.next_id += 1;
        }
        true
    }
}
