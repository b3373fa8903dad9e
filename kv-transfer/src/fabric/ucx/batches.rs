//! Writes that share one flush and one message.
//!
//! A batch is filled while earlier ones of its peer are flushed. It is *settled* when its flush and each of its writes
//! are over, then announced, then concluded. When its endpoint is closed it is *cut*: its flush is not waited for, because
//! UCX never ends it when the peer died with a full shared-memory queue. Only bookkeeping: nothing here calls UCX.

use super::announcement;
use crate::ids::PeerId;

/// Index of a batch; reused once it is concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchId(pub(super) u32);

/// Writes to one peer.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) peer: PeerId,
    /// The contexts of its writes.
    pub(super) contexts: Vec<u32>,
    /// What the target is told once all of them are in its memory.
    pub(super) message: Vec<u8>,
    /// Writes that UCX has not completed.
    under_way: usize,
    /// UCX has its flush.
    flushing: bool,
    /// Its flush is over, or not waited for.
    flushed: bool,
    concluded: bool,
    /// The first thing that went wrong; none of its writes is announced then.
    pub(super) error: Option<String>,
}

/// All batches, with their memory kept for the next.
#[derive(Debug, Default)]
pub(super) struct Batches {
    all: Vec<Batch>,
    free: Vec<BatchId>,
}

impl Batches {
    pub(super) fn begin(&mut self, peer: PeerId, token: u64) -> BatchId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.all.push(Batch::new(peer));
            BatchId((self.all.len() - 1) as u32)
        });
        let batch = self.get(id);
        let (contexts, message) = (std::mem::take(&mut batch.contexts), std::mem::take(&mut batch.message));
        *batch = Batch { contexts, message, ..Batch::new(peer) };
        batch.contexts.clear();
        announcement::begin(&mut batch.message, token);
        id
    }

    pub(super) fn get(&mut self, id: BatchId) -> &mut Batch {
        &mut self.all[id.0 as usize]
    }

    /// The batches of a peer that wait for a flush, under way or not.
    pub(super) fn unflushed(&self, peer: PeerId) -> Vec<BatchId> {
        let theirs = |batch: &Batch| batch.peer == peer && !batch.flushed && !batch.concluded;
        (0u32..).zip(&self.all).filter(|(_, batch)| theirs(batch)).map(|(index, _)| BatchId(index)).collect()
    }

    /// Everything was said about its writes. It is reused once UCX does not have its flush.
    pub(super) fn conclude(&mut self, id: BatchId) {
        let batch = self.get(id);
        debug_assert!(batch.is_settled() && !batch.concluded, "a batch is concluded once");
        batch.concluded = true;
        if !batch.flushing {
            self.free.push(id);
        }
    }

    /// A flush is over. Whether anybody waited for it.
    pub(super) fn flushed(&mut self, id: BatchId, error: Option<String>) -> bool {
        let batch = self.get(id);
        let waited_for = !batch.flushed;
        (batch.flushing, batch.flushed) = (false, true);
        if waited_for {
            batch.fail(error);
        } else if batch.concluded {
            self.free.push(id);
        }
        waited_for
    }
}

impl Batch {
    fn new(peer: PeerId) -> Self {
        let (contexts, message, error) = (Vec::new(), Vec::new(), None);
        let (flushing, flushed, concluded) = (false, false, false);
        Self { peer, contexts, message, under_way: 0, flushing, flushed, concluded, error }
    }

    pub(super) fn is_full(&self) -> bool {
        self.contexts.len() >= announcement::MAX_IMMEDIATES
    }

    /// One more write, which [`written`](Self::written) ends.
    pub(super) fn add(&mut self, context: u32, immediate: u32) {
        debug_assert!(
            !self.is_full() && !self.flushing && !self.flushed,
            "no write joins a full or flushed batch"
        );
        self.contexts.push(context);
        announcement::add(&mut self.message, immediate);
        self.under_way += 1;
    }

    /// One of its writes is over.
    pub(super) fn written(&mut self, error: Option<String>) {
        self.under_way -= 1;
        self.fail(error);
    }

    /// Its flush begins.
    pub(super) fn flushing(&mut self) {
        self.flushing = true;
    }

    /// Its flush, if there is one, is not waited for.
    pub(super) fn cut(&mut self, error: &str) {
        self.flushed = true;
        self.fail(Some(error.to_owned()));
    }

    pub(super) fn fail(&mut self, error: Option<String>) {
        if self.error.is_none() {
            self.error = error;
        }
    }

    /// Neither its flush nor any of its writes is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.flushed && self.under_way == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(1);

    /// A batch whose flush is under way, of two writes.
    fn flushing(batches: &mut Batches) -> BatchId {
        let id = batches.begin(PEER, 9);
        let batch = batches.get(id);
        batch.add(5, 50);
        batch.add(6, 60);
        batch.flushing();
        id
    }

    #[test]
    fn a_batch_settles_when_flush_and_writes_are_over_in_any_order() {
        for flush_first in [false, true] {
            let mut batches = Batches::default();
            let id = flushing(&mut batches);
            batches.get(id).written(None);
            if flush_first {
                assert!(batches.flushed(id, None));
                assert!(!batches.get(id).is_settled());
                batches.get(id).written(None);
            } else {
                batches.get(id).written(None);
                assert!(!batches.get(id).is_settled());
                assert!(batches.flushed(id, None));
            }
            let batch = batches.get(id);
            assert!(batch.is_settled() && batch.error.is_none());
            let (token, immediates) = announcement::parse(&batch.message).unwrap();
            assert_eq!((token, immediates.unwrap().collect::<Vec<_>>()), (9, vec![50, 60]));
        }
    }

    #[test]
    fn the_first_error_is_kept_and_the_next_batch_does_not_inherit_it() {
        let mut batches = Batches::default();
        let id = flushing(&mut batches);
        batches.get(id).written(Some("first".to_owned()));
        batches.get(id).written(None);
        batches.flushed(id, Some("second".to_owned()));
        assert_eq!(batches.get(id).error.as_deref(), Some("first"));
        batches.conclude(id);
        assert_eq!(batches.begin(PeerId(2), 4), id);
        let batch = batches.get(id);
        assert!(batch.error.is_none() && batch.contexts.is_empty() && !batch.is_settled());
        assert_eq!((batch.peer, batch.message.len()), (PeerId(2), 8));
    }

    #[test]
    fn a_cut_batch_waits_for_its_writes_and_is_reused_only_after_its_flush() {
        let mut batches = Batches::default();
        let id = flushing(&mut batches);
        assert_eq!((batches.unflushed(PEER), batches.unflushed(PeerId(2))), (vec![id], vec![]));
        batches.get(id).cut("closed");
        assert!(batches.unflushed(PEER).is_empty());
        assert!(!batches.get(id).is_settled(), "UCX may still read the source");
        batches.get(id).written(None);
        batches.get(id).written(None);
        assert!(batches.get(id).is_settled());
        batches.conclude(id);
        assert_ne!(batches.begin(PEER, 1), id, "UCX has its flush");
        assert!(!batches.flushed(id, Some("cancelled".to_owned())), "nobody waited");
        assert_eq!(batches.begin(PEER, 1), id);
    }
}
