//! The fabric.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::{Object, close_order, cq, domain, fail, ops, table};
use crate::log::Log;
use crate::settings::Settings;
use crate::sys;

#[repr(C)]
pub(crate) struct Fabric {
    fid: sys::fid_fabric,
    pub(super) settings: Arc<Settings>,
    pub(super) log: Arc<Log>,
    /// Held by each domain.
    pub(super) children: Arc<()>,
}

static OPS: sys::fi_ops = ops(close, None, None);
static FABRIC_OPS: sys::fi_ops_fabric = sys::fi_ops_fabric {
    size: size_of::<sys::fi_ops_fabric>(),
    domain: Some(domain::open),
    passive_ep: None,
    eq_open: None,
    wait_open: None,
    trywait: Some(trywait),
    domain2: None,
};

// SAFETY: `repr(C)`, and an fid_fabric begins with a fid.
unsafe impl Object for Fabric {
    const CLASS: u32 = sys::FI_CLASS_FABRIC;
    const OPS: &'static sys::fi_ops = &OPS;
}

pub(crate) unsafe extern "C" fn open(
    _attr: *mut sys::fi_fabric_attr,
    fabric: *mut *mut sys::fid_fabric,
    context: *mut c_void,
) -> c_int {
    match crate::settings() {
        Some(settings) => open_with(settings.clone(), fabric, context),
        None => fail(sys::FI_ENODEV),
    }
}

/// Opens a fabric of chosen strictness.
pub(crate) fn open_with(
    settings: Arc<Settings>,
    fabric: *mut *mut sys::fid_fabric,
    context: *mut c_void,
) -> c_int {
    let log = Arc::new(Log::open(&settings));
    log.note(&format!("opened: {settings:?}"));
    let fid = sys::fid_fabric { fid: Fabric::fid(context), ops: table(&FABRIC_OPS), api_version: 0 };
    Fabric { fid, settings, log, children: Arc::new(()) }.hand_out(fabric)
}

unsafe extern "C" fn close(fid: *mut sys::fid) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let fabric = unsafe { Fabric::of(fid) };
    if Arc::strong_count(&fabric.children) > 1 {
        return close_order(&fabric.log, "a fabric");
    }
    // SAFETY: as above; a closed object is not used again.
    drop(unsafe { Fabric::take_back(fid) });
    0
}

unsafe extern "C" fn trywait(_: *mut sys::fid_fabric, fids: *mut *mut sys::fid, count: c_int) -> c_int {
    for i in 0..count as usize {
        // SAFETY: the caller gives `count` open objects of this fabric; only completion queues can be waited for here.
        let queue = unsafe { cq::Cq::of(*fids.wrapping_add(i)) };
        if queue.shared.enter().is_busy() {
            return fail(sys::FI_EAGAIN);
        }
    }
    0
}
