//! Transfer requests: many descriptors and one notification.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::agent::{Agent, Backend};
use super::object::{Object, check, status_text};
use super::sys;
use crate::FabricError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Write,
    Read,
}

/// One contiguous piece, by addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) ours: usize,
    pub(super) theirs: usize,
    pub(super) len: usize,
}

/// Makes requests; its lists are used again for each.
pub(super) struct Poster {
    ours: Object<sys::nixl_capi_xfer_dlist_s>,
    theirs: Object<sys::nixl_capi_xfer_dlist_s>,
    writing: Object<sys::nixl_capi_opt_args_s>,
    reading: Object<sys::nixl_capi_opt_args_s>,
    agent: Arc<Agent>,
}

/// A request under way. Its release, on drop, cancels what NIXL can cancel of it.
pub(super) struct Request {
    raw: NonNull<sys::nixl_capi_xfer_req_s>,
    agent: Arc<Agent>,
}

// SAFETY: a request belongs to no thread; calls must not overlap, and the data thread alone makes them.
unsafe impl Send for Request {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Done,
    Failed(String),
}

impl Poster {
    pub(super) fn new(backend: &Backend) -> Result<Self, FabricError> {
        let agent = backend.agent().clone();
        let (writing, reading) = (backend.options()?, backend.options()?);
        // SAFETY: the arguments are alive.
        let status = unsafe { agent.library().nixl_capi_opt_args_set_has_notif(writing.as_ptr(), true) };
        check("ask for notifications", status)?;
        Ok(Self { ours: list(&agent)?, theirs: list(&agent)?, writing, reading, agent })
    }

    /// Posts one request to `peer`; a write's notification goes after its bytes. Some backends are done at once.
    pub(super) fn post(
        &mut self,
        operation: Operation,
        peer: &CStr,
        pieces: &[Piece],
        notification: &[u8],
    ) -> Result<(Request, Status), FabricError> {
        fill(&self.agent, &self.ours, pieces.iter().map(|piece| (piece.ours, piece.len)))?;
        fill(&self.agent, &self.theirs, pieces.iter().map(|piece| (piece.theirs, piece.len)))?;
        let request = self.create(operation, peer, notification)?;
        let api = self.agent.library();
        // SAFETY: agent and request are alive; without arguments those of its creation hold. The ranges on our side stay
        // mapped as the registration holds the pool, and are left alone until the request is over (the caller's in-flight
        // table).
        let status = unsafe {
            api.nixl_capi_post_xfer_req(self.agent.as_ptr(), request.raw.as_ptr(), ptr::null_mut())
        };
        Ok((request, Status::of(status)))
    }

    fn create(&self, operation: Operation, peer: &CStr, notification: &[u8]) -> Result<Request, FabricError> {
        let api = self.agent.library();
        let (code, options) = match operation {
            Operation::Read => (sys::NIXL_CAPI_XFER_OP_READ, &self.reading),
            Operation::Write => {
                let (data, len) = (notification.as_ptr().cast::<c_void>(), notification.len());
                // SAFETY: the arguments are alive, the bytes are copied.
                let status =
                    unsafe { api.nixl_capi_opt_args_set_notif_msg(self.writing.as_ptr(), data, len) };
                check("set the notification", status)?;
                (sys::NIXL_CAPI_XFER_OP_WRITE, &self.writing)
            }
        };
        let (agent, ours, theirs) = (self.agent.as_ptr(), self.ours.as_ptr(), self.theirs.as_ptr());
        let mut raw = ptr::null_mut();
        // SAFETY: all objects are alive; lists, name and arguments are copied. NIXL itself looks up each descriptor in what
        // is registered here, and in what the peer's metadata says is registered there.
        let status = unsafe {
            api.nixl_capi_create_xfer_req(
                agent,
                code,
                ours,
                theirs,
                peer.as_ptr(),
                &mut raw,
                options.as_ptr(),
            )
        };
        check("create a transfer request", status)?;
        let raw = NonNull::new(raw)
            .ok_or_else(|| super::object::fault("create a transfer request", &"it made nothing"))?;
        Ok(Request { raw, agent: self.agent.clone() })
    }
}

fn list(agent: &Agent) -> Result<Object<sys::nixl_capi_xfer_dlist_s>, FabricError> {
    Object::make(
        agent.library(),
        "create a list of descriptors",
        // SAFETY: an object's address is written.
        |api, out| unsafe { api.nixl_capi_create_xfer_dlist(sys::NIXL_CAPI_MEM_DRAM, out) },
        sys::NixlApi::nixl_capi_destroy_xfer_dlist,
    )
}

fn fill(
    agent: &Agent,
    list: &Object<sys::nixl_capi_xfer_dlist_s>,
    ranges: impl Iterator<Item = (usize, usize)>,
) -> Result<(), FabricError> {
    let api = agent.library();
    // SAFETY: the list is alive.
    check("clear a list", unsafe { api.nixl_capi_xfer_dlist_clear(list.as_ptr()) })?;
    for (start, len) in ranges {
        // SAFETY: the list is alive; the numbers are only looked at when a request is made.
        let status = unsafe { api.nixl_capi_xfer_dlist_add_desc(list.as_ptr(), start, len, 0) };
        check("list a piece", status)?;
    }
    Ok(())
}

impl Request {
    /// Looks, and moves it on: the notification is sent from here once the bytes are there.
    pub(super) fn status(&mut self) -> Status {
        let api = self.agent.library();
        // SAFETY: agent and request are alive.
        Status::of(unsafe { api.nixl_capi_get_xfer_status(self.agent.as_ptr(), self.raw.as_ptr()) })
    }
}

impl Status {
    fn of(status: sys::nixl_capi_status_t) -> Self {
        match status {
            sys::NIXL_CAPI_SUCCESS => Self::Done,
            sys::NIXL_CAPI_IN_PROG => Self::InProgress,
            status => Self::Failed(status_text(status)),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let api = self.agent.library();
        // SAFETY: agent and request are alive.
        let status = unsafe { api.nixl_capi_release_xfer_req(self.agent.as_ptr(), self.raw.as_ptr()) };
        if status != sys::NIXL_CAPI_SUCCESS {
            // It may still be under way: what is left of it is leaked rather than freed under the backend's feet.
            return tracing::debug!(status, "a transfer request was not released");
        }
        // SAFETY: released, so that nothing refers to it any more.
        let _ = unsafe { api.nixl_capi_destroy_xfer_req(self.raw.as_ptr()) };
    }
}
