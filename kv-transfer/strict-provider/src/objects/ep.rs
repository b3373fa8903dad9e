//! The endpoint.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::domain::Domain;
use super::{Object, fail, ops, table};
use crate::link;
use crate::nic::{Door, Nic, Shared};
use crate::rules::{Kind, Post, Rule};
use crate::sys;
use crate::wire::Address;

#[repr(C)]
struct Ep {
    fid: sys::fid_ep,
    shared: Arc<Shared>,
    queue_bound: AtomicBool,
    vector_bound: AtomicBool,
    /// FI_OPT_SHARED_MEMORY_PERMITTED and FI_OPT_CUDA_API_PERMITTED were switched off.
    no_shared_memory: AtomicBool,
    no_cuda: AtomicBool,
}

static OPS: sys::fi_ops = ops(close, Some(bind), Some(control));
static EP_OPS: sys::fi_ops_ep = sys::fi_ops_ep {
    size: size_of::<sys::fi_ops_ep>(),
    cancel: None,
    getopt: Some(getopt),
    setopt: Some(setopt),
    tx_ctx: None,
    rx_ctx: None,
    rx_size_left: None,
    tx_size_left: None,
};
static CM_OPS: sys::fi_ops_cm = sys::fi_ops_cm {
    size: size_of::<sys::fi_ops_cm>(),
    setname: None,
    getname: Some(getname),
    getpeer: None,
    connect: None,
    listen: None,
    accept: None,
    reject: None,
    shutdown: None,
    join: None,
};
static RMA_OPS: sys::fi_ops_rma = sys::fi_ops_rma {
    size: size_of::<sys::fi_ops_rma>(),
    read: None,
    readv: None,
    readmsg: Some(readmsg),
    write: None,
    writev: None,
    writemsg: Some(writemsg),
    inject: None,
    writedata: None,
    injectdata: None,
};

// SAFETY: `repr(C)`, and an fid_ep begins with a fid.
unsafe impl Object for Ep {
    const CLASS: u32 = sys::FI_CLASS_EP;
    const OPS: &'static sys::fi_ops = &OPS;
}

pub(super) unsafe extern "C" fn open(
    domain: *mut sys::fid_domain,
    _info: *mut sys::fi_info,
    ep: *mut *mut sys::fid_ep,
    context: *mut c_void,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let domain = unsafe { Domain::of(domain) };
    if std::mem::replace(&mut domain.shared.enter().endpoint, true) {
        return fail(sys::FI_EBUSY);
    }
    let fid = sys::fid_ep {
        fid: Ep::fid(context),
        ops: table(&EP_OPS),
        cm: table(&CM_OPS),
        msg: std::ptr::null_mut(),
        rma: table(&RMA_OPS),
        tagged: std::ptr::null_mut(),
        atomic: std::ptr::null_mut(),
        collective: std::ptr::null_mut(),
    };
    let no = || AtomicBool::new(false);
    let shared = domain.shared.clone();
    Ep { fid, shared, queue_bound: no(), vector_bound: no(), no_shared_memory: no(), no_cuda: no() }
        .hand_out(ep)
}

unsafe extern "C" fn close(fid: *mut sys::fid) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object, and does not use it after.
    let ep = unsafe { Ep::take_back(fid) };
    ep.shared.enter().shut();
    0
}

unsafe extern "C" fn bind(fid: *mut sys::fid, to: *mut sys::fid, flags: u64) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let ep = unsafe { Ep::of(fid) };
    // SAFETY: what is bound is an open object.
    let class = unsafe { (*to).fclass } as u32;
    let both = u64::from(sys::FI_TRANSMIT | sys::FI_RECV);
    match class {
        sys::FI_CLASS_CQ if flags & both == both => ep.queue_bound.store(true, Ordering::Relaxed),
        sys::FI_CLASS_AV => ep.vector_bound.store(true, Ordering::Relaxed),
        _ => return fail(sys::FI_EOPNOTSUPP),
    }
    0
}

unsafe extern "C" fn control(fid: *mut sys::fid, command: c_int, _argument: *mut c_void) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let ep = unsafe { Ep::of(fid) };
    if command as u32 != sys::FI_ENABLE {
        return fail(sys::FI_ENOSYS);
    }
    let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    if !is(&ep.queue_bound) {
        return fail(sys::FI_ENOCQ);
    }
    if !is(&ep.vector_bound) {
        return fail(sys::FI_ENOAV);
    }
    if !is(&ep.no_shared_memory) || !is(&ep.no_cuda) {
        let text =
            "enabled without FI_OPT_SHARED_MEMORY_PERMITTED and FI_OPT_CUDA_API_PERMITTED switched off";
        ep.shared.log.violation(Rule::Options, text);
        return fail(sys::FI_EOPBADSTATE);
    }
    enable(&ep.shared, &mut ep.shared.enter())
}

fn enable(shared: &Shared, nic: &mut Nic) -> c_int {
    match link::listen(shared.settings.qpn) {
        Ok((listener, address)) => {
            nic.watch(&listener);
            shared.log.note(&format!("enabled: {address:?}"));
            nic.door = Some(Door { listener, address });
            0
        }
        Err(error) => {
            shared.log.note(&format!("not enabled: {error}"));
            fail(sys::FI_EADDRINUSE)
        }
    }
}

unsafe extern "C" fn getname(fid: *mut sys::fid, place: *mut c_void, len: *mut usize) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let ep = unsafe { Ep::of(fid) };
    let Some(address) = ep.shared.enter().door.as_ref().map(|door| door.address) else {
        return fail(sys::FI_EOPBADSTATE);
    };
    // SAFETY: the caller says how much room it gives.
    let room = unsafe { std::mem::replace(&mut *len, Address::BYTES) };
    if room < Address::BYTES {
        return fail(sys::FI_ETOOSMALL);
    }
    // SAFETY: there is room for an address, of any alignment.
    unsafe { place.cast::<Address>().write_unaligned(address) };
    0
}

unsafe extern "C" fn setopt(
    fid: *mut sys::fid,
    _level: c_int,
    name: c_int,
    value: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let ep = unsafe { Ep::of(fid) };
    let option = match name as u32 {
        sys::FI_OPT_SHARED_MEMORY_PERMITTED => &ep.no_shared_memory,
        sys::FI_OPT_CUDA_API_PERMITTED => &ep.no_cuda,
        _ => return fail(sys::FI_ENOPROTOOPT),
    };
    if len != size_of::<bool>() {
        return fail(sys::FI_EINVAL);
    }
    if ep.shared.enter().door.is_some() {
        ep.shared.log.violation(Rule::Options, &format!("option {name} set after the endpoint was enabled"));
        return fail(sys::FI_EOPBADSTATE);
    }
    // SAFETY: the caller gives one byte, C's bool.
    let permitted = unsafe { *value.cast::<u8>() } != 0;
    option.store(!permitted, Ordering::Relaxed);
    0
}

unsafe extern "C" fn getopt(
    fid: *mut sys::fid,
    _level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut usize,
) -> c_int {
    // SAFETY: libfabric calls an object's own table with that object.
    let ep = unsafe { Ep::of(fid) };
    // SAFETY: the caller says how much room it gives.
    let room = unsafe { &mut *len };
    let settings = &ep.shared.settings;
    let bytes = match name {
        name if name as u32 == sys::FI_OPT_MAX_RMA_SIZE => {
            (settings.max_rma_bytes as usize).to_ne_bytes().to_vec()
        }
        sys::FI_OPT_EFA_EMULATED_WRITE => vec![u8::from(settings.emulated_write)],
        _ => return fail(sys::FI_ENOPROTOOPT),
    };
    if *room < bytes.len() {
        return fail(sys::FI_ETOOSMALL);
    }
    *room = bytes.len();
    // SAFETY: there is room, as was just checked.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.cast(), bytes.len()) };
    0
}

unsafe extern "C" fn writemsg(ep: *mut sys::fid_ep, message: *const sys::fi_msg_rma, flags: u64) -> isize {
    // SAFETY: libfabric's contract, passed on.
    unsafe { post(ep, message, flags, Kind::Write) }
}

unsafe extern "C" fn readmsg(ep: *mut sys::fid_ep, message: *const sys::fi_msg_rma, flags: u64) -> isize {
    // SAFETY: libfabric's contract, passed on.
    unsafe { post(ep, message, flags, Kind::Read) }
}

/// # Safety
/// An open endpoint, and a message whose arrays have as many entries as it says.
unsafe fn post(ep: *mut sys::fid_ep, message: *const sys::fi_msg_rma, flags: u64, kind: Kind) -> isize {
    // SAFETY: by this function's contract.
    let ep = unsafe { Ep::of(ep) };
    // SAFETY: by this function's contract.
    let post = unsafe { numbers(&*message, flags, kind) };
    match ep.shared.enter().post(post) {
        Ok(true) => 0,
        Ok(false) => fail(sys::FI_EAGAIN) as isize,
        Err(broken) => {
            ep.shared.log.broken(&broken);
            fail(broken.errno) as isize
        }
    }
}

/// The first of each array, and how many there are.
///
/// # Safety
/// The arrays have as many entries as the message says.
unsafe fn numbers(message: &sys::fi_msg_rma, flags: u64, kind: Kind) -> Post {
    let empty = sys::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    // SAFETY: null, or at least one entry, if there is one.
    let iov = unsafe { message.msg_iov.as_ref() }.filter(|_| message.iov_count > 0).unwrap_or(&empty);
    // SAFETY: as above.
    let descriptor = unsafe { message.desc.as_ref() }.filter(|_| message.iov_count > 0);
    let nowhere = sys::fi_rma_iov { addr: 0, len: 0, key: 0 };
    // SAFETY: as above.
    let remote =
        unsafe { message.rma_iov.as_ref() }.filter(|_| message.rma_iov_count > 0).unwrap_or(&nowhere);
    Post {
        kind,
        iovs: message.iov_count,
        local: iov.iov_base as u64,
        len: iov.iov_len as u64,
        descriptor: descriptor.map_or(0, |descriptor| *descriptor as usize),
        rma_iovs: message.rma_iov_count,
        remote: remote.addr,
        remote_len: remote.len as u64,
        key: remote.key,
        target: message.addr,
        context: message.context as usize,
        data: message.data,
        flags,
    }
}
