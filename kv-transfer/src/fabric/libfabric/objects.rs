//! libfabric's objects as owned types. Each holds its parents, so none can be closed too early.

use std::ffi::{c_int, c_void};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::info::Info;
use super::library::Library;
use super::sys;
use crate::FabricError;
use crate::memory::PoolMemory;

/// Completions taken at a time.
pub(super) const CQ_BATCH: usize = 64;

/// An object that starts with a `fid` and is closed through it.
struct Fid<T>(NonNull<T>);

// SAFETY: libfabric's objects belong to no thread; FI_THREAD_DOMAIN asks only that calls do not overlap, and all of a
// node's objects are used by its data thread alone once it runs.
unsafe impl<T> Send for Fid<T> {}
// SAFETY: as for `Send`; `&Fid` gives nothing but the pointer.
unsafe impl<T> Sync for Fid<T> {}

impl<T> Fid<T> {
    fn as_fid(&self) -> *mut sys::fid {
        self.0.as_ptr().cast()
    }
}

impl<T> Fid<T> {
    /// Closes the object; libfabric's code, 0 for closed.
    fn close(self) -> i64 {
        std::mem::ManuallyDrop::new(self).close_once()
    }

    /// To be called once.
    fn close_once(&self) -> i64 {
        // SAFETY: every libfabric object starts with its fid, which lives until closed.
        let ops = unsafe { (*self.as_fid()).ops };
        // SAFETY: the table of a live object is valid.
        let close = unsafe { (*ops).close };
        // SAFETY: the object is open and closed once; its children, which hold it, are gone.
        close.map_or(0, |close| unsafe { close(self.as_fid()) }.into())
    }
}

impl<T> Drop for Fid<T> {
    fn drop(&mut self) {
        let code = self.close_once();
        if code != 0 {
            tracing::debug!(code, "a libfabric object did not close");
        }
    }
}

/// Domain and the fabric that it lies in.
pub(super) struct Domain {
    fid: Fid<sys::fid_domain>,
    fabric: Fid<sys::fid_fabric>,
    pub(super) info: Info,
}

pub(super) struct CompletionQueue {
    fid: Fid<sys::fid_cq>,
    domain: Arc<Domain>,
    wait_fd: Option<RawFd>,
}

pub(super) struct AddressVector {
    fid: Fid<sys::fid_av>,
    domain: Arc<Domain>,
}

pub(super) struct Endpoint {
    fid: Fid<sys::fid_ep>,
    queue: Arc<CompletionQueue>,
    _addresses: Arc<AddressVector>,
    domain: Arc<Domain>,
}

/// The pool, registered once.
pub(super) struct Region {
    fid: Fid<sys::fid_mr>,
    _domain: Arc<Domain>,
    _pool: PoolMemory,
}

/// A table entry that the provider left empty.
fn required<F>(function: Option<F>, operation: &'static str) -> Result<F, FabricError> {
    let reason =
        || FabricError { fabric: "libfabric", operation, reason: "the provider lacks it".to_owned() };
    function.ok_or_else(reason)
}

fn check(library: &Library, operation: &'static str, code: c_int) -> Result<(), FabricError> {
    if code >= 0 { Ok(()) } else { Err(failure(library, operation, code.into())) }
}

pub(super) fn failure(library: &Library, operation: &'static str, code: i64) -> FabricError {
    FabricError { fabric: "libfabric", operation, reason: library.error_text(code) }
}

fn opened<T>(raw: *mut T, operation: &'static str) -> Result<Fid<T>, FabricError> {
    let reason = "the provider gave no object".to_owned();
    NonNull::new(raw).map(Fid).ok_or(FabricError { fabric: "libfabric", operation, reason })
}

impl Domain {
    pub(super) fn open(info: Info) -> Result<Arc<Self>, FabricError> {
        let library = info.library();
        let mut raw = ptr::null_mut();
        // SAFETY: the entry came from fi_getinfo and its fabric attributes are valid.
        let code = unsafe { (library.open_fabric)((*info.raw()).fabric_attr, &mut raw, ptr::null_mut()) };
        check(&library, "fi_fabric", code)?;
        let fabric = opened(raw, "fi_fabric")?;
        // SAFETY: an open fabric's table is valid.
        let open = required(unsafe { (*(*fabric.0.as_ptr()).ops).domain }, "fi_domain")?;
        let mut raw = ptr::null_mut();
        // SAFETY: fabric and entry are valid and belong together.
        let code = unsafe { open(fabric.0.as_ptr(), info.raw(), &mut raw, ptr::null_mut()) };
        check(&library, "fi_domain", code)?;
        Ok(Arc::new(Self { fid: opened(raw, "fi_domain")?, fabric, info }))
    }

    pub(super) fn library(&self) -> Library {
        self.info.library()
    }
}

impl CompletionQueue {
    /// A queue of `size` entries, or of as many as the provider has, but at least `least`; with a descriptor to sleep on if it
    /// has one.
    pub(super) fn open(domain: &Arc<Domain>, size: usize, least: usize) -> Result<Arc<Self>, FabricError> {
        match Self::open_sized(domain, size) {
            Err(_) if size / 2 >= least => Self::open(domain, size / 2, least),
            opened => opened,
        }
    }

    fn open_sized(domain: &Arc<Domain>, size: usize) -> Result<Arc<Self>, FabricError> {
        let library = domain.library();
        // SAFETY: an open domain's table is valid.
        let open = required(unsafe { (*(*domain.fid.0.as_ptr()).ops).cq_open }, "fi_cq_open")?;
        let mut attr = sys::fi_cq_attr {
            size,
            flags: 0,
            format: sys::FI_CQ_FORMAT_DATA,
            wait_obj: sys::FI_WAIT_FD,
            signaling_vector: 0,
            wait_cond: sys::FI_CQ_COND_NONE,
            wait_set: ptr::null_mut(),
        };
        let mut raw = ptr::null_mut();
        // SAFETY: the domain is open, the attributes are complete.
        let code = unsafe { open(domain.fid.0.as_ptr(), &mut attr, &mut raw, ptr::null_mut()) };
        if code == 0 {
            let fid = opened(raw, "fi_cq_open")?;
            let wait_fd = Some(wait_descriptor(&library, &fid)?);
            return Ok(Arc::new(Self { fid, domain: domain.clone(), wait_fd }));
        }
        attr.wait_obj = sys::FI_WAIT_NONE;
        // SAFETY: as above.
        let code = unsafe { open(domain.fid.0.as_ptr(), &mut attr, &mut raw, ptr::null_mut()) };
        check(&library, "fi_cq_open", code)?;
        Ok(Arc::new(Self { fid: opened(raw, "fi_cq_open")?, domain: domain.clone(), wait_fd: None }))
    }

    /// The descriptor to poll, if nothing is pending that it would not show.
    pub(super) fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the provider keeps the descriptor open as long as the queue, which `self` owns.
        self.wait_fd.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Whether it is right to sleep on the descriptor now (fi_trywait).
    pub(super) fn may_sleep(&self) -> bool {
        let fabric = self.domain.fabric.0.as_ptr();
        // SAFETY: an open fabric's table is valid.
        let Some(try_wait) = (unsafe { (*(*fabric).ops).trywait }) else { return false };
        let mut fids = [self.fid.as_fid()];
        // SAFETY: the array has one open object of this fabric.
        let code = unsafe { try_wait(fabric, fids.as_mut_ptr(), 1) };
        code == 0
    }

    /// Up to [`CQ_BATCH`] completions. `Ok(None)`: none; `Err`: there is an error entry, see [`read_error`](Self::read_error).
    pub(super) fn read<'a>(
        &self,
        into: &'a mut [sys::fi_cq_data_entry; CQ_BATCH],
    ) -> Result<Option<&'a [sys::fi_cq_data_entry]>, i64> {
        let queue = self.fid.0.as_ptr();
        // SAFETY: an open queue's table is valid, and every provider reads completions.
        let Some(read) = (unsafe { (*(*queue).ops).read }) else { return Err(-i64::from(sys::FI_ENOSYS)) };
        // SAFETY: the queue was opened for entries of this type, and there is room for CQ_BATCH of them.
        let count = unsafe { read(queue, into.as_mut_ptr().cast(), CQ_BATCH) };
        match count {
            0 => Ok(None),
            1.. => Ok(Some(&into[..(count as usize).min(CQ_BATCH)])),
            code if code == -(sys::FI_EAGAIN as isize) => Ok(None),
            code => Err(code as i64),
        }
    }

    /// The error entry that `read` announced.
    pub(super) fn read_error(&self) -> Option<sys::fi_cq_err_entry> {
        let queue = self.fid.0.as_ptr();
        // SAFETY: an open queue's table is valid.
        let read = unsafe { (*(*queue).ops).readerr }?;
        // SAFETY: an entry is numbers and pointers, for which zero is a value; no buffer for details is offered.
        let mut entry: sys::fi_cq_err_entry = unsafe { std::mem::zeroed() };
        // SAFETY: the queue is open and `entry` is ours.
        let count = unsafe { read(queue, &mut entry, 0) };
        (count > 0).then_some(entry)
    }

    /// What the provider says about an error entry.
    pub(super) fn error_text(&self, entry: &sys::fi_cq_err_entry) -> String {
        let queue = self.fid.0.as_ptr();
        let mut room = [0u8; 256];
        // SAFETY: an open queue's table is valid.
        let Some(text) = (unsafe { (*(*queue).ops).strerror }) else { return "no reason given".to_owned() };
        // SAFETY: the queue is open, the entry was just read from it (its data lives until the next read), `room` is ours.
        let text =
            unsafe { text(queue, entry.prov_errno, entry.err_data, room.as_mut_ptr().cast(), room.len()) };
        super::info::text(text)
    }
}

fn wait_descriptor(library: &Library, queue: &Fid<sys::fid_cq>) -> Result<RawFd, FabricError> {
    // SAFETY: an open object's table is valid.
    let control = required(unsafe { (*(*queue.as_fid()).ops).control }, "fi_control")?;
    let mut fd: RawFd = -1;
    // SAFETY: FI_GETWAIT on a queue opened with FI_WAIT_FD writes one int.
    let code = unsafe { control(queue.as_fid(), sys::FI_GETWAIT as c_int, (&raw mut fd).cast::<c_void>()) };
    check(library, "fi_control(FI_GETWAIT)", code)?;
    Ok(fd)
}

impl AddressVector {
    pub(super) fn open(domain: &Arc<Domain>, count: usize) -> Result<Arc<Self>, FabricError> {
        // SAFETY: an open domain's table is valid.
        let open = required(unsafe { (*(*domain.fid.0.as_ptr()).ops).av_open }, "fi_av_open")?;
        let mut attr = sys::fi_av_attr {
            type_: sys::FI_AV_UNSPEC,
            rx_ctx_bits: 0,
            count,
            ep_per_node: 0,
            name: ptr::null(),
            map_addr: ptr::null_mut(),
            flags: 0,
        };
        let mut raw = ptr::null_mut();
        // SAFETY: the domain is open, the attributes are complete.
        let code = unsafe { open(domain.fid.0.as_ptr(), &mut attr, &mut raw, ptr::null_mut()) };
        check(&domain.library(), "fi_av_open", code)?;
        Ok(Arc::new(Self { fid: opened(raw, "fi_av_open")?, domain: domain.clone() }))
    }

    /// Inserts one address as fi_getname gave it. Its length must be that of our own: the provider reads so many bytes.
    pub(super) fn insert(&self, address: &[u8]) -> Result<sys::fi_addr_t, FabricError> {
        let vector = self.fid.0.as_ptr();
        // SAFETY: an open vector's table is valid.
        let insert = required(unsafe { (*(*vector).ops).insert }, "fi_av_insert")?;
        let mut handle = 0;
        // SAFETY: the caller made sure of the address's length; one handle is written.
        let count = unsafe { insert(vector, address.as_ptr().cast(), 1, &mut handle, 0, ptr::null_mut()) };
        if count == 1 {
            Ok(handle)
        } else {
            Err(failure(&self.domain.library(), "fi_av_insert", count.into()))
        }
    }

    pub(super) fn remove(&self, mut handle: sys::fi_addr_t) {
        let vector = self.fid.0.as_ptr();
        // SAFETY: an open vector's table is valid.
        let Some(remove) = (unsafe { (*(*vector).ops).remove }) else { return };
        // SAFETY: the handle came from `insert` and is removed once.
        let code = unsafe { remove(vector, &mut handle, 1, 0) };
        if code != 0 {
            tracing::debug!(code, "an address was not removed");
        }
    }
}

impl Endpoint {
    /// Opens and binds; not enabled yet.
    pub(super) fn open(
        domain: &Arc<Domain>,
        queue: &Arc<CompletionQueue>,
        addresses: &Arc<AddressVector>,
    ) -> Result<Self, FabricError> {
        // SAFETY: an open domain's table is valid.
        let open = required(unsafe { (*(*domain.fid.0.as_ptr()).ops).endpoint }, "fi_endpoint")?;
        let mut raw = ptr::null_mut();
        // SAFETY: domain and entry are valid and belong together.
        let code = unsafe { open(domain.fid.0.as_ptr(), domain.info.raw(), &mut raw, ptr::null_mut()) };
        check(&domain.library(), "fi_endpoint", code)?;
        let fid = opened(raw, "fi_endpoint")?;
        let (queue, _addresses, domain) = (queue.clone(), addresses.clone(), domain.clone());
        let endpoint = Self { fid, queue, _addresses, domain };
        endpoint.bind(endpoint.queue.fid.as_fid(), u64::from(sys::FI_TRANSMIT | sys::FI_RECV))?;
        endpoint.bind(addresses.fid.as_fid(), 0)?;
        Ok(endpoint)
    }

    fn bind(&self, to: *mut sys::fid, flags: u64) -> Result<(), FabricError> {
        // SAFETY: an open object's table is valid.
        let bind = required(unsafe { (*(*self.fid.as_fid()).ops).bind }, "fi_ep_bind")?;
        // SAFETY: both objects are open and of one domain.
        let code = unsafe { bind(self.fid.as_fid(), to, flags) };
        check(&self.domain.library(), "fi_ep_bind", code)
    }

    /// Sets an option of C's type `bool`.
    pub(super) fn set_option(&self, option: c_int, value: bool) -> Result<(), FabricError> {
        // SAFETY: an open endpoint's table is valid.
        let set = required(unsafe { (*(*self.fid.0.as_ptr()).ops).setopt }, "fi_setopt")?;
        let (level, value) = (sys::FI_OPT_ENDPOINT as c_int, u8::from(value));
        // SAFETY: the endpoint is open; C's bool is one byte.
        let code = unsafe { set(self.fid.as_fid(), level, option, (&raw const value).cast(), 1) };
        check(&self.domain.library(), "fi_setopt", code)
    }

    /// An option of C's type `bool`; `None` where the provider does not know it.
    pub(super) fn bool_option(&self, option: c_int) -> Option<bool> {
        let mut value = 0u8;
        self.option(option, (&raw mut value).cast(), 1).then_some(value != 0)
    }

    /// An option of C's type `size_t`; `None` where the provider does not know it.
    pub(super) fn size_option(&self, option: c_int) -> Option<usize> {
        let mut value = 0usize;
        self.option(option, (&raw mut value).cast(), size_of::<usize>()).then_some(value)
    }

    fn option(&self, option: c_int, place: *mut c_void, mut len: usize) -> bool {
        let (level, wanted) = (sys::FI_OPT_ENDPOINT as c_int, len);
        // SAFETY: an open endpoint's table is valid.
        let Some(get) = (unsafe { (*(*self.fid.0.as_ptr()).ops).getopt }) else { return false };
        // SAFETY: the endpoint is open, and `place` has `len` bytes.
        let code = unsafe { get(self.fid.as_fid(), level, option, place, &mut len) };
        code == 0 && len == wanted
    }

    pub(super) fn enable(&self) -> Result<(), FabricError> {
        enable(&self.domain.library(), self.fid.as_fid(), "fi_enable")
    }

    /// The address that peers insert.
    pub(super) fn name(&self) -> Result<Vec<u8>, FabricError> {
        // SAFETY: an open endpoint's connection table is valid.
        let get_name = required(unsafe { (*(*self.fid.0.as_ptr()).cm).getname }, "fi_getname")?;
        let mut name = vec![0; 512];
        let mut len = name.len();
        // SAFETY: `len` bytes of room are there.
        let code = unsafe { get_name(self.fid.as_fid(), name.as_mut_ptr().cast(), &mut len) };
        check(&self.domain.library(), "fi_getname", code)?;
        name.truncate(len);
        Ok(name)
    }

    /// Ends every access through it. One that the provider could not close may still read and write.
    pub(super) fn close(self) -> Result<(), FabricError> {
        let Self { fid, queue: _queue, _addresses, domain } = self;
        match fid.close() {
            0 => Ok(()),
            code => Err(failure(&domain.library(), "fi_close of an endpoint", code)),
        }
    }

    /// Posts one write; the provider's code, 0 for posted.
    pub(super) fn write(&self, message: &sys::fi_msg_rma, flags: u64) -> i64 {
        let endpoint = self.fid.0.as_ptr();
        // SAFETY: an enabled endpoint with FI_RMA has its RMA table.
        let Some(write) = (unsafe { (*(*endpoint).rma).writemsg }) else { return -i64::from(sys::FI_ENOSYS) };
        // SAFETY: the message's pointers are valid during the call; buffer, descriptor and context until the completion,
        // which the caller's in-flight table and the region see to.
        unsafe { write(endpoint, message, flags) as i64 }
    }

    /// Posts one read; the provider's code, 0 for posted.
    pub(super) fn read(&self, message: &sys::fi_msg_rma, flags: u64) -> i64 {
        let endpoint = self.fid.0.as_ptr();
        // SAFETY: an enabled endpoint with FI_RMA has its RMA table.
        let Some(read) = (unsafe { (*(*endpoint).rma).readmsg }) else { return -i64::from(sys::FI_ENOSYS) };
        // SAFETY: as for a write; the buffer is written until the completion.
        unsafe { read(endpoint, message, flags) as i64 }
    }
}

fn enable(library: &Library, fid: *mut sys::fid, operation: &'static str) -> Result<(), FabricError> {
    // SAFETY: an open object's table is valid.
    let control = required(unsafe { (*(*fid).ops).control }, operation)?;
    // SAFETY: FI_ENABLE takes no argument.
    let code = unsafe { control(fid, sys::FI_ENABLE as c_int, ptr::null_mut()) };
    check(library, operation, code)
}

impl Region {
    /// Registers the pool, for our writes and reads, and the peers'.
    pub(super) fn register(
        domain: &Arc<Domain>,
        pool: &PoolMemory,
        wanted_key: u64,
    ) -> Result<Self, FabricError> {
        // SAFETY: an open domain's registration table is valid.
        let register = required(unsafe { (*(*domain.fid.0.as_ptr()).mr).regattr }, "fi_mr_regattr")?;
        let iov = sys::iovec { iov_base: pool.ptr().as_ptr().cast(), iov_len: pool.region().len() };
        // SAFETY: attributes are numbers and pointers, for which zero is a value.
        let mut attr: sys::fi_mr_attr = unsafe { std::mem::zeroed() };
        (attr.__bindgen_anon_1.mr_iov, attr.iov_count) = (&iov, 1);
        attr.access = u64::from(sys::FI_WRITE | sys::FI_READ | sys::FI_REMOTE_WRITE | sys::FI_REMOTE_READ);
        attr.requested_key = wanted_key;
        // Host memory. A GPU's will come as a dmabuf, with its interface here and FI_MR_DMABUF in the flags.
        attr.iface = sys::FI_HMEM_SYSTEM;
        let mut raw = ptr::null_mut();
        let fid = domain.fid.as_fid();
        // SAFETY: the attributes are complete; the range is mapped, and stays so as the region holds the pool.
        let code = unsafe { register(fid, &attr, 0, &mut raw) };
        check(&domain.library(), "fi_mr_regattr", code)?;
        Ok(Self { fid: opened(raw, "fi_mr_regattr")?, _domain: domain.clone(), _pool: pool.clone() })
    }

    /// For providers that register by endpoint.
    pub(super) fn bind(&self, endpoint: &Endpoint) -> Result<(), FabricError> {
        let library = endpoint.domain.library();
        // SAFETY: an open object's table is valid.
        let bind = required(unsafe { (*(*self.fid.as_fid()).ops).bind }, "fi_mr_bind")?;
        // SAFETY: both objects are open and of one domain.
        let code = unsafe { bind(self.fid.as_fid(), endpoint.fid.as_fid(), 0) };
        check(&library, "fi_mr_bind", code)?;
        enable(&library, self.fid.as_fid(), "fi_mr_enable")
    }

    pub(super) fn key(&self) -> u64 {
        // SAFETY: the region is open; its key is fixed once registered.
        unsafe { (*self.fid.0.as_ptr()).key }
    }

    pub(super) fn descriptor(&self) -> *mut c_void {
        // SAFETY: as for the key.
        unsafe { (*self.fid.0.as_ptr()).mem_desc }
    }
}
