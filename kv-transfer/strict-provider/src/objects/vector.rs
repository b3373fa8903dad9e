//! The address vector.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::domain::Domain;
use super::{Object, close_order, fail, ops, table};
use crate::nic::Shared;
use crate::sys;
use crate::wire::Address;

#[repr(C)]
pub(super) struct Vector {
    fid: sys::fid_av,
    shared: Arc<Shared>,
}

static OPS: sys::fi_ops = ops(close, None, None);
static AV_OPS: sys::fi_ops_av = sys::fi_ops_av {
    size: size_of::<sys::fi_ops_av>(),
    insert: Some(insert),
    insert_auth_key: None,
    insertsvc: None,
    insertsym: None,
    remove: Some(remove),
    lookup: None,
    straddr: None,
    av_set: None,
    lookup_auth_key: None,
    set_user_id: None,
};

// SAFETY: `repr(C)`, and an fid_av begins with a fid.
unsafe impl Object for Vector {
    const CLASS: u32 = sys::FI_CLASS_AV;
    const OPS: &'static sys::fi_ops = &OPS;
}

pub(super) unsafe extern "C" fn open(
    domain: *mut sys::fid_domain,
    _attr: *mut sys::fi_av_attr,
    av: *mut *mut sys::fid_av,
    context: *mut c_void,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let domain = unsafe { Domain::of(domain) };
    let fid = sys::fid_av { fid: Vector::fid(context), ops: table(&AV_OPS) };
    Vector { fid, shared: domain.shared.clone() }.hand_out(av)
}

unsafe extern "C" fn close(fid: *mut sys::fid) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let vector = unsafe { Vector::of(fid) };
    if vector.shared.enter().endpoint {
        return close_order(&vector.shared.log, "an address vector");
    }
    // SAFETY: as above; a closed object is not used again.
    drop(unsafe { Vector::take_back(fid) });
    0
}

unsafe extern "C" fn insert(
    av: *mut sys::fid_av,
    addresses: *const c_void,
    count: usize,
    handles: *mut sys::fi_addr_t,
    _flags: u64,
    _context: *mut c_void,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let vector = unsafe { Vector::of(av) };
    let mut nic = vector.shared.enter();
    for i in 0..count {
        // SAFETY: the caller gives `count` addresses of the format's size, of any alignment.
        let address = unsafe { addresses.cast::<Address>().wrapping_add(i).read_unaligned() };
        let handle = nic.peers.insert(address);
        // SAFETY: and a place for as many handles.
        unsafe { *handles.wrapping_add(i) = handle };
    }
    count as c_int
}

unsafe extern "C" fn remove(
    av: *mut sys::fid_av,
    handles: *mut sys::fi_addr_t,
    count: usize,
    _flags: u64,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let vector = unsafe { Vector::of(av) };
    let mut nic = vector.shared.enter();
    for i in 0..count {
        // SAFETY: the caller gives `count` handles.
        let handle = unsafe { *handles.wrapping_add(i) };
        if !nic.forget(handle) {
            return fail(sys::FI_EINVAL);
        }
    }
    0
}
