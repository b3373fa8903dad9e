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
}

/// How many tokens of which sequence a step computes: all that generate, one token each and what is drafted for them, and then
/// prompts in order of arrival, which share what the limits leave.
pub(super) fn plan_step(work: &[Work], limits: StepLimits) -> Vec<(Arrival, usize)> {
    let mut plan: Vec<_> =
        work.iter().filter(|work| work.is_decoding).map(|work| (work.arrival, 1 + work.drafted)).collect();
    let most = if plan.is_empty() { limits.tokens } else { limits.mixed_prompt_tokens };
    let rows: usize = plan.iter().map(|(_, count)| count).sum();
    let least = limits.least_prompt_tokens.min(most);
    let mut left = limits.tokens.saturating_sub(rows).min(most).max(least);
    for prompt in work.iter().filter(|work| !work.is_decoding) {
        let chunk = prompt.uncomputed.min(left);
        if chunk == 0 {
            break;
        }
        plan.push((prompt.arrival, chunk));
        left -= chunk;
    }
    plan
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
        Work { arrival: Arrival(arrival), uncomputed: 1, is_decoding: true, drafted: 0 }
    }

    fn prompt(arrival: u64, uncomputed: usize) -> Work {
        Work { arrival: Arrival(arrival), uncomputed, is_decoding: false, drafted: 0 }
    }

    #[track_caller]
    fn check(work: &[Work], max_step_tokens: usize, expected: &[(u64, usize)]) {
        let limits = StepLimits { tokens: max_step_tokens, mixed_prompt_tokens: 10, least_prompt_tokens: 4 };
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
        let limits = StepLimits { tokens: 16, mixed_prompt_tokens: 0, least_prompt_tokens: 4 };
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
        let limits = StepLimits { tokens: 12, mixed_prompt_tokens: 10, least_prompt_tokens: 4 };
        assert_eq!([most_drafts(5, false, limits), most_drafts(5, true, limits)], [7, 3]);
        assert_eq!([most_drafts(10, true, limits), most_drafts(13, false, limits)], [2, 0]);
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
