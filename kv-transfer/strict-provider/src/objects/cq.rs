//! The completion queue, whose reading drives everything.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;

use rustix::event::epoll;

use super::domain::Domain;
use super::{Object, close_order, fail, ops, table};
use crate::nic::Shared;
use crate::queue::Queue;
use crate::sys;

#[repr(C)]
pub(super) struct Cq {
    fid: sys::fid_cq,
    pub(super) shared: Arc<Shared>,
}

static OPS: sys::fi_ops = ops(close, None, Some(control));
static CQ_OPS: sys::fi_ops_cq = sys::fi_ops_cq {
    size: size_of::<sys::fi_ops_cq>(),
    read: Some(read),
    readfrom: None,
    readerr: Some(read_error),
    sread: None,
    sreadfrom: None,
    signal: None,
    strerror: Some(text),
};

// SAFETY: `repr(C)`, and an fid_cq begins with a fid.
unsafe impl Object for Cq {
    const CLASS: u32 = sys::FI_CLASS_CQ;
    const OPS: &'static sys::fi_ops = &OPS;
}

pub(super) unsafe extern "C" fn open(
    domain: *mut sys::fid_domain,
    attr: *mut sys::fi_cq_attr,
    cq: *mut *mut sys::fid_cq,
    context: *mut c_void,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let domain = unsafe { Domain::of(domain) };
    // SAFETY: the caller gives complete attributes.
    let attr = unsafe { &*attr };
    let mut nic = domain.shared.enter();
    let waits = attr.wait_obj == sys::FI_WAIT_FD;
    if nic.queue.is_some()
        || attr.format != sys::FI_CQ_FORMAT_DATA
        || (waits && !domain.shared.settings.wait_fd)
        || ![sys::FI_WAIT_FD, sys::FI_WAIT_NONE].contains(&attr.wait_obj)
    {
        return fail(sys::FI_EOPNOTSUPP);
    }
    if waits {
        match epoll::create(epoll::CreateFlags::CLOEXEC) {
            Ok(wait) => nic.wait = Some(wait),
            Err(_) => return fail(sys::FI_EMFILE),
        }
    }
    nic.queue = Some(Queue::new(attr.size));
    let fid = sys::fid_cq { fid: Cq::fid(context), ops: table(&CQ_OPS) };
    Cq { fid, shared: domain.shared.clone() }.hand_out(cq)
}

unsafe extern "C" fn close(fid: *mut sys::fid) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let cq = unsafe { Cq::of(fid) };
    let mut nic = cq.shared.enter();
    if nic.endpoint {
        return close_order(&cq.shared.log, "a completion queue");
    }
    (nic.queue, nic.wait) = (None, None);
    drop(nic);
    // SAFETY: as above; a closed object is not used again.
    drop(unsafe { Cq::take_back(fid) });
    0
}

unsafe extern "C" fn control(fid: *mut sys::fid, command: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let cq = unsafe { Cq::of(fid) };
    match (command as u32, &cq.shared.enter().wait) {
        (sys::FI_GETWAIT, Some(wait)) => {
            // SAFETY: FI_GETWAIT of a queue with FI_WAIT_FD gives a place for an int.
            unsafe { *argument.cast::<c_int>() = wait.as_raw_fd() };
            0
        }
        _ => fail(sys::FI_ENOSYS),
    }
}

unsafe extern "C" fn read(cq: *mut sys::fid_cq, buffer: *mut c_void, count: usize) -> isize {
    // SAFETY: libfabric calls an object's own table with that object.
    let cq = unsafe { Cq::of(cq) };
    let mut nic = cq.shared.enter();
    nic.progress();
    if nic.queue.as_ref().is_some_and(|queue| queue.overran) {
        return fail(sys::FI_EOVERRUN) as isize;
    }
    let mut taken = 0;
    while taken < count {
        let Some(entry) = nic.take(false) else { break };
        let place = buffer.cast::<sys::fi_cq_data_entry>().wrapping_add(taken);
        let data = sys::fi_cq_data_entry {
            op_context: entry.context as *mut c_void,
            flags: entry.flags,
            len: 0,
            buf: ptr::null_mut(),
            data: entry.data,
        };
        // SAFETY: the caller gives room for `count` entries of the queue's format.
        unsafe { place.write(data) };
        taken += 1;
    }
    match taken {
        0 if nic.queue.as_ref().is_some_and(Queue::error_waits) => fail(sys::FI_EAVAIL) as isize,
        0 => fail(sys::FI_EAGAIN) as isize,
        _ => taken as isize,
    }
}

unsafe extern "C" fn read_error(
    cq: *mut sys::fid_cq,
    buffer: *mut sys::fi_cq_err_entry,
    _flags: u64,
) -> isize {
    // SAFETY: libfabric calls an object's own table with that object.
    let cq = unsafe { Cq::of(cq) };
    let Some(entry) = cq.shared.enter().take(true) else { return fail(sys::FI_EAGAIN) as isize };
    let (err, status) = entry.error.unwrap_or_default();
    // SAFETY: the caller gives an entry that it zeroed, or filled in where it offers a buffer.
    let place = unsafe { &mut *buffer };
    (place.op_context, place.flags, place.data) = (entry.context as *mut c_void, entry.flags, entry.data);
    (place.err, place.prov_errno, place.err_data_size) = (err as c_int, status as c_int, 0);
    1
}

unsafe extern "C" fn text(
    _cq: *mut sys::fid_cq,
    status: c_int,
    _data: *const c_void,
    _buffer: *mut c_char,
    _len: usize,
) -> *const c_char {
    let text: &CStr = match status {
        1 => c"flushed",
        7 => c"remote registration invalid",
        9 => c"no such queue pair",
        13 => c"remote does not respond any more",
        14 => c"remote does not know this peer",
        15 => c"remote never responded",
        _ => c"unknown status",
    };
    text.as_ptr()
}
