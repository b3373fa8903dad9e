//! How much of a step with prompts and generation is hidden, as it reads the weights once.

use baton_simulator::profile::{DecodeTimes, PrefillTimes};

use super::{Residuals, StepRecord};

/// The share (0 to 1) of the shorter one, of the prompts' time and of what a step of generation takes at least, that such steps are
/// shorter than both together; least squares of relative errors.
pub(super) fn hidden<'a>(
    records: impl Iterator<Item = &'a StepRecord>,
    prefill: &PrefillTimes,
    decode: &DecodeTimes,
) -> (f64, Option<Residuals>) {
    let steps: Vec<Mixed> = records.map(|record| Mixed::of(record, prefill, decode)).collect();
    let (mut explained, mut squares) = (0.0, 0.0);
    for Mixed { took, apart, shorter } in &steps {
        explained += (apart - took) * shorter / (took * took);
        squares += shorter * shorter / (took * took);
    }
    let share = if squares > 0.0 { (explained / squares).clamp(0.0, 1.0) } else { 0.0 };
    let errors = steps.iter().map(|step| ((step.apart - share * step.shorter) / step.took - 1.0).abs());
    (share, Residuals::new(errors.collect()))
}

struct Mixed {
    /// All in ms.
    took: f64,
    apart: f64,
    shorter: f64,
}

impl Mixed {
    fn of(record: &StepRecord, prefill: &PrefillTimes, decode: &DecodeTimes) -> Self {
        let prompts = prefill.step_ms(record.prompt_tokens, record.pairs);
        let generation = decode.step_ms(record.sequences, record.context_tokens);
        let shorter = prompts.min(decode.piece(record.sequences).fixed_ms);
        Self { took: record.seconds * 1e3, apart: prompts + generation, shorter }
    }
}
