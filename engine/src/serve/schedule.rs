//! What to compute next, as pure functions of what there is.
//!
//! Everything goes in order of arrival, and that is why nothing starves: the oldest sequence that is neither held up by
//! blocks outside the engine nor finished always gets its token in a step, or is the next to be let in.
//!
//! * A running sequence out of blocks takes them from the *youngest* that has any, which may be itself. So the oldest one is
//!   preempted only when nobody else has blocks to give, and it alone fits the pool (that was checked when it came).
//! * A preempted sequence keeps its place in the order, so it is before everything that came after it, and nobody younger is
//!   given blocks while it waits. When it is let in it gets the blocks for all its tokens and the next one, so each time it
//!   is let in it generates at least one token unless an older one takes its blocks, and older ones are finitely many and
//!   finish: `max_tokens` bounds them.
//! * A preempted sequence's full blocks stay cached until somebody takes them, and what is left of them is not computed again.
//!   They count as available meanwhile: whether somebody is let in never depends on keeping them.
//! * Reservations and held blocks are outside: whoever has them returns them within a deadline of their own.

use baton_profile::{batching, pairs};

use super::mailbox::Arrival;

/// What somebody has to be given before they may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Blocks to be taken.
    pub(super) fresh: usize,
    /// Cached blocks that nobody uses: with this one they are no longer available.
    pub(super) idle: usize,
}

/// A running sequence, as far as the plan of a step needs to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) arrival: Arrival,
    /// Tokens that are computed already.
    pub(super) computed: usize,
    /// Tokens to compute before its next token can be sampled.
    pub(super) uncomputed: usize,
    /// Whether it generates, one token a step.
    pub(super) is_decoding: bool,
    /// Tokens drafted for it, which are computed beside that one.
    pub(super) drafted: usize,
}

/// How many tokens a step computes.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepLimits {
    /// Of all sequences together.
    pub(super) tokens: usize,
    /// Of prompts, in a step in which somebody generates: they all wait for it. 0: no prompts in this one.
    pub(super) mixed_prompt_tokens: usize,
    /// Prompts get as many even where `tokens` leaves less, so that they are never starved.
    pub(super) least_prompt_tokens: usize,
    /// What steps of nothing but prompts take: how many of them belong together.
    pub(super) prompt_costs: PromptCosts,
}

/// What a step of nothing but prompts takes, in any unit of time. All zero: that is not known, and as many are computed together as there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PromptCosts {
    pub(super) fixed: f64,
    pub(super) per_token: f64,
    /// For each pair of a new token and one before it.
    pub(super) per_pair: f64,
}

/// How many tokens of which sequence a step computes: all that generate, one token each and what is drafted for them, and then
/// prompts in order of arrival, which share what the limits leave. Where nobody generates, they end one after the other, but for those that cost less together.
pub(super) fn plan_step(work: &[Work], limits: StepLimits) -> Vec<(Arrival, usize)> {
    let mut plan: Vec<_> =
        work.iter().filter(|work| work.is_decoding).map(|work| (work.arrival, 1 + work.drafted)).collect();
    let is_alone = plan.is_empty();
    let most = if is_alone { limits.tokens } else { limits.mixed_prompt_tokens };
    let rows: usize = plan.iter().map(|(_, count)| count).sum();
    let least = limits.least_prompt_tokens.min(most);
    let mut left = limits.tokens.saturating_sub(rows).min(most).max(least);
    let prompts = || work.iter().filter(|work| !work.is_decoding);
    let waiting = if is_alone { prompts().count() } else { 0 };
    for (together, prompt) in prompts().enumerate() {
        let chunk = prompt.uncomputed.min(left);
        let joins = || chunk == prompt.uncomputed && limits.prompt_costs.joins(together, waiting, prompt);
        if chunk == 0 || (is_alone && together > 0 && !joins()) {
            break;
        }
        plan.push((prompt.arrival, chunk));
        left -= chunk;
    }
    plan
}

impl PromptCosts {
    fn joins(&self, together: usize, waiting: usize, prompt: &Work) -> bool {
        let (new, before) = (prompt.uncomputed as u64, prompt.computed as u64);
        let adds = self.per_token * new as f64 + self.per_pair * pairs(new, before);
        batching::joins(together, waiting, adds, self.fixed)
    }
}

/// How many tokens a step may draft beside the one of each that generates: what the limits leave, but no more than a quarter of
/// a step in which prompts are computed.
pub(super) fn most_drafts(generating: usize, has_prompts: bool, limits: StepLimits) -> usize {
    let left = limits.tokens.saturating_sub(generating);
    if has_prompts { left.min(limits.tokens / 4) } else { left }
}

/// Whether the next in the queue may be given what they want while `growing` sequences run: one block for each of them
/// stays available, so that letting somebody in does not at once preempt somebody.
pub(super) fn has_room(available: usize, wanted: Wanted, growing: usize) -> bool {
    wanted.fresh == 0 || available >= wanted.fresh + wanted.idle + growing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoding(arrival: u64) -> Work {
        Work { arrival: Arrival(arrival), computed: 0, uncomputed: 1, is_decoding: true, drafted: 0 }
    }

    fn prompt(arrival: u64, uncomputed: usize) -> Work {
        Work { arrival: Arrival(arrival), computed: 0, uncomputed, is_decoding: false, drafted: 0 }
    }

    fn limits(tokens: usize, mixed_prompt_tokens: usize) -> StepLimits {
        let prompt_costs = PromptCosts::default();
        StepLimits { tokens, mixed_prompt_tokens, least_prompt_tokens: 4, prompt_costs }
    }

    #[track_caller]
    fn check(work: &[Work], max_step_tokens: usize, expected: &[(u64, usize)]) {
        let limits = limits(max_step_tokens, 10);
        let plan: Vec<_> = plan_step(work, limits).into_iter().map(|(a, n)| (a.0, n)).collect();
        assert_eq!(plan, expected);
    }

    #[test]
    fn decodes_go_first_and_prompts_share_the_rest_in_order_of_arrival() {
        check(&[prompt(0, 5), decoding(1), prompt(2, 3), prompt(3, 9)], 9, &[(1, 1), (0, 5), (2, 3)]);
    }

    #[test]
    fn prompts_get_less_beside_those_who_generate() {
        check(&[prompt(0, 100), decoding(1)], 16, &[(1, 1), (0, 10)]);
        check(&[prompt(0, 7), decoding(1), prompt(2, 9)], 16, &[(1, 1), (0, 7), (2, 3)]);
    }

    #[test]
    fn a_step_may_be_without_prompts() {
        let limits = limits(16, 0);
        assert_eq!(plan_step(&[decoding(0), prompt(1, 9)], limits), [(Arrival(0), 1)]);
        assert_eq!(plan_step(&[prompt(1, 9)], limits), [(Arrival(1), 9)], "nobody generates");
    }

    #[test]
    fn a_long_prompt_is_cut() {
        check(&[prompt(0, 100), prompt(1, 1)], 16, &[(0, 16)]);
    }

    #[test]
    fn prompts_get_their_least_share_beside_many_decodes() {
        check(&[decoding(0), decoding(1), decoding(2), prompt(3, 9)], 3, &[(0, 1), (1, 1), (2, 1), (3, 4)]);
    }

    #[test]
    fn drafts_take_from_what_prompts_share() {
        let drafted = |arrival, drafted| Work { drafted, ..decoding(arrival) };
        check(&[drafted(0, 3), prompt(1, 9), drafted(2, 1)], 12, &[(0, 4), (2, 2), (1, 6)]);
        let limits = limits(12, 10);
        assert_eq!([most_drafts(5, false, limits), most_drafts(5, true, limits)], [7, 3]);
        assert_eq!([most_drafts(10, true, limits), most_drafts(13, false, limits)], [2, 0]);
    }

    #[test]
    fn prompts_end_one_after_the_other_unless_they_cost_less_together() {
        let planned = |costs: PromptCosts, work: &[Work]| {
            let limits = StepLimits { prompt_costs: costs, ..limits(100, 10) };
            plan_step(work, limits).into_iter().map(|(a, n)| (a.0, n)).collect::<Vec<_>>()
        };
        let dear = PromptCosts { fixed: 1.0, per_token: 1.0, per_pair: 0.0 };
        let short = [prompt(0, 9), prompt(1, 9), prompt(2, 9)];
        assert_eq!(planned(dear, &short), [(0, 9)]);
        let cheap = PromptCosts { fixed: 100.0, ..dear };
        assert_eq!(planned(cheap, &short), [(0, 9), (1, 9), (2, 9)]);
        let some = PromptCosts { fixed: 10.0, ..dear };
        assert_eq!(planned(some, &short), [(0, 9), (1, 9)], "√(3·10/9) is between one and two");
        assert_eq!(planned(cheap, &[prompt(0, 60), prompt(1, 60)]), [(0, 60)], "a part saves no step");
        assert_eq!(planned(dear, &[prompt(0, 300), prompt(1, 1)]), [(0, 100)]);
        let attended = PromptCosts { fixed: 10.0, per_token: 0.1, per_pair: 0.01 };
        let after = |computed| [prompt(0, 9), Work { computed, ..prompt(1, 9) }];
        assert_eq!(planned(attended, &after(0)).len(), 2);
        assert_eq!(planned(attended, &after(1_000)).len(), 1);
    }

    #[test]
    fn nothing_to_do_is_an_empty_plan() {
        check(&[], 16, &[]);
    }

    #[test]
    fn room_keeps_a_block_for_each_growing_sequence() {
        let room = |available, fresh, idle, growing| has_room(available, Wanted { fresh, idle }, growing);
        assert!(room(5, 3, 0, 2));
        assert!(!room(4, 3, 0, 2));
        assert!(room(3, 3, 0, 0));
        assert!(!room(5, 3, 1, 2), "a cached block that is used is available no more");
        assert!(room(0, 0, 0, 9), "who wants nothing always has room");
    }
}
