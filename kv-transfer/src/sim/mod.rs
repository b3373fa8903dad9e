//! Simulation: many nodes in one thread, under a clock, a network and a fate that one seed decides.
//!
//! Everything of the library runs as it is (tickets, handshakes, control tasks, the data plane), except for what cannot be
//! repeated: sockets are pipes with delays, the data thread is a task, random numbers are drawn from the seed, time is
//! virtual and jumps when there is nothing to do. The fabric does what fabrics may do (any order, any delay, completions
//! before delivery) and, when told to, what they must not (lost, repeated, corrupted, failed writes). Peers die, stop
//! for a while, and lose connections in the middle of anything.
//!
//! Each write is watched by an oracle that knows who owns which block: reading a source block after it was given back, or
//! landing in a destination block that was, ends the run, whether or not anybody would have noticed. Pulls may read anything (their
//! owners take blocks back whenever they like), but land only in the blocks of the fetch that made them, and what a fetch calls
//! right is what was offered.
//!
//! A seed replays to the byte: `cargo test -p baton-kv-transfer sim` names the seed of a failure, and `BATON_SIM_SEED` runs
//! that one alone and prints what happened.

mod agents;
mod blocks;
mod fabric;
mod fetches;
mod field_failures;
mod net;
mod pipe;
mod pulls;
mod reads;
mod schedule;
mod tests;

use std::cell::RefCell;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

pub(crate) use net::Net;
pub(crate) use pipe::{End, connect, listen};

thread_local! {
    static CURRENT: RefCell<Option<(Net, SmallRng)>> = const { RefCell::new(None) };
}

/// The network of the run on this thread.
pub(crate) fn net() -> Option<Net> {
    CURRENT.with_borrow(|current| current.as_ref().map(|(net, _)| net.clone()))
}

/// A random number of the run on this thread; `None` outside of one.
pub(crate) fn random() -> Option<u64> {
    CURRENT.with_borrow_mut(|current| current.as_mut().map(|(_, random)| random.next_u64()))
}

/// Does `work` in one moment of a time that it takes, with others going on before and after.
pub(crate) async fn slowly<T>(net: Net, work: impl FnOnce() -> T) -> T {
    pause(&net).await;
    let result = work();
    pause(&net).await;
    result
}

async fn pause(net: &Net) {
    let ms = net.lock().random.random_range(0..24_u64);
    // Mostly it takes no time worth the name.
    tokio::time::sleep(Duration::from_millis(ms.saturating_sub(12))).await;
}

/// Ends the run on this thread when dropped.
struct Run;

impl Run {
    fn begin(net: Net, seed: u64) -> Self {
        CURRENT.set(Some((net, SmallRng::seed_from_u64(seed ^ 0x5eed))));
        Self
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}
