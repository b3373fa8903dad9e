//! Memory regions: the provider's keys, virtual addresses, memory that is there.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::domain::Domain;
use super::{Object, fail, ops};
use crate::nic::{Region, Shared};
use crate::{memory, sys};

#[repr(C)]
struct Mr {
    fid: sys::fid_mr,
    shared: Arc<Shared>,
}

static OPS: sys::fi_ops = ops(close, None, None);

// SAFETY: `repr(C)`, and an fid_mr begins with a fid.
unsafe impl Object for Mr {
    const CLASS: u32 = sys::FI_CLASS_MR;
    const OPS: &'static sys::fi_ops = &OPS;
}

pub(super) unsafe extern "C" fn register(
    domain: *mut sys::fid,
    start: *const c_void,
    len: usize,
    access: u64,
    _offset: u64,
    _requested_key: u64,
    _flags: u64,
    mr: *mut *mut sys::fid_mr,
    context: *mut c_void,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let domain = unsafe { Domain::of(domain) };
    open(domain, (start as u64, len as u64), access, mr, context)
}

pub(super) unsafe extern "C" fn register_with(
    domain: *mut sys::fid,
    attr: *const sys::fi_mr_attr,
    flags: u64,
    mr: *mut *mut sys::fid_mr,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let domain = unsafe { Domain::of(domain) };
    // SAFETY: the caller gives complete attributes.
    let attr = unsafe { &*attr };
    // Memory of a GPU, a dmabuf, several pieces: not here.
    if flags != 0 || attr.iov_count != 1 || attr.iface != sys::FI_HMEM_SYSTEM {
        return fail(sys::FI_EOPNOTSUPP);
    }
    // SAFETY: without FI_MR_DMABUF the union is the array of iovs, of which there is one.
    let iov = unsafe { &*attr.__bindgen_anon_1.mr_iov };
    open(domain, (iov.iov_base as u64, iov.iov_len as u64), attr.access, mr, attr.context)
}

fn open(
    domain: &Domain,
    (start, len): (u64, u64),
    access: u64,
    place: *mut *mut sys::fid_mr,
    context: *mut c_void,
) -> c_int {
    if len == 0 || !memory::is_mapped(start, len) {
        return fail(sys::FI_EFAULT);
    }
    let fid = sys::fid_mr { fid: Mr::fid(context), mem_desc: std::ptr::null_mut(), key: 0 };
    let shared = domain.shared.clone();
    let mut mr = Box::new(Mr { fid, shared: shared.clone() });
    // A descriptor is worth what it points to, as EFA's is.
    let descriptor = std::ptr::from_ref(&*mr) as usize;
    let mut nic = shared.enter();
    // Not by the seed: a restarted process has other keys.
    let mut key = u64::from(rand::random::<u32>());
    while nic.regions.0.contains_key(&key) {
        key = u64::from(rand::random::<u32>());
    }
    nic.regions.0.insert(key, Region { start, len, access, descriptor });
    (mr.fid.mem_desc, mr.fid.key) = (descriptor as *mut c_void, key);
    // SAFETY: the caller of an open function gives a place for the object.
    unsafe { *place = Box::into_raw(mr).cast() };
    0
}

unsafe extern "C" fn close(fid: *mut sys::fid) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object, and does not use it after.
    let mr = unsafe { Mr::take_back(fid) };
    mr.shared.enter().deregister(mr.fid.key);
    0
}
