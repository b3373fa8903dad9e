//! The limits that a running engine keeps.

use super::Speed;

/// Limits of an engine. Each must be at least 1.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Tokens computed in one step: running sequences take one each, prompts share the rest. When running sequences leave
    /// less than one block's worth, prompts still get that much, so that they are never starved.
    pub max_step_tokens: usize,
    /// Prompt tokens computed in a step in which sequences generate, which wait for it: the size of the chunks that a long prompt
    /// is cut to beside them. Has no effect above `max_step_tokens`. `None`: as many as make such a step less than twice as
    /// long as without them, by what steps take; a few at least.
    pub mixed_prompt_tokens: Option<usize>,
    /// Sequences computed at a time. When reached, others wait.
    pub max_running: usize,
    /// Requests and reservations waiting at a time. When reached, new ones are refused with `QueueFull`.
    pub max_waiting: usize,
    /// Output tokens that a reservation has room for from the start (fewer when `max_tokens` is less); more is taken as
    /// the sequence grows.
    pub growth_tokens: usize,
    /// Whether full blocks stay cached for sequences that begin the same.
    pub prefix_cache: bool,
    /// Layers that are reported to a [`PrefillSink`](super::PrefillSink) in one call. The default of 1 leaves it to the sink to
    /// group them, which knows where they go.
    pub layer_group: usize,
    /// How long steps take.
    pub speed: Speed,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_step_tokens: 512,
            mixed_prompt_tokens: None,
            max_running: 64,
            max_waiting: 1024,
            growth_tokens: 64,
            prefix_cache: true,
            layer_group: 1,
            speed: Speed::Full,
        }
    }
}

impl EngineConfig {
    pub(super) fn assert_valid(&self) {
        let Self {
            max_step_tokens,
            mixed_prompt_tokens,
            max_running,
            max_waiting,
            growth_tokens,
            prefix_cache: _,
            layer_group,
            speed,
        } = self;
        for (name, value) in [
            ("max_step_tokens", *max_step_tokens),
            ("mixed_prompt_tokens", mixed_prompt_tokens.unwrap_or(1)),
            ("max_running", *max_running),
            ("max_waiting", *max_waiting),
            ("growth_tokens", *growth_tokens),
            ("layer_group", *layer_group),
        ] {
            assert!(value >= 1, "EngineConfig::{name} must be at least 1");
        }
        if let Speed::Share(percent) = speed {
            assert!((1..=100).contains(percent), "Speed::Share must be from 1 to 100");
        }
    }
}
