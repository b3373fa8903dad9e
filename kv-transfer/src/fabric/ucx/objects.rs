//! UCX's objects as owned types. Each holds its parents, so none can be destroyed too early.
//!
//! `Rc`: all of a node's objects are in one [`Ucx`](super::Ucx) and move between threads only with it.

use std::ffi::c_void;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::rc::Rc;

use super::library::{Library, OLDEST, fault};
use super::mailbox::{Mailbox, on_message};
use super::settings::Settings;
use super::sys;
use crate::memory::PoolMemory;
use crate::{FabricError, StartError};

/// The only kind of active message that there is.
pub(super) const MESSAGE_ID: u32 = 0;

/// UCX in one configuration.
pub(super) struct Context {
    pub(super) library: Library,
    raw: sys::ucp_context_h,
}

/// Everything that communicates: interfaces, endpoints, what they have under way.
pub(super) struct Worker {
    raw: sys::ucp_worker_h,
    wait_fd: RawFd,
    /// After `raw`: the callbacks know it.
    mailbox: Rc<Mailbox>,
    pub(super) context: Rc<Context>,
}

/// The pool, mapped once.
pub(super) struct Region {
    raw: sys::ucp_mem_h,
    context: Rc<Context>,
    _pool: PoolMemory,
}

impl Context {
    pub(super) fn open(
        library: Library,
        transports: Option<&str>,
        ip: IpAddr,
    ) -> Result<Rc<Self>, StartError> {
        let unusable = |reason: String| StartError::NoTransport {
            version: library.version(),
            transports: transports.unwrap_or("all").to_owned(),
            reason,
        };
        let settings = Settings::new(library, transports, ip).map_err(unusable)?;
        // SAFETY: the structure is numbers and pointers, for which zero is a value.
        let mut params: sys::ucp_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = sys::UCP_PARAM_FIELD_FEATURES.into();
        params.features = (sys::UCP_FEATURE_RMA | sys::UCP_FEATURE_AM | sys::UCP_FEATURE_WAKEUP).into();
        let mut raw = ptr::null_mut();
        // SAFETY: parameters and configuration are valid; `raw` is a place for the answer.
        let status =
            unsafe { (library.api.ucp_init_version)(OLDEST.0, OLDEST.1, &params, settings.raw, &mut raw) };
        if status == sys::UCS_OK {
            Ok(Rc::new(Self { library, raw }))
        } else {
            Err(unusable(library.text(status)))
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: its workers and regions, which hold it, are gone.
        unsafe { (self.library.api.ucp_cleanup)(self.raw) };
    }
}

impl Worker {
    /// A worker that takes messages from now on.
    pub(super) fn open(context: &Rc<Context>, completions: usize) -> Result<Rc<Self>, FabricError> {
        let library = context.library;
        // SAFETY: the structure is numbers and pointers, for which zero is a value.
        let mut params: sys::ucp_worker_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = sys::UCP_WORKER_PARAM_FIELD_THREAD_MODE.into();
        // Opened on one thread, used on another: one at a time, but not one alone.
        params.thread_mode = sys::UCS_THREAD_MODE_SERIALIZED;
        let mut raw = ptr::null_mut();
        // SAFETY: the context is open, the parameters are valid.
        let status = unsafe { (library.api.ucp_worker_create)(context.raw, &params, &mut raw) };
        library.check("ucp_worker_create", status)?;
        let mailbox = Mailbox::new(library, completions);
        let mut worker = Self { raw, wait_fd: -1, mailbox, context: context.clone() };
        // SAFETY: the worker is open and its context has UCP_FEATURE_WAKEUP.
        let status = unsafe { (library.api.ucp_worker_get_efd)(raw, &mut worker.wait_fd) };
        library.check("ucp_worker_get_efd", status)?;
        worker.take_messages()?;
        Ok(Rc::new(worker))
    }

    fn take_messages(&self) -> Result<(), FabricError> {
        // SAFETY: the structure is numbers and pointers, for which zero is a value.
        let mut params: sys::ucp_am_handler_param_t = unsafe { std::mem::zeroed() };
        params.field_mask = (sys::UCP_AM_HANDLER_PARAM_FIELD_ID
            | sys::UCP_AM_HANDLER_PARAM_FIELD_FLAGS
            | sys::UCP_AM_HANDLER_PARAM_FIELD_CB
            | sys::UCP_AM_HANDLER_PARAM_FIELD_ARG)
            .into();
        params.id = MESSAGE_ID;
        params.flags = sys::UCP_AM_FLAG_WHOLE_MSG;
        params.cb = Some(on_message);
        params.arg = Rc::as_ptr(&self.mailbox).cast_mut().cast();
        // SAFETY: the worker is open; the mailbox is dropped after it.
        let status = unsafe { (self.library().api.ucp_worker_set_am_recv_handler)(self.raw, &params) };
        self.library().check("ucp_worker_set_am_recv_handler", status)
    }

    pub(super) fn library(&self) -> Library {
        self.context.library
    }

    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub(super) fn raw(&self) -> sys::ucp_worker_h {
        self.raw
    }

    /// The address that peers connect to.
    pub(super) fn address(&self) -> Result<Vec<u8>, FabricError> {
        let api = self.library().api;
        let (mut start, mut len) = (ptr::null_mut(), 0);
        // SAFETY: the worker is open; both are places for the answer.
        let status = unsafe { (api.ucp_worker_get_address)(self.raw, &mut start, &mut len) };
        self.library().check("ucp_worker_get_address", status)?;
        // SAFETY: UCX gave `len` bytes there, which are ours until released.
        let address = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }.to_vec();
        // SAFETY: it came from ucp_worker_get_address and is released once.
        unsafe { (api.ucp_worker_release_address)(self.raw, start) };
        Ok(address)
    }

    /// Moves everything on a little; runs callbacks. Whether there was anything to do.
    pub(super) fn progress(&self) -> bool {
        // SAFETY: the worker is open, and this thread alone uses it.
        unsafe { (self.library().api.ucp_worker_progress)(self.raw) != 0 }
    }

    /// Makes the descriptor tell of the next event. `false`: there is one already.
    pub(super) fn arm(&self) -> Result<bool, FabricError> {
        // SAFETY: the worker is open, and its context has UCP_FEATURE_WAKEUP.
        match unsafe { (self.library().api.ucp_worker_arm)(self.raw) } {
            sys::UCS_ERR_BUSY => Ok(false),
            status => self.library().check("ucp_worker_arm", status).map(|()| true),
        }
    }

    pub(super) fn wait_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the worker keeps the descriptor open as long as it is open itself.
        unsafe { BorrowedFd::borrow_raw(self.wait_fd) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: its endpoints and keys, which hold it, are gone; what was under way is cancelled, and its callbacks find
        // the mailbox still there.
        unsafe { (self.context.library.api.ucp_worker_destroy)(self.raw) };
    }
}

impl Region {
    /// Maps the pool, for our writes and reads, and the peers'.
    pub(super) fn map(context: &Rc<Context>, pool: &PoolMemory) -> Result<Self, FabricError> {
        // SAFETY: the structure is numbers and pointers, for which zero is a value.
        let mut params: sys::ucp_mem_map_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = (sys::UCP_MEM_MAP_PARAM_FIELD_ADDRESS
            | sys::UCP_MEM_MAP_PARAM_FIELD_LENGTH
            | sys::UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE)
            .into();
        params.address = pool.ptr().as_ptr().cast();
        params.length = pool.region().len();
        params.memory_type = sys::UCS_MEMORY_TYPE_HOST;
        let mut raw = ptr::null_mut();
        // SAFETY: the range is mapped, and stays so as the region holds the pool.
        let status = unsafe { (context.library.api.ucp_mem_map)(context.raw, &params, &mut raw) };
        context.library.check("ucp_mem_map", status)?;
        Ok(Self { raw, context: context.clone(), _pool: pool.clone() })
    }

    /// What peers need to reach it.
    pub(super) fn key(&self) -> Result<Vec<u8>, FabricError> {
        let Context { library, raw } = *self.context;
        let (mut start, mut len): (*mut c_void, usize) = (ptr::null_mut(), 0);
        // SAFETY: context and region are open; both are places for the answer.
        let status = unsafe { (library.api.ucp_rkey_pack)(raw, self.raw, &mut start, &mut len) };
        library.check("ucp_rkey_pack", status)?;
        if start.is_null() {
            return Err(fault("ucp_rkey_pack", &"UCX gave no key"));
        }
        // SAFETY: UCX gave `len` bytes there, which are ours until released.
        let key = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }.to_vec();
        // SAFETY: it came from ucp_rkey_pack and is released once.
        unsafe { (library.api.ucp_rkey_buffer_release)(start) };
        Ok(key)
    }

    pub(super) fn raw(&self) -> sys::ucp_mem_h {
        self.raw
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let library = self.context.library;
        // SAFETY: nothing of the worker uses it any more (the fabric drops that first), and it is unmapped once.
        let status = unsafe { (library.api.ucp_mem_unmap)(self.context.raw, self.raw) };
        if status != sys::UCS_OK {
            tracing::debug!(reason = library.text(status), "a memory region was not unmapped");
        }
    }
}
