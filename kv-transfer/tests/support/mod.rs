//! Two real processes: this one, and a peer that is this test binary again, told what to do over its standard input.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its part")]

mod agent;
mod client;
mod pattern;
pub mod strict;
mod world;

pub use agent::{Order, PeerStats, Reply, serve};
pub use client::Peer;
pub use pattern::{fill, first_wrong, first_wrong_of, pairs};
pub use world::{Limits, Setup, World, block_on, config, shape, support_is_here, until};
