//! A record for people, and "what if".

use std::fmt::Write as _;

use super::{Choice, Record};
use crate::{
    estimate::{Term, Weights},
    view::Ms,
};

/// What other weights would have chosen, among the candidates that were kept.
#[derive(Clone, Debug, PartialEq)]
pub struct WhatIf {
    /// The weights.
    pub weights: Weights,
    /// Index and cost of each candidate, cheapest first.
    pub order: Vec<(usize, Ms)>,
    /// Whether the cheapest is another than that which won.
    pub is_changed: bool,
}

/// Recomputes `record` with other weights for some terms. Only kept candidates are compared: one that was not among the cheapest then is not known.
#[must_use]
pub fn what_if(record: &Record, changes: &[(Term, f64)]) -> WhatIf {
    let weights = changes.iter().fold(record.weights, |weights, &(term, weight)| weights.with(term, weight));
    let mut order: Vec<_> = record
        .choices
        .iter()
        .enumerate()
        .map(|(index, choice)| (index, choice.terms.cost(&weights)))
        .collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let is_changed = order.first().is_some_and(|&(first, cost)| {
        // Among equals, the winner stays.
        let own = order.iter().find(|(index, _)| *index == record.winner);
        first != record.winner && own.is_none_or(|&(_, own)| own > cost)
    });
    WhatIf { weights, order, is_changed }
}

/// A record as text: the winner first, then the others with what makes them dearer.
#[must_use]
pub fn explain(record: &Record) -> String {
    let mut text = String::new();
    let Some(winner) = record.choices.get(record.winner) else { return text };
    let _ = writeln!(
        text,
        "request {} ({} prompt tokens, about {:.0} to generate) went to {}",
        record.request_id,
        record.prompt_tokens,
        record.expected_output_tokens,
        place(winner)
    );
    let margin = record.margin_ms().map_or("no other place was possible".to_owned(), |margin| {
        format!("the next best would have cost {margin:.1} ms more")
    });
    let age = winner.report_age_ms.map_or("never reported".to_owned(), |age| format!("{age:.0} ms old"));
    let _ = writeln!(
        text,
        "predicted first token after {:.1} ms; {margin}; its reports were {age}",
        winner.terms.ttft_ms()
    );
    for (index, choice) in record.choices.iter().enumerate() {
        let mark = if index == record.winner { "→" } else { " " };
        let _ = writeln!(
            text,
            "{mark} {:>10.1} ms  {}: {}",
            choice.terms.cost(&record.weights),
            place(choice),
            parts(record, choice)
        );
    }
    if let Some(outcome) = &record.outcome {
        let _ = writeln!(
            text,
            "then: first token after {:.1} ms (queue {:.1}, prefill {:.1}), transfer {:.1} and decode wait {:.1} ms, {} tokens in {:.1} ms, {} prompt tokens cached{}",
            outcome.ttft_ms,
            outcome.queue_ms,
            outcome.prefill_ms,
            outcome.transfer_ms,
            outcome.decode_wait_ms,
            outcome.output_tokens,
            outcome.decode_ms,
            outcome.cached_tokens,
            if outcome.failed { "; it was not served as decided" } else { "" }
        );
    }
    text
}

fn place(choice: &Choice) -> String {
    match &choice.prefill {
        Some(prefill) => format!("{prefill} then {}", choice.decode),
        None => format!("{} alone", choice.decode),
    }
}

// What does not count is left out.
fn parts(record: &Record, choice: &Choice) -> String {
    let parts: Vec<_> = Term::ALL
        .into_iter()
        .map(|term| (term.name(), choice.terms.get(term) * record.weights.get(term)))
        .filter(|(_, cost)| cost.abs() >= 0.05)
        .map(|(name, cost)| format!("{name} {cost:.1}"))
        .collect();
    parts.join(", ")
}
