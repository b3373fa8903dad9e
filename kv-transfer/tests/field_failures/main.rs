//! What goes wrong in other systems of this kind, by their public reports: each situation made here, between real processes,
//! with its right end. That end is the right bytes, or a clear error within a bounded time; never foreign bytes, never a
//! leak, never a hang.
//!
//! The situations that no real process can be brought into (a write that fails, a completion that is lost on the way) are in
//! `src/sim/field_failures.rs`, under virtual time. What concerns other layers is tested there:
//!
//! | report | what went wrong | where |
//! |---|---|---|
//! | vllm#49250 | recomputation after a failure gave other tokens | `tests/failure.rs`: a killed prefill worker changes no token; `tests/one_answer.rs` |
//! | sglang#30233 (the request) | a prompt over the limit was decoded all the same | `tests/bad_input.rs`; what the transfer does is here |
//! | dynamo#8965 (the front) | a short loss of all decode workers was for ever | `tests/failure.rs`: 503 until one is back; what the transfer does is here |
//! | dynamo#13088 | requests hung after a worker was chosen | sidecar: `patience_is_limited_only_while_a_prefill_worker_is_waited_for` |
//! | router#1206 | a full accept queue was tried again on the same host only | sidecar: `every_setback_before_the_first_token_leads_to_the_next_candidate` |
//! | router#2427 | no prefill worker was ready, and no fall-back was taken | sidecar: `without_candidates_the_decode_worker_prefills` |
//! | TRT-LLM#12313, #12540 (the engine) | a full pool, while health said 200 | `tests/bad_input.rs`: more requests than the cache holds wait their turn; the transfer's part is here |
//! | lmdeploy#4804 | whoever reached the control port ran code | there is nothing to run: the fuzz targets in `src/fuzz/` |

#[path = "../support/mod.rs"]
mod support;

mod hangs;
mod leaks;
mod wrong_answers;

use std::time::{Duration, Instant};

use baton_kv_transfer::{KvGeometry, PoolMemory};
use support::{Peer, Setup, World, block_on, fill, pairs, support_is_here};

const LONG: Duration = Duration::from_secs(30);
/// What "soon" means on a machine that may be many times overloaded.
const SOON: Duration = Duration::from_secs(10);

support::peer_process!();

/// The owner of source blocks: once it is gone they are somebody else's, with other content.
struct Lease {
    pool: PoolMemory,
    geometry: KvGeometry,
    blocks: Vec<u32>,
}

impl Lease {
    /// Takes `blocks` of the world's node and computes their KV.
    fn computed(world: &World, blocks: &[u32], seed: u64) -> Self {
        let (pool, geometry) = (world.node.pool(), world.setup.geometry());
        fill(&pool, &geometry, blocks, seed);
        Self { pool, geometry, blocks: blocks.to_vec() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        fill(&self.pool, &self.geometry, &self.blocks, 0xf4ee_d0ff);
    }
}

/// The middle one of some durations, on a machine where single ones may be anything.
async fn median(rounds: usize, mut measure: impl AsyncFnMut(u64) -> Duration) -> Duration {
    let mut taken = Vec::new();
    for round in 0..rounds {
        taken.push(measure(round as u64).await);
    }
    taken.sort_unstable();
    taken[rounds / 2]
}

/// Another peer process beside the world's.
async fn another(world: &World) -> Peer {
    Peer::start(&Setup { blocks: world.setup.blocks + 32, ..world.setup.clone() }).await
}

fn within(limit: Duration, started: Instant) {
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
}

macro_rules! on_fabrics {
    ($($(#[doc = $report:literal])* $module:ident::$theme:ident;)*) => {
        mod shm {
            $($(#[doc = $report])* #[test] fn $theme() {
                super::block_on(super::$module::$theme("shm"));
            })*
        }
        mod libfabric_tcp {
            $($(#[doc = $report])* #[test] fn $theme() {
                if super::support_is_here("libfabric:tcp") {
                    super::block_on(super::$module::$theme("libfabric:tcp"));
                }
            })*
        }
    };
}

on_fabrics! {
    /// aws-do-eks#84
    wrong_answers::a_lease_that_ends_while_decode_queues_is_an_error_or_right_bytes;
    /// vllm#52234
    wrong_answers::what_an_earlier_prompt_left_in_the_blocks_is_never_an_answer;
    /// sglang#35049, #38961
    wrong_answers::blocks_of_an_aborted_transfer_are_not_reused_while_they_may_be_written;
    /// sglang#23020, TRT-LLM#6507, vllm#52516
    wrong_answers::other_tensor_parallel_sizes_move_exactly_the_bytes_that_are_needed;
    /// sglang#30233
    wrong_answers::a_prompt_over_the_limit_is_refused_and_decode_gets_an_error;
    /// vllm#42895
    wrong_answers::other_block_sizes_are_converted_and_what_cannot_be_is_refused_by_name;
    /// sglang#28651
    hangs::prefills_abort_reaches_decode_within_100_ms;
    /// sglang#29482
    hangs::decodes_refusal_reaches_prefill_within_100_ms;
    /// vllm#49238, llm-d#2187, smg#2491
    hangs::a_restarted_prefill_is_served_and_its_former_life_is_over;
    /// vllm#49238, llm-d#2187, smg#2491
    hangs::a_ticket_of_a_former_life_at_the_same_endpoint_is_refused_at_once;
    /// smg#2382, dynamo#8965
    hangs::killed_decode_workers_do_not_poison_prefill;
    /// TRT-LLM#12313, #12540
    hangs::exhausted_pools_slots_and_queues_in_both_directions_do_not_deadlock;
    /// lmdeploy#4804 (the port)
    hangs::connections_that_say_nothing_hold_up_nobody;
    /// vllm#46283, #46289
    leaks::a_completion_that_is_lost_with_its_sender_gives_the_blocks_back;
    /// vllm#41269 (rejection), #50425 (disconnect), #29906 (time-out)
    leaks::rejection_disconnect_and_timeout_strand_nothing_at_prefill;
    /// dynamo#7489, #13855
    leaks::a_cancel_at_any_moment_leaks_nothing_and_the_next_transfer_works;
    /// sglang#31800
    leaks::a_transfer_that_never_ends_times_out;
}
