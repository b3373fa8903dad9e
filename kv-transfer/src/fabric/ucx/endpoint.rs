//! The way to one peer: its endpoint, and the key to its pool.

use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;

use super::library::Library;
use super::mailbox::{Nameplate, Task, on_broken, on_finished};
use super::objects::{MESSAGE_ID, Region, Worker};
use super::offer::Offered;
use super::sys;
use crate::FabricError;
use crate::ids::PeerId;

/// An endpoint that notices its peer's death, closed without asking the peer.
pub(super) struct Endpoint {
    raw: sys::ucp_ep_h,
    key: Key,
    open: bool,
    /// UCX knows it until the endpoint is closed.
    _nameplate: Rc<Nameplate>,
    worker: Rc<Worker>,
}

/// Dropped only when nothing that uses it is under way.
struct Key {
    raw: sys::ucp_rkey_h,
    library: Library,
}

/// What came of asking UCX for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// It is done already, and the mailbox will not hear of it.
    Done,
    /// The mailbox will.
    UnderWay,
    NoRoom,
    Failed(sys::ucs_status_t),
}

impl Endpoint {
    pub(super) fn connect(worker: &Rc<Worker>, peer: PeerId, to: &Offered) -> Result<Self, FabricError> {
        let library = worker.library();
        let nameplate = worker.mailbox().nameplate(peer);
        // SAFETY: the structure is numbers and pointers, for which zero is a value.
        let mut params: sys::ucp_ep_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = (sys::UCP_EP_PARAM_FIELD_REMOTE_ADDRESS
            | sys::UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE
            | sys::UCP_EP_PARAM_FIELD_ERR_HANDLER)
            .into();
        params.address = to.address.as_ptr().cast();
        params.err_mode = sys::UCP_ERR_HANDLING_MODE_PEER;
        params.err_handler.cb = Some(on_broken);
        params.err_handler.arg = Rc::as_ptr(&nameplate).cast_mut().cast();
        let mut raw = ptr::null_mut();
        // SAFETY: the worker is open; the address is one, or ends in zeros that end its parsing.
        let status = unsafe { (library.api.ucp_ep_create)(worker.raw(), &params, &mut raw) };
        library.check("ucp_ep_create", status)?;
        let key = Key { raw: ptr::null_mut(), library };
        let mut endpoint = Self { raw, key, open: true, _nameplate: nameplate, worker: worker.clone() };
        // SAFETY: the endpoint is open; the key is one, or ends in zeros that end its parsing.
        let status =
            unsafe { (library.api.ucp_ep_rkey_unpack)(raw, to.key.as_ptr().cast(), &mut endpoint.key.raw) };
        library.check("ucp_ep_rkey_unpack", status)?;
        Ok(endpoint)
    }

    /// Starts writing `len` bytes of the region at `ours` to `theirs`.
    pub(super) fn put(
        &self,
        region: &Region,
        ours: *const u8,
        len: usize,
        theirs: u64,
        task: Task,
    ) -> Started {
        let param = self.param(task, Some(region));
        // SAFETY: the endpoint is open, the key is of its peer; the caller made sure that the range is in the region and
        // leaves it alone until the task is over.
        let answer = unsafe {
            (self.library().api.ucp_put_nbx)(self.raw, ours.cast(), len, theirs, self.key.raw, &param)
        };
        started(answer)
    }

    /// Starts reading `len` bytes at `theirs` to `ours` in the region.
    pub(super) fn get(&self, region: &Region, ours: *mut u8, len: usize, theirs: u64, task: Task) -> Started {
        let param = self.param(task, Some(region));
        // SAFETY: as for a put; the range is written until the task is over.
        let answer = unsafe {
            (self.library().api.ucp_get_nbx)(self.raw, ours.cast(), len, theirs, self.key.raw, &param)
        };
        started(answer)
    }

    /// Over when everything that was put before is in the peer's memory.
    pub(super) fn flush(&self, task: Task) -> Started {
        let param = self.param(task, None);
        // SAFETY: the endpoint is open.
        started(unsafe { (self.library().api.ucp_ep_flush_nbx)(self.raw, &param) })
    }

    /// Sends a message, which stays untouched until the task is over.
    pub(super) fn send(&self, message: &[u8], task: Task) -> Started {
        let mut param = self.param(task, None);
        param.op_attr_mask |= sys::UCP_OP_ATTR_FIELD_FLAGS;
        param.flags = sys::UCP_AM_SEND_FLAG_EAGER;
        let (start, len) = (message.as_ptr().cast::<c_void>(), message.len());
        // SAFETY: the endpoint is open, there is no header, and the batch that holds the message waits for the task.
        started(unsafe {
            (self.library().api.ucp_am_send_nbx)(self.raw, MESSAGE_ID, ptr::null(), 0, start, len, &param)
        })
    }

    fn param(&self, task: Task, region: Option<&Region>) -> sys::ucp_request_param_t {
        // SAFETY: the structure is numbers and pointers, for which zero is a value.
        let mut param: sys::ucp_request_param_t = unsafe { std::mem::zeroed() };
        param.op_attr_mask = sys::UCP_OP_ATTR_FIELD_CALLBACK
            | sys::UCP_OP_ATTR_FIELD_USER_DATA
            | sys::UCP_OP_ATTR_FIELD_MEMORY_TYPE;
        param.cb.send = Some(on_finished);
        param.user_data = self.worker.mailbox().tag(task);
        param.memory_type = sys::UCS_MEMORY_TYPE_HOST;
        if let Some(region) = region {
            param.op_attr_mask |= sys::UCP_OP_ATTR_FIELD_MEMH;
            param.memh = region.raw();
        }
        param
    }

    fn library(&self) -> Library {
        self.key.library
    }

    /// Closes it at once: what is under way ends as cancelled, in this call or in the next rounds of progress.
    pub(super) fn close(&mut self) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        // SAFETY: the structure is numbers and pointers, for which zero is a value.
        let mut param: sys::ucp_request_param_t = unsafe { std::mem::zeroed() };
        param.op_attr_mask = sys::UCP_OP_ATTR_FIELD_FLAGS;
        param.flags = sys::UCP_EP_CLOSE_FLAG_FORCE;
        let api = self.library().api;
        // SAFETY: the endpoint is open, handles errors, and is not used again.
        let answer = unsafe { (api.ucp_ep_close_nbx)(self.raw, &param) };
        match started(answer) {
            // SAFETY: the request is ours to give up; UCX ends it by itself.
            Started::UnderWay => unsafe { (api.ucp_request_free)(answer) },
            Started::Failed(status) => {
                tracing::debug!(
                    reason = self.library().text(status),
                    "an endpoint did not close in good order"
                );
            }
            Started::Done | Started::NoRoom => {}
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Closes it and keeps its key: something that uses the key would not end.
    pub(super) fn forget(mut self) {
        self.close();
        self.key.raw = ptr::null_mut();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: nothing that uses it is under way, its worker is open, and it is destroyed once.
            unsafe { (self.library.api.ucp_rkey_destroy)(self.raw) };
        }
    }
}

/// UCX answers with null, a request, or a status that is no address.
fn started(answer: *mut c_void) -> Started {
    let lowest_status = isize::from(sys::UCS_ERR_LAST);
    match answer as isize {
        0 => Started::Done,
        status if status < 0 && status >= lowest_status => match status as sys::ucs_status_t {
            sys::UCS_ERR_NO_RESOURCE => Started::NoRoom,
            status => Started::Failed(status),
        },
        _ => Started::UnderWay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_nothing_a_status_or_a_request() {
        let answer = |value: isize| started(value as *mut c_void);
        assert_eq!(answer(0), Started::Done);
        assert_eq!(answer(-2), Started::NoRoom);
        assert_eq!(answer(-16), Started::Failed(sys::UCS_ERR_CANCELED));
        assert_eq!(answer(-100), Started::Failed(sys::UCS_ERR_LAST));
        assert_eq!(answer(-101), Started::UnderWay);
        assert_eq!(answer(0x7f00_0000_1000), Started::UnderWay);
    }
}
