//! Which rail an operation takes, and what becomes of it when a rail does not bring it through.
//!
//! Path *i* to a peer goes from our rail *i* to theirs, both counted round, so that equal machines pair NIC with NIC. Of the paths
//! that work, an operation takes the one whose rail has the fewest bytes under way: a slow or busy NIC gets fewer by itself.
//!
//! A path on which a write fails is not used any more for that peer while another is left. A rail from which nothing comes back,
//! while later writes to the same peer do over others, is to be closed: only that makes certain that it reads no source any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::sys;
use crate::fabric::Rail;
use crate::ids::PeerId;

/// How long a path may be silent while another to the same peer is not. Providers repeat what is lost within milliseconds, and
/// give up on a peer within seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// Peers, the load of each rail, and what is under way.
pub(super) struct Paths {
    rails: Vec<Load>,
    counters: Arc<[Rail]>,
    peers: BTreeMap<PeerId, Peer>,
    /// By context.
    flying: Vec<Option<Flying>>,
    /// Where equals are looked at first.
    next: usize,
    lost: u64,
}

struct Load {
    bytes: u64,
    operations: usize,
    depth: usize,
    closed: bool,
}

/// A connection over all rails.
pub(super) struct Peer {
    pub(super) paths: Vec<Path>,
    /// Bytes of its memory that may be written; `None` for one that only writes here.
    pub(super) region_bytes: Option<u64>,
}

/// One way to a peer.
pub(super) struct Path {
    pub(super) rail: usize,
    /// Of the peer's rail.
    pub(super) address: Vec<u8>,
    pub(super) handle: sys::fi_addr_t,
    /// Address of its pool there, and the key.
    pub(super) base: u64,
    pub(super) key: u64,
    lost: bool,
    used: bool,
    /// When the last posted of its completed operations was posted.
    heard: Duration,
}

#[derive(Clone, Copy)]
struct Flying {
    peer: PeerId,
    path: usize,
    rail: usize,
    bytes: u64,
    write: bool,
    posted: Duration,
}

/// What is to be done about an operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another path may bring it through.
    Again,
    Failed,
}

impl Path {
    pub(super) fn new(rail: usize, address: Vec<u8>, handle: sys::fi_addr_t, base: u64, key: u64) -> Self {
        Self { rail, address, handle, base, key, lost: false, used: false, heard: Duration::ZERO }
    }
}

impl Paths {
    /// Over rails of these names and depths.
    pub(super) fn new(rails: impl Iterator<Item = (String, usize)>) -> Self {
        let (devices, depths): (Vec<_>, Vec<_>) = rails.unzip();
        let counters = devices.into_iter().map(Rail::open).collect();
        let load = |depth| Load { bytes: 0, operations: 0, depth, closed: false };
        let rails = depths.into_iter().map(load).collect();
        Self { rails, counters, peers: BTreeMap::new(), flying: Vec::new(), next: 0, lost: 0 }
    }

    pub(super) fn rails(&self) -> Arc<[Rail]> {
        self.counters.clone()
    }

    pub(super) fn insert(&mut self, peer: PeerId, connection: Peer) {
        self.peers.insert(peer, connection);
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Peer> {
        let removed = self.peers.remove(&peer)?;
        self.lost -= removed.paths.iter().filter(|path| path.lost).count() as u64;
        // Nothing is heard of what is still under way to it; its rails are not to wait for that.
        let theirs = |flying: &Option<Flying>| flying.is_some_and(|flying| flying.peer == peer);
        for context in 0..self.flying.len() {
            if theirs(&self.flying[context]) {
                self.land(context as u32);
            }
        }
        Some(removed)
    }

    pub(super) fn peer(&self, peer: PeerId) -> Option<&Peer> {
        self.peers.get(&peer)
    }

    /// Paths that are not used any more.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// The best path with room, but for those whose bit is set in `tried`.
    pub(super) fn pick(&mut self, peer: PeerId, tried: u32) -> Option<usize> {
        let paths = &self.peers.get(&peer)?.paths;
        self.next = self.next.wrapping_add(1);
        let order = (0..paths.len()).map(|i| (self.next.wrapping_add(i)) % paths.len());
        let usable = order.filter(|&index| {
            let load = &self.rails[paths[index].rail];
            tried & 1 << index == 0 && works(&paths[index], &self.rails) && load.operations < load.depth
        });
        // The first operation on a path may be slow: better a small one that nobody waits for.
        usable.min_by_key(|&index| (paths[index].used, self.rails[paths[index].rail].bytes))
    }

    pub(super) fn posted(
        &mut self,
        context: u32,
        (peer, path): (PeerId, usize),
        bytes: u64,
        write: bool,
        now: Duration,
    ) {
        let Some(path_taken) = self.peers.get_mut(&peer).map(|found| &mut found.paths[path]) else { return };
        path_taken.used = true;
        let rail = path_taken.rail;
        let context = context as usize;
        if self.flying.len() <= context {
            self.flying.resize(context + 1, None);
        }
        self.flying[context] = Some(Flying { peer, path, rail, bytes, write, posted: now });
        self.rails[rail].bytes += bytes;
        self.rails[rail].operations += 1;
    }

    pub(super) fn done(&mut self, context: u32) {
        let Some(flying) = self.land(context) else { return };
        self.counters[flying.rail].bytes.add(flying.bytes);
        if let Some(peer) = self.peers.get_mut(&flying.peer) {
            let heard = &mut peer.paths[flying.path].heard;
            *heard = flying.posted.max(*heard);
        }
    }

    /// A completion with an error came.
    pub(super) fn failed(&mut self, context: u32) -> Verdict {
        match self.land(context) {
            Some(flying) if self.give_up(flying.peer, flying.path) && flying.write => Verdict::Again,
            _ => Verdict::Failed,
        }
    }

    fn land(&mut self, context: u32) -> Option<Flying> {
        let flying = self.flying.get_mut(context as usize)?.take()?;
        let load = &mut self.rails[flying.rail];
        load.bytes -= flying.bytes;
        load.operations -= 1;
        Some(flying)
    }

    /// Uses a path no more, if another is left to that peer; `false` if none is.
    pub(super) fn give_up(&mut self, peer: PeerId, path: usize) -> bool {
        let Some(found) = self.peers.get_mut(&peer) else { return false };
        let mut others = found.paths.iter().enumerate().filter(|&(index, _)| index != path);
        let another = others.any(|(_, other)| works(other, &self.rails));
        if another && !std::mem::replace(&mut found.paths[path].lost, true) {
            self.lost += 1;
            let rail = found.paths[path].rail;
            tracing::warn!(peer = peer.0, path, rail, "a path failed; the others carry its traffic");
        }
        another
    }

    /// Tries what had failed before once more: there is nothing else.
    fn revive(&mut self, peer: PeerId) {
        let Some(found) = self.peers.get_mut(&peer) else { return };
        for path in found.paths.iter_mut().filter(|path| !self.rails[path.rail].closed) {
            self.lost -= u64::from(std::mem::replace(&mut path.lost, false));
        }
    }

    /// There is no path to a peer that could ever be picked.
    pub(super) fn is_cut_off(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_none_or(|peer| !peer.paths.iter().any(|path| works(path, &self.rails)))
    }

    /// A rail that is silent while others are not.
    pub(super) fn silent(&self, now: Duration) -> Option<usize> {
        let open = self.open();
        let overdue = |flying: &&Flying| now.saturating_sub(flying.posted) > SILENCE;
        let passed_over = |flying: &Flying| {
            let Some(peer) = self.peers.get(&flying.peer) else { return false };
            peer.paths.iter().any(|other| other.rail != flying.rail && other.heard > flying.posted)
        };
        let mut late = self.flying.iter().flatten().filter(overdue);
        late.find(|flying| open > 1 && passed_over(flying)).map(|flying| flying.rail)
    }

    /// Rails that are still used.
    pub(super) fn open(&self) -> usize {
        self.rails.iter().filter(|load| !load.closed).count()
    }

    /// A rail is gone; what was under way on it, and what is to be done about each.
    pub(super) fn close(&mut self, rail: usize) -> Vec<(u32, Verdict)> {
        self.rails[rail].closed = true;
        self.counters[rail].open.set(0);
        let touched: Vec<(PeerId, usize)> = self
            .peers
            .iter()
            .flat_map(|(&id, peer)| peer.paths.iter().enumerate().map(move |(index, path)| (id, index, path)))
            .filter(|(_, _, path)| path.rail == rail)
            .map(|(id, index, _)| (id, index))
            .collect();
        for (peer, path) in touched {
            if !self.give_up(peer, path) {
                self.revive(peer);
            }
        }
        let there = |(_, flying): &(usize, &Option<Flying>)| flying.is_some_and(|flying| flying.rail == rail);
        let contexts: Vec<u32> =
            self.flying.iter().enumerate().filter(there).map(|(context, _)| context as u32).collect();
        contexts.into_iter().map(|context| (context, self.failed(context))).collect()
    }
}

/// Operations may go over it.
fn works(path: &Path, rails: &[Load]) -> bool {
    !path.lost && !rails[path.rail].closed
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(1);

    fn paths(rails: usize) -> Paths {
        let mut paths = Paths::new((0..rails).map(|rail| (rail.to_string(), 4)));
        let connection = |_| (0..rails).map(|rail| Path::new(rail, Vec::new(), 0, 0, 0)).collect();
        for peer in [PEER, PeerId(2)] {
            paths.insert(peer, Peer { paths: connection(peer), region_bytes: Some(1 << 20) });
        }
        paths
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn operations_go_where_the_fewest_bytes_are_under_way() {
        let mut paths = paths(3);
        for (context, bytes) in [(0, 100), (1, 60), (2, 10)] {
            let path = paths.pick(PEER, 0).unwrap();
            paths.posted(context, (PEER, path), bytes, true, at(0));
        }
        let mut loads: Vec<u64> = paths.rails.iter().map(|load| load.bytes).collect();
        let least = loads.iter().position(|&bytes| bytes == 10);
        assert_eq!(paths.pick(PEER, 0), least, "of another peer too");
        loads.sort_unstable();
        assert_eq!(loads, [10, 60, 100], "each took another rail");
        paths.done(0);
        let free = paths.pick(PeerId(2), 0).unwrap();
        assert_eq!(paths.rails[free].bytes, 0);
    }

    #[test]
    fn each_path_is_used_once_before_any_is_used_again() {
        let mut paths = paths(3);
        paths.posted(7, (PeerId(2), 0), 1 << 20, true, at(0));
        let mut taken: Vec<usize> = (0..3)
            .map(|context| {
                let path = paths.pick(PEER, 0).unwrap();
                paths.posted(context, (PEER, path), 64, false, at(0));
                path
            })
            .collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2], "the busy one too");
        assert_ne!(paths.pick(PEER, 0), Some(0), "from then on the load decides");
    }

    #[test]
    fn a_full_rail_is_passed_over_and_so_is_one_that_was_tried() {
        let mut paths = paths(2);
        (0..4).for_each(|context| paths.posted(context, (PEER, 0), 1, true, at(0)));
        (4..7).for_each(|context| paths.posted(context, (PEER, 1), 1000, true, at(0)));
        assert_eq!(paths.pick(PEER, 0), Some(1), "rail 0 has no credit left");
        assert_eq!(paths.pick(PEER, 0b10), None);
    }

    #[test]
    fn a_failed_path_is_left_until_it_is_the_last() {
        let mut paths = paths(2);
        paths.posted(0, (PEER, 0), 1, true, at(0));
        paths.posted(1, (PEER, 0), 1, true, at(0));
        assert_eq!([paths.failed(0), paths.failed(1)], [Verdict::Again; 2]);
        assert_eq!((paths.pick(PEER, 0), paths.lost()), (Some(1), 1));
        paths.posted(2, (PEER, 1), 1, true, at(0));
        assert_eq!(paths.failed(2), Verdict::Failed, "there is no other");
        assert_eq!(paths.pick(PEER, 0), Some(1), "the last one is tried again by whoever comes");
        assert!((0..8).any(|_| paths.pick(PeerId(2), 0) == Some(0)), "other peers still use it");
        paths.remove(PEER);
        assert_eq!(paths.lost(), 0);
    }

    #[test]
    fn a_read_that_failed_is_not_done_again() {
        let mut paths = paths(2);
        paths.posted(0, (PEER, 0), 1, false, at(0));
        assert_eq!(paths.failed(0), Verdict::Failed, "its bytes may still land in the reader's memory");
    }

    #[test]
    fn a_rail_is_silent_when_later_writes_came_back_over_another() {
        let mut paths = paths(2);
        paths.posted(0, (PEER, 0), 1, true, at(1));
        paths.posted(1, (PEER, 1), 1, true, at(2));
        assert_eq!(paths.silent(at(60)), None, "nothing came back: it may be the peer");
        paths.done(1);
        assert_eq!(paths.silent(at(6)), None, "not for long enough");
        assert_eq!(paths.silent(at(7)), Some(0));
        assert_eq!(paths.close(0), [(0, Verdict::Again)]);
        assert_eq!((paths.open(), paths.lost()), (1, 2), "lost to both peers");
        assert_eq!(paths.silent(at(99)), None);
        paths.posted(0, (PEER, 1), 1, true, at(100));
        assert_eq!(paths.silent(at(200)), None, "the last one stays");
    }

    #[test]
    fn what_was_under_way_to_a_peer_that_is_gone_loads_no_rail() {
        let mut paths = paths(1);
        (0..4).for_each(|context| paths.posted(context, (PEER, 0), 100, true, at(0)));
        assert_eq!(paths.pick(PeerId(2), 0), None, "no credit is left");
        paths.remove(PEER);
        assert_eq!(paths.pick(PeerId(2), 0), Some(0));
        paths.posted(4, (PeerId(2), 0), 7, true, at(1));
        paths.done(0);
        assert_eq!(
            (paths.rails[0].bytes, paths.rails[0].operations),
            (7, 1),
            "a late end of it counts for nothing"
        );
    }

    #[test]
    fn a_lost_path_is_tried_again_when_the_others_rails_are_closed() {
        let mut paths = paths(2);
        paths.posted(0, (PEER, 0), 1, true, at(0));
        assert_eq!(paths.failed(0), Verdict::Again);
        paths.posted(1, (PEER, 1), 1, true, at(0));
        assert_eq!(paths.close(1), [(1, Verdict::Again)], "over what is left");
        assert_eq!((paths.pick(PEER, 0), paths.is_cut_off(PEER)), (Some(0), false));
        assert_eq!(paths.pick(PeerId(2), 0), Some(0));
        // One that has only this rail, as the other was closed when it came.
        let only = vec![Path::new(1, Vec::new(), 0, 0, 0)];
        paths.insert(PeerId(3), Peer { paths: only, region_bytes: Some(1) });
        assert!(paths.is_cut_off(PeerId(3)) && paths.pick(PeerId(3), 0).is_none());
    }

    #[test]
    fn an_earlier_write_that_came_back_says_nothing() {
        let mut paths = paths(2);
        paths.posted(0, (PEER, 1), 1, true, at(1));
        paths.posted(1, (PEER, 0), 1, true, at(2));
        paths.done(0);
        assert_eq!(paths.silent(at(60)), None);
    }
}
