//! What UCX calls back, and what it is handed to find its way: written down there, looked at by the fabric between calls.
//!
//! A callback may run inside any call into UCX, so it only appends to lists here, and the fabric holds none of them
//! across a call.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::rc::Rc;

use super::announcement;
use super::batches::BatchId;
use super::library::Library;
use super::sys;
use crate::fabric::Event;
use crate::ids::PeerId;

/// What UCX was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// The write or read with this context.
    Operation(u32),
    /// The flush of a batch.
    Flush(BatchId),
    /// The message about a batch.
    Announcement(BatchId),
}

/// The lists, and whom they concern.
pub(super) struct Mailbox {
    library: Library,
    finished: RefCell<Vec<(Task, sys::ucs_status_t)>>,
    broken: RefCell<Vec<(PeerId, sys::ucs_status_t)>>,
    arrived: RefCell<Vec<Event>>,
    /// Who may announce writes, by token.
    initiators: RefCell<HashMap<u64, PeerId>>,
    tags: RefCell<Tags>,
}

/// What UCX hands back with a completion.
struct Tag {
    mailbox: NonNull<Mailbox>,
    task: Task,
}

/// What UCX hands back with an endpoint's error.
pub(super) struct Nameplate {
    mailbox: NonNull<Mailbox>,
    peer: PeerId,
}

/// One tag for each task, made on first use, at an address that stays.
#[derive(Default)]
struct Tags {
    operations: Vec<NonNull<Tag>>,
    flushes: Vec<NonNull<Tag>>,
    announcements: Vec<NonNull<Tag>>,
}

impl Mailbox {
    /// At an address that stays; `capacity` completions find room without allocating.
    pub(super) fn new(library: Library, capacity: usize) -> Rc<Self> {
        Rc::new(Self {
            library,
            finished: RefCell::new(Vec::with_capacity(capacity)),
            broken: RefCell::default(),
            arrived: RefCell::new(Vec::with_capacity(capacity)),
            initiators: RefCell::default(),
            tags: RefCell::default(),
        })
    }

    /// What to give UCX with a task.
    pub(super) fn tag(&self, task: Task) -> *mut c_void {
        let mut tags = self.tags.borrow_mut();
        let (list, index, make): (_, _, fn(u32) -> Task) = match task {
            Task::Operation(context) => (&mut tags.operations, context, Task::Operation),
            Task::Flush(BatchId(index)) => (&mut tags.flushes, index, |i| Task::Flush(BatchId(i))),
            Task::Announcement(BatchId(index)) => {
                (&mut tags.announcements, index, |i| Task::Announcement(BatchId(i)))
            }
        };
        while list.len() <= index as usize {
            let tag = Tag { mailbox: NonNull::from(self), task: make(list.len() as u32) };
            list.push(NonNull::from(Box::leak(Box::new(tag))));
        }
        list[index as usize].as_ptr().cast()
    }

    /// What to give UCX with an endpoint; must live as long as it.
    pub(super) fn nameplate(&self, peer: PeerId) -> Rc<Nameplate> {
        Rc::new(Nameplate { mailbox: NonNull::from(self), peer })
    }

    pub(super) fn admit(&self, token: u64, peer: PeerId) {
        self.initiators.borrow_mut().insert(token, peer);
    }

    pub(super) fn dismiss(&self, peer: PeerId) {
        self.initiators.borrow_mut().retain(|_, initiator| *initiator != peer);
    }

    /// Moves what finished into `into`, which is empty.
    pub(super) fn take_finished(&self, into: &mut Vec<(Task, sys::ucs_status_t)>) {
        std::mem::swap(&mut *self.finished.borrow_mut(), into);
    }

    pub(super) fn take_broken(&self) -> Option<(PeerId, sys::ucs_status_t)> {
        self.broken.borrow_mut().pop()
    }

    pub(super) fn take_arrived(&self, into: &mut Vec<Event>) {
        into.append(&mut self.arrived.borrow_mut());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.finished.borrow().is_empty()
            && self.broken.borrow().is_empty()
            && self.arrived.borrow().is_empty()
    }

    fn message(&self, message: &[u8]) {
        let Some((token, immediates)) = announcement::parse(message) else {
            return tracing::debug!(bytes = message.len(), "a message of nobody was ignored");
        };
        let mut initiators = self.initiators.borrow_mut();
        let Some(&peer) = initiators.get(&token) else {
            return tracing::debug!("a message of a peer that is not connected any more was ignored");
        };
        let mut arrived = self.arrived.borrow_mut();
        match immediates {
            Ok(immediates) => {
                arrived.extend(immediates.map(|immediate| Event::Landed { from: Some(peer), immediate }))
            }
            Err(reason) => {
                initiators.remove(&token);
                arrived.push(Event::Fault { peer, reason });
            }
        }
    }
}

impl Drop for Mailbox {
    /// The worker, the only one to know the tags, is gone.
    fn drop(&mut self) {
        let tags = self.tags.get_mut();
        let all = [&mut tags.operations, &mut tags.flushes, &mut tags.announcements];
        for tag in all.into_iter().flat_map(|list| list.drain(..)) {
            // SAFETY: leaked from a box in `tag`, and freed once.
            drop(unsafe { Box::from_raw(tag.as_ptr()) });
        }
    }
}

/// A put, get, flush or message is over.
pub(super) unsafe extern "C" fn on_finished(
    request: *mut c_void,
    status: sys::ucs_status_t,
    user_data: *mut c_void,
) {
    // SAFETY: it is given only with a tag, and tags live as long as the mailbox.
    let tag = unsafe { &*user_data.cast::<Tag>() };
    // SAFETY: the mailbox outlives the worker, which calls this.
    let mailbox = unsafe { tag.mailbox.as_ref() };
    mailbox.finished.borrow_mut().push((tag.task, status));
    // SAFETY: the request is complete, is ours to free, and is not used after.
    unsafe { (mailbox.library.api.ucp_request_free)(request) };
}

/// An endpoint does not work any more.
pub(super) unsafe extern "C" fn on_broken(arg: *mut c_void, _: sys::ucp_ep_h, status: sys::ucs_status_t) {
    // SAFETY: it is given only with a nameplate, which lives until its endpoint is closed, after which nothing calls this.
    let nameplate = unsafe { &*arg.cast::<Nameplate>() };
    // SAFETY: the mailbox outlives the worker, which calls this.
    let mailbox = unsafe { nameplate.mailbox.as_ref() };
    mailbox.broken.borrow_mut().push((nameplate.peer, status));
}

/// A message came, from whom it likes. UCX takes the lengths in it for granted, so a forged one may be as good as negative.
pub(super) unsafe extern "C" fn on_message(
    arg: *mut c_void,
    _header: *const c_void,
    header_length: usize,
    data: *mut c_void,
    length: usize,
    param: *const sys::ucp_am_recv_param_t,
) -> sys::ucs_status_t {
    // SAFETY: it is given with the worker's mailbox, which outlives the worker.
    let mailbox = unsafe { &*arg.cast::<Mailbox>() };
    // SAFETY: UCX passes valid parameters.
    let attributes = unsafe { (*param).recv_attr };
    // With a rendezvous, `data` is UCX's own record of it; ours never are one.
    let rendezvous = attributes & u64::from(sys::UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
    if rendezvous || header_length != 0 || data.is_null() || length > announcement::MAX_BYTES {
        tracing::debug!(length, header_length, rendezvous, "a message of an odd form was ignored");
        return sys::UCS_OK;
    }
    // SAFETY: without a rendezvous, `data` has `length` bytes until this returns.
    mailbox.message(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) });
    sys::UCS_OK
}
