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

/// The other process of a file's tests: the file's own binary again.
macro_rules! peer_process {
    () => {
        /// Not a test: the other process of the tests here.
        #[test]
        #[ignore = "the peer process of the other tests, started by them"]
        fn peer_process() {
            let setup = std::env::var("BATON_KV_TEST_PEER").expect("only started by the other tests");
            support::serve(serde_json::from_str(&setup).unwrap());
        }
    };
}

pub(crate) use peer_process;
