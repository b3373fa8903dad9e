//! Pulls, and their owners: they offer, renew, take back, forget, and use the blocks for something else at once.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Net;
use super::agents::Host;
use super::fetches::Reader;
use crate::{ExpectError, Offered};

/// One offer to be, and the reading of it.
#[derive(Clone)]
pub(super) struct Pull {
    pub(super) tag: u64,
    pub(super) tokens: u32,
    pub(super) starts_at: Duration,
    pub(super) expires_in: Duration,
    /// The owner extends it before it expires, or a little too late.
    pub(super) renewed: bool,
    /// The owner takes it back after this, whoever reads; `None`: when all have read.
    pub(super) taken_back: Option<Duration>,
    /// Nothing goes wrong in this world, and the owner keeps the offer.
    pub(super) kept: bool,
    /// Bytes may change on the way.
    pub(super) corrupted: bool,
    /// Some of what is under way never comes back.
    pub(super) stuck: bool,
    pub(super) crowd: bool,
}

/// The owner and all its readers, to their end.
pub(super) async fn run(net: Net, owner: Host, readers: Vec<Host>, pull: Pull, seed: u64) {
    sleep(pull.starts_at).await;
    let pull = Arc::new(pull);
    let (over, mut tickets, mut reading) = (CancellationToken::new(), Vec::new(), Vec::new());
    for (host, rank) in readers.into_iter().zip(1..) {
        let (ticket, received_ticket) = oneshot::channel();
        tickets.push(ticket);
        let dead = net.dead(host.number);
        let reader = Reader {
            net: net.clone(),
            covered: covers(&owner, &host),
            converted: owner.layout != host.layout,
            host,
            pull: pull.clone(),
            random: SmallRng::seed_from_u64(seed.wrapping_add(rank)),
        };
        reading.push(tokio::spawn(async move {
            // With its process, an agent ends wherever it is.
            dead.run_until_cancelled(reader.read(received_ticket)).await;
        }));
    }
    let (dead, all_read) = (net.dead(owner.number), over.clone());
    let owning = tokio::spawn(async move {
        dead.run_until_cancelled(own(&net, owner, &pull, tickets, all_read, seed)).await;
    });
    for reader in reading {
        reader.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    }
    over.cancel();
    owning.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
}

/// Whether a node holds all heads that another has.
pub(super) fn covers(owner: &Host, reader: &Host) -> bool {
    let (held, needed) = (owner.layout.heads(), reader.layout.heads());
    held.start <= needed.start && needed.end <= held.end
}

/// Offers, until all have read or something happens; then the blocks are something else's at once.
async fn own(
    net: &Net,
    host: Host,
    pull: &Pull,
    tickets: Vec<oneshot::Sender<Vec<u8>>>,
    all_read: CancellationToken,
    seed: u64,
) {
    let mut random = SmallRng::seed_from_u64(seed);
    net.running(host.number).await;
    let blocks = host.layout.blocks_for(pull.tokens) as usize;
    let Some(lease) = host.blocks.take(blocks, &mut random) else { return };
    lease.write(pull.tag, pull.tokens);
    let offered = match host.node.offer(&lease.ids, pull.tokens, pull.expires_in) {
        Ok(offered) => offered,
        Err(error) => {
            net.lock().seen.shortages += usize::from(matches!(error, ExpectError::Full { .. }));
            return net.note(|| format!("pull {}: not offered: {error}", pull.tag));
        }
    };
    tickets.into_iter().for_each(|ticket| drop(ticket.send(offered.ticket())));
    let expired = kept_up(net, &host, pull, &offered, &all_read, &mut random).await;
    net.note(|| format!("pull {}: the offer ends, expired: {expired}", pull.tag));
    // One that expired is over, whether or not it is still there.
    let offered = Some(offered).filter(|_| expired);
    if random.random_bool(0.5) {
        lease.write(pull.tag + 100, pull.tokens);
        sleep(Duration::from_millis(random.random_range(0..60))).await;
    }
    drop(lease);
    if offered.is_some() {
        sleep(Duration::from_millis(random.random_range(0..60))).await;
    }
}

/// Keeps an offer as long as its owner wants to; `true` when it expired.
async fn kept_up(
    net: &Net,
    host: &Host,
    pull: &Pull,
    offered: &Offered,
    all_read: &CancellationToken,
    random: &mut SmallRng,
) -> bool {
    let taken_back = pull.taken_back.map(|after| Instant::now() + after);
    let mut until = Instant::now() + pull.expires_in;
    loop {
        let renewal = pull.expires_in.mul_f64(random.random_range(0.3..1.1));
        let due = if pull.renewed { Instant::now() + renewal } else { until };
        let next = taken_back.map_or(due, |at| at.min(due));
        tokio::select! {
            biased;
            () = all_read.cancelled() => return false,
            () = sleep_until(next) => {}
        }
        net.running(host.number).await;
        let now = Instant::now();
        if taken_back.is_some_and(|at| at <= now) {
            return false;
        }
        let live = offered.renew(pull.expires_in);
        if live != (now < until) {
            let violation = format!("pull {}: renewed {live}, with {:?} left", pull.tag, until - now);
            net.lock().violations.push(violation);
        }
        if !live {
            return true;
        }
        until = now + pull.expires_in;
    }
}
