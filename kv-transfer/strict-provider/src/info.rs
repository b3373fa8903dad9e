//! `fi_getinfo`: what is offered, and to whom.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use crate::settings::Settings;
use crate::sys;
use crate::wire::Address;

pub(crate) const PROVIDER_NAME: &CStr = c"strict";
/// More than a message's real limit, which is FI_OPT_MAX_RMA_SIZE: EFA's attributes speak of messages of all kinds.
const ATTRIBUTE_OVER_LIMIT: u64 = 4;
/// Room after each structure for fields that a newer libfabric appended to it.
const NEWER_FIELDS_BYTES: usize = 256;

const CAPS: u64 = (sys::FI_MSG
    | sys::FI_RMA
    | sys::FI_READ
    | sys::FI_WRITE
    | sys::FI_SEND
    | sys::FI_RECV
    | sys::FI_REMOTE_READ
    | sys::FI_REMOTE_WRITE) as u64
    | sys::FI_LOCAL_COMM
    | sys::FI_REMOTE_COMM;

unsafe extern "C" {
    // libfabric frees what getinfo returns with C's `free`.
    fn calloc(count: usize, size: usize) -> *mut c_void;
    fn strdup(string: *const c_char) -> *mut c_char;
}

pub(crate) unsafe extern "C" fn getinfo(
    _version: u32,
    node: *const c_char,
    _service: *const c_char,
    _flags: u64,
    hints: *const sys::fi_info,
    info: *mut *mut sys::fi_info,
) -> c_int {
    let Some(settings) = crate::settings() else { return -(sys::FI_ENODATA as c_int) };
    // SAFETY: libfabric hands null or a valid entry.
    let hints = unsafe { hints.as_ref() };
    // An address of IP is no address of ours.
    let Some(wish) = Wish::of(hints).filter(|wish| node.is_null() && wish.granted(settings)) else {
        return -(sys::FI_ENODATA as c_int);
    };
    let mut list = ptr::null_mut();
    for device in (0..settings.devices).rev() {
        let Some(made) = make(settings, &wish, device) else { return -(sys::FI_ENOMEM as c_int) };
        // SAFETY: just made, and nobody else has it.
        unsafe { (*made).next = list };
        list = made;
    }
    // SAFETY: libfabric gives a place for the answer.
    unsafe { *info = list };
    0
}

/// What the application says it wants and can do. Without hints: everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) caps: u64,
    pub(crate) mode: u64,
    pub(crate) mr_mode: u32,
    pub(crate) ep_type: u32,
    pub(crate) addr_format: u32,
    pub(crate) op_flags: u64,
    pub(crate) msg_order: u64,
    pub(crate) threading: u32,
    pub(crate) progress: u32,
    pub(crate) data_bytes: usize,
    pub(crate) any: bool,
}

impl Wish {
    fn of(hints: Option<&sys::fi_info>) -> Option<Self> {
        let mut wish = Self {
            caps: 0,
            mode: 0,
            mr_mode: 0,
            ep_type: 0,
            addr_format: 0,
            op_flags: 0,
            msg_order: 0,
            threading: 0,
            progress: 0,
            data_bytes: 0,
            any: hints.is_none(),
        };
        let Some(hints) = hints else { return Some(wish) };
        (wish.caps, wish.mode, wish.addr_format) = (hints.caps, hints.mode, hints.addr_format);
        // SAFETY: null or valid, as every pointer of the hints.
        if let Some(endpoint) = unsafe { hints.ep_attr.as_ref() } {
            wish.ep_type = endpoint.type_;
        }
        // SAFETY: as above.
        if let Some(domain) = unsafe { hints.domain_attr.as_ref() } {
            wish.mr_mode = domain.mr_mode as u32;
            wish.threading = domain.threading;
            // SAFETY: both names of the union are the same enumeration.
            wish.progress = unsafe { domain.__bindgen_anon_1.progress };
            wish.data_bytes = domain.cq_data_size;
        }
        // SAFETY: as above.
        if let Some(transmit) = unsafe { hints.tx_attr.as_ref() } {
            (wish.op_flags, wish.msg_order) = (transmit.op_flags, transmit.msg_order);
        }
        Some(wish)
    }

    fn granted(&self, settings: &Settings) -> bool {
        if self.any {
            return true;
        }
        let caps = CAPS | if settings.hmem { sys::FI_HMEM } else { 0 };
        let mut op_flags = u64::from(sys::FI_COMPLETION | sys::FI_TRANSMIT_COMPLETE);
        if settings.delivery {
            op_flags |= u64::from(sys::FI_DELIVERY_COMPLETE);
        }
        let needed = mr_mode(settings, self.wants_hmem());
        self.caps & !caps == 0
            && self.mode & sys::FI_CONTEXT2 != 0
            && self.mr_mode & needed == needed
            && [sys::FI_EP_UNSPEC, sys::FI_EP_RDM].contains(&self.ep_type)
            && [sys::FI_FORMAT_UNSPEC, sys::FI_ADDR_EFA].contains(&self.addr_format)
            && self.op_flags & !op_flags == 0
            && self.msg_order == 0
            && [sys::FI_THREAD_UNSPEC, sys::FI_THREAD_DOMAIN].contains(&self.threading)
            && [sys::FI_PROGRESS_UNSPEC, sys::FI_PROGRESS_MANUAL].contains(&self.progress)
            && self.data_bytes <= size_of::<u32>()
    }

    fn wants_hmem(&self) -> bool {
        self.caps & sys::FI_HMEM != 0
    }
}

fn mr_mode(settings: &Settings, hmem: bool) -> u32 {
    let mut mode = sys::FI_MR_VIRT_ADDR | sys::FI_MR_ALLOCATED | sys::FI_MR_PROV_KEY;
    if settings.mr_local {
        mode |= sys::FI_MR_LOCAL;
    }
    if hmem {
        mode |= sys::FI_MR_HMEM;
    }
    mode
}

/// A zeroed structure that libfabric may free, and may read a newer version of.
fn zeroed<T>() -> Option<&'static mut T> {
    // SAFETY: asking for memory.
    let memory = unsafe { calloc(1, size_of::<T>() + NEWER_FIELDS_BYTES) }.cast::<T>();
    // SAFETY: null, or large and aligned enough (malloc's promise), ours alone, and zero is a value of these C structures.
    unsafe { memory.as_mut() }
}

fn name(text: &CStr) -> *mut c_char {
    // SAFETY: a string that ends with NUL.
    unsafe { strdup(text.as_ptr()) }
}

/// The entry of one NIC. On want of memory what was made is lost, as the process soon will be.
fn make(settings: &Settings, wish: &Wish, device: u32) -> Option<*mut sys::fi_info> {
    let info = zeroed::<sys::fi_info>()?;
    info.caps = CAPS | if wish.wants_hmem() { sys::FI_HMEM } else { 0 };
    info.mode = sys::FI_CONTEXT2;
    info.addr_format = sys::FI_ADDR_EFA;
    let source = zeroed::<Address>()?;
    *source = Address::new(0, 0);
    info.src_addr = ptr::from_mut(source).cast();
    info.src_addrlen = Address::BYTES;
    info.tx_attr = transmit(settings, wish, info.caps)?;
    let receive = zeroed::<sys::fi_rx_attr>()?;
    (receive.caps, receive.mode) = (info.caps, info.mode);
    (receive.size, receive.iov_limit) = (settings.tx_size, 1);
    info.rx_attr = receive;
    let endpoint = zeroed::<sys::fi_ep_attr>()?;
    endpoint.type_ = sys::FI_EP_RDM;
    endpoint.max_msg_size = (settings.max_rma_bytes * ATTRIBUTE_OVER_LIMIT) as usize;
    (endpoint.tx_ctx_cnt, endpoint.rx_ctx_cnt) = (1, 1);
    info.ep_attr = endpoint;
    info.domain_attr = domain(settings, wish, device)?;
    let fabric = zeroed::<sys::fi_fabric_attr>()?;
    fabric.name = name(PROVIDER_NAME);
    fabric.prov_version = crate::VERSION;
    info.fabric_attr = fabric;
    Some(info)
}

fn transmit(settings: &Settings, wish: &Wish, caps: u64) -> Option<*mut sys::fi_tx_attr> {
    let transmit = zeroed::<sys::fi_tx_attr>()?;
    (transmit.caps, transmit.mode, transmit.op_flags) = (caps, sys::FI_CONTEXT2, wish.op_flags);
    (transmit.size, transmit.iov_limit, transmit.rma_iov_limit) = (settings.tx_size, 1, 1);
    Some(transmit)
}

fn domain(settings: &Settings, wish: &Wish, device: u32) -> Option<*mut sys::fi_domain_attr> {
    let domain = zeroed::<sys::fi_domain_attr>()?;
    domain.name = name(&CString::new(format!("strict{device}")).ok()?);
    domain.threading = sys::FI_THREAD_DOMAIN;
    domain.control_progress = sys::FI_PROGRESS_MANUAL;
    domain.__bindgen_anon_1.progress = sys::FI_PROGRESS_MANUAL;
    // As EFA says of itself, and as for EFA it is no protection of the completion queue.
    domain.resource_mgmt = sys::FI_RM_ENABLED;
    domain.av_type = sys::FI_AV_TABLE;
    domain.mr_mode = mr_mode(settings, wish.wants_hmem()) as c_int;
    domain.mr_key_size = size_of::<u32>();
    domain.cq_data_size = size_of::<u32>();
    (domain.cq_cnt, domain.ep_cnt) = (1, 1);
    (domain.tx_ctx_cnt, domain.rx_ctx_cnt) = (1, 1);
    (domain.max_ep_tx_ctx, domain.max_ep_rx_ctx) = (1, 1);
    domain.mr_iov_limit = 1;
    domain.mr_cnt = 1 << 16;
    domain.caps = sys::FI_LOCAL_COMM | sys::FI_REMOTE_COMM;
    Some(domain)
}
