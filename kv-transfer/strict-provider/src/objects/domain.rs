//! The domain: one device, one endpoint, one completion queue, one address vector.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::fabric::Fabric;
use super::{Object, close_order, cq, ep, mr, ops, table, vector};
use crate::nic::Shared;
use crate::sys;

#[repr(C)]
pub(super) struct Domain {
    fid: sys::fid_domain,
    pub(super) shared: Arc<Shared>,
    _fabric: Arc<()>,
}

static OPS: sys::fi_ops = ops(close, None, None);
static DOMAIN_OPS: sys::fi_ops_domain = sys::fi_ops_domain {
    size: size_of::<sys::fi_ops_domain>(),
    av_open: Some(vector::open),
    cq_open: Some(cq::open),
    endpoint: Some(ep::open),
    scalable_ep: None,
    cntr_open: None,
    poll_open: None,
    stx_ctx: None,
    srx_ctx: None,
    query_atomic: None,
    query_collective: None,
    endpoint2: None,
};
static MR_OPS: sys::fi_ops_mr = sys::fi_ops_mr {
    size: size_of::<sys::fi_ops_mr>(),
    reg: Some(mr::register),
    regv: None,
    regattr: Some(mr::register_with),
};

// SAFETY: `repr(C)`, and an fid_domain begins with a fid.
unsafe impl Object for Domain {
    const CLASS: u32 = sys::FI_CLASS_DOMAIN;
    const OPS: &'static sys::fi_ops = &OPS;
}

pub(super) unsafe extern "C" fn open(
    fabric: *mut sys::fid_fabric,
    _info: *mut sys::fi_info,
    domain: *mut *mut sys::fid_domain,
    context: *mut c_void,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let fabric = unsafe { Fabric::of(fabric) };
    let fid = sys::fid_domain { fid: Domain::fid(context), ops: table(&DOMAIN_OPS), mr: table(&MR_OPS) };
    let shared = Shared::new(fabric.settings.clone(), fabric.log.clone());
    Domain { fid, shared, _fabric: fabric.children.clone() }.hand_out(domain)
}

unsafe extern "C" fn close(fid: *mut sys::fid) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let domain = unsafe { Domain::of(fid) };
    if Arc::strong_count(&domain.shared) > 1 {
        return close_order(&domain.shared.log, "a domain");
    }
    // SAFETY: as above; a closed object is not used again.
    drop(unsafe { Domain::take_back(fid) });
    0
}
