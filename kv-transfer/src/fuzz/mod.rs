//! Fuzz targets: one for each decoder of what strangers send.
//!
//! A target takes any bytes, gives them to a decoder, and asserts what the code behind the decoder relies on: whatever is
//! accepted reads back as written, lies within the pools, and makes us allocate no more than in proportion to its length.
//!
//! ```text
//!  fuzz/corpus/TARGET/* ──┐
//!  seeds made here ───────┴─► mutate ─► target ─► panic? too much allocated?
//! ```
//! `cargo test fuzz` runs the corpus and a bounded number of mutations of each; `BATON_FUZZ_SECONDS=600` runs for so long, and
//! `fuzz/` has the same targets for libFuzzer, which sees coverage. A failure prints the input: put it into the corpus.

mod chunk;
mod conversation;
mod frame;
mod geometry;
mod immediate;
mod manifest;
mod offer;
mod offer_ticket;
mod ring;
mod shm_offer;
#[cfg(test)]
mod tests;
mod ticket;

use crate::{KvDtype, KvGeometry, KvLayout, KvOrder, KvPlacement, TensorParallel};

/// What a decoder made of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Refused,
}

use Verdict::{Accepted, Refused};

/// One decoder under attack.
struct Target {
    name: &'static str,
    run: fn(&[u8]) -> Verdict,
    /// Valid inputs, each with a name.
    #[cfg(test)]
    seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
    /// Mutations in an ordinary test run.
    #[cfg(test)]
    rounds: u64,
    /// Bytes that an input of one byte may make us allocate in all, and each further byte.
    #[cfg(test)]
    allocates: (u64, u64),
}

macro_rules! targets {
    ($($module:ident, $rounds:literal, $allocates:expr;)*) => {
        const TARGETS: &[Target] = &[$(Target {
            name: stringify!($module),
            run: $module::run,
            #[cfg(test)]
            seeds: $module::seeds,
            #[cfg(test)]
            rounds: $rounds,
            #[cfg(test)]
            allocates: $allocates,
        }),*];

        #[cfg(test)]
        mod each {
            $(#[test] fn $module() { super::tests::check(stringify!($module)); })*
        }
    };
}

targets! {
    ticket, 12_000, (256 << 10, 256);
    offer_ticket, 12_000, (256 << 10, 256);
    chunk, 12_000, (64 << 10, 64);
    frame, 12_000, (256 << 10, 256);
    geometry, 12_000, (512 << 10, 64);
    manifest, 12_000, (256 << 10, 256);
    offer, 12_000, (8 << 10, 64);
    shm_offer, 150, (128 << 10, 256);
    ring, 600, (8 << 10, 256);
    immediate, 2_000, (64 << 10, 256);
    conversation, 3_000, (64 << 10, 4096);
}

/// Runs a target by its name, for libFuzzer.
///
/// # Panics
/// When the target finds something, or there is none of that name.
#[cfg(fuzzing)]
pub fn fuzz(target: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|known| known.name == target).expect("a target of that name");
    (target.run)(bytes);
}

/// The pool of the node that is attacked: small, with everything that can differ.
const OURS: KvGeometry = KvGeometry {
    layout: KvLayout {
        layers: 2,
        kv_heads: 4,
        head_dim: 4,
        block_tokens: 4,
        dtype: KvDtype::Bf16,
        placement: KvPlacement::Joined,
        order: KvOrder::Hnd,
        tensor_parallel: TensorParallel::SINGLE,
    },
    blocks: 64,
};

/// Pools of peers with which we can exchange KV, each different in another way.
#[cfg(test)]
fn peers() -> Vec<(&'static str, KvGeometry)> {
    let with = |layout| KvGeometry { layout, blocks: 100 };
    let ours = OURS.layout;
    let rank = |rank, size| KvLayout { tensor_parallel: TensorParallel { rank, size }, ..ours };
    vec![
        ("same", OURS),
        ("blocks", with(KvLayout { block_tokens: 16, ..ours })),
        ("small_blocks", with(KvLayout { block_tokens: 1, ..ours })),
        ("nhd", with(KvLayout { order: KvOrder::Nhd, block_tokens: 7, ..ours })),
        ("split", with(KvLayout { placement: KvPlacement::Split, ..ours })),
        ("rank", with(rank(1, 2))),
        ("replica", with(rank(5, 8))),
    ]
}
