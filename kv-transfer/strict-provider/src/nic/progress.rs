//! What happens while the queue is read: the initiator's half.

use std::io::ErrorKind;

use rand::seq::SliceRandom;

use super::{Caller, Nic};
use crate::link::Link;
use crate::queue::Entry;
use crate::rules::{Kind, Rule};
use crate::wire::{Address, Frame};
use crate::{memory, sys};

/// EFA's statuses, as far as they come up here.
pub(crate) mod status {
    pub(crate) const FLUSHED: u32 = 1;
    pub(crate) const BAD_ADDRESS: u32 = 7;
    pub(crate) const BAD_QPN: u32 = 9;
    pub(crate) const UNRESPONSIVE: u32 = 13;
    pub(crate) const UNKNOWN_PEER: u32 = 14;
    pub(crate) const UNREACHABLE: u32 = 15;
}

/// libfabric's error for a status, as the efa provider translates them.
fn errno(status: u32) -> u32 {
    match status {
        status::FLUSHED => sys::FI_ECANCELED,
        status::UNRESPONSIVE => sys::FI_ECONNABORTED,
        status::UNREACHABLE => sys::FI_EHOSTUNREACH,
        status::BAD_QPN | status::UNKNOWN_PEER => sys::FI_ENOTCONN,
        _ => sys::FI_EINVAL,
    }
}

impl Nic {
    /// One round of everything.
    pub(crate) fn progress(&mut self) {
        self.unheard = None;
        self.admit();
        self.send_ready();
        self.hear_targets();
        self.hear_callers();
        self.deliver();
        self.complete();
    }

    /// The next completion; errors apart from the others. Reading it gives context and credit back.
    pub(crate) fn take(&mut self, error: bool) -> Option<Entry> {
        let entry = self.queue.as_mut()?.take(error)?;
        if entry.context != 0 {
            self.outstanding -= 1;
            if !self.contexts.give_back(entry.context) {
                let text = format!("{:#x} is not as the provider left it", entry.context);
                self.log.violation(Rule::ContextChanged, &text);
            }
        }
        Some(entry)
    }

    fn admit(&mut self) {
        loop {
            let Some(Ok((stream, _))) = self.door.as_ref().map(|door| door.listener.accept()) else { return };
            match Link::new(stream) {
                Ok(link) => {
                    self.watch(&link.stream);
                    self.incoming.insert(self.next_caller, Caller { link, from: None });
                    self.next_caller += 1;
                }
                Err(error) => self.log.note(&format!("a caller was not let in: {error}")),
            }
        }
    }

    fn send_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        ready.shuffle(&mut self.random);
        for id in ready {
            let Some(operation) = self.operations.get(&id) else { continue };
            let target = operation.target;
            match self.link(target) {
                Ok(link) if link.is_full() => self.ready.push(id),
                Ok(_) => self.send(id),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.push(id),
                Err(_) => self.finish(id, status::UNREACHABLE),
            }
        }
        self.outgoing.values_mut().for_each(Link::pump);
    }

    fn link(&mut self, target: Address) -> std::io::Result<&mut Link> {
        if !self.outgoing.contains_key(&target) {
            let ours = self.door.as_ref().ok_or(ErrorKind::NotConnected)?.address;
            let link = Link::call(ours, target)?;
            self.watch(&link.stream);
            self.outgoing.insert(target, link);
        }
        self.outgoing.get_mut(&target).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// Puts an operation on its link. Only here is the source read: whoever changed it since the post sends what he wrote.
    fn send(&mut self, id: u64) {
        let Some(operation) = self.operations.get_mut(&id) else { return };
        let Some(link) = self.outgoing.get_mut(&operation.target) else { return };
        operation.sent = true;
        let post = operation.post;
        let has = |flag: u32| post.flags & u64::from(flag) != 0;
        link.send(&match post.kind {
            Kind::Read => Frame::Read { op: id, key: post.key, address: post.remote, len: post.len },
            Kind::Write => {
                let mut payload = Vec::new();
                memory::read(post.local, post.len, &mut payload);
                Frame::Write {
                    op: id,
                    delivery: has(sys::FI_DELIVERY_COMPLETE),
                    immediate: has(sys::FI_REMOTE_CQ_DATA).then_some(post.data as u32),
                    key: post.key,
                    address: post.remote,
                    payload,
                }
            }
        });
    }

    fn hear_targets(&mut self) {
        let frames: Vec<Frame> = self.outgoing.values_mut().flat_map(Link::frames).collect();
        for frame in frames {
            match frame {
                Frame::Ack { op, status } => self.finish(op, status),
                Frame::Data { op, payload } => {
                    // An operation that was given up is not here any more, and its memory is the application's.
                    if let Some(operation) = self.operations.get(&op)
                        && operation.post.len == payload.len() as u64
                    {
                        memory::write(operation.post.local, &payload);
                        self.finish(op, 0);
                    }
                }
                other => self.log.note(&format!("a target sent {other:?}")),
            }
        }
        let over: Vec<Address> =
            self.outgoing.iter().filter(|(_, link)| link.over).map(|(&target, _)| target).collect();
        over.iter().for_each(|target| self.lose(*target, status::UNRESPONSIVE));
    }

    /// Ends a link; what was sent over it fails.
    pub(crate) fn lose(&mut self, target: Address, status: u32) {
        self.outgoing.remove(&target);
        let theirs = self.operations.iter().filter(|(_, op)| op.target == target && op.sent);
        let ids: Vec<u64> = theirs.map(|(&id, _)| id).collect();
        ids.iter().for_each(|&id| self.finish(id, status));
    }

    /// Removes a peer: what is under way with it is over, in both directions.
    pub(crate) fn forget(&mut self, handle: u64) -> bool {
        let Some(address) = self.peers.handles.remove(&handle) else { return false };
        self.operations.values_mut().filter(|op| op.target == address).for_each(|op| op.sent = true);
        self.lose(address, status::FLUSHED);
        self.drop_caller(address);
        true
    }

    fn finish(&mut self, id: u64, status: u32) {
        let Some(operation) = self.operations.remove(&id) else { return };
        let kind = match operation.post.kind {
            Kind::Write => sys::FI_WRITE,
            Kind::Read => sys::FI_READ,
        };
        let error = (status != 0).then(|| (errno(status), status));
        let flags = u64::from(sys::FI_RMA | kind);
        let held = self.hold(Entry { context: operation.post.context, flags, data: 0, error });
        self.completions.push(held);
    }

    fn complete(&mut self) {
        for held in &mut self.completions {
            held.rounds = held.rounds.saturating_sub(1);
        }
        for held in self.completions.extract_if(.., |held| held.rounds == 0).collect::<Vec<_>>() {
            self.enqueue(held.what);
        }
    }

    pub(super) fn enqueue(&mut self, entry: Entry) {
        let Some(queue) = &mut self.queue else { return };
        if !queue.overran && !queue.add(entry, &mut self.random) {
            let text = format!("{} completions unread, and one more", queue.size);
            self.log.violation(Rule::QueueOverrun, &text);
        }
    }
}
