//! Asking libfabric what there is, and choosing.

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::ptr;

use super::library::Library;
use super::sys;
use crate::StartError;

/// `FI_VERSION(2, 0)`: the interface that is asked for.
const API: u32 = 2 << 16;
/// Registration modes that this crate can live with; which of them hold is read back.
const MR_MODES: u32 = sys::FI_MR_LOCAL
    | sys::FI_MR_VIRT_ADDR
    | sys::FI_MR_ALLOCATED
    | sys::FI_MR_PROV_KEY
    | sys::FI_MR_ENDPOINT;
/// Bytes of an immediate.
const IMMEDIATE_BYTES: usize = 4;

/// An `fi_info` list of our own; its first entry is the choice.
pub(super) struct Info {
    library: Library,
    raw: *mut sys::fi_info,
}

// SAFETY: the list is plain memory that this value owns; nothing in it belongs to a thread.
unsafe impl Send for Info {}
// SAFETY: shared access only reads the list, apart from libfabric's own calls, which do not overlap (see `Fid`).
unsafe impl Sync for Info {}

/// What is read from the chosen entry.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) provider: String,
    pub(super) virtual_addresses: bool,
    pub(super) provider_keys: bool,
    pub(super) bind_to_endpoint: bool,
    pub(super) key_bytes: usize,
    pub(super) max_write_bytes: u64,
    pub(super) queue_depth: usize,
    pub(super) delivery_complete: bool,
    /// Addresses are strings of varying length, not structs of one size.
    pub(super) string_addresses: bool,
    data_bytes: usize,
    speaks_ip: bool,
}

impl Info {
    /// The best entry of the provider that can do what is needed, bound to `ip` if it has IP addresses.
    pub(super) fn choose(library: Library, provider: Option<&str>, ip: IpAddr) -> Result<Self, StartError> {
        let no_provider = |reason: String| StartError::NoProvider {
            version: library.version(),
            provider: provider.unwrap_or("any").to_owned(),
            reason,
        };
        // Completion that means delivery makes fences exact; a provider without it is drained instead.
        let delivery = [u64::from(sys::FI_DELIVERY_COMPLETE), 0];
        let mut last = None;
        for op_flags in delivery {
            match Self::query(library, provider, None, op_flags) {
                Ok(info) if info.facts().speaks_ip => {
                    return Self::query(library, provider, Some(ip), op_flags).map_err(no_provider);
                }
                Ok(info) => return Ok(info),
                Err(reason) => last = Some(reason),
            }
        }
        Err(no_provider(last.unwrap_or_default()))
    }

    /// Everything that the library finds, whether it can do what is needed or not.
    pub(super) fn everything(library: Library) -> Option<Self> {
        let mut found = ptr::null_mut();
        // SAFETY: no node, service or hints means everything; `found` is a place for the answer.
        let code = unsafe { (library.get_info)(API, ptr::null(), ptr::null(), 0, ptr::null(), &mut found) };
        (code == 0 && !found.is_null()).then_some(Self { library, raw: found })
    }

    fn query(
        library: Library,
        provider: Option<&str>,
        ip: Option<IpAddr>,
        op_flags: u64,
    ) -> Result<Self, String> {
        let name = provider.map(CString::new).transpose().map_err(|error| error.to_string())?;
        let node = ip.and_then(|ip| CString::new(ip.to_string()).ok());
        // SAFETY: fi_dupinfo(NULL) is fi_allocinfo: a zeroed entry with its sub-structures.
        let hints = unsafe { (library.dup_info)(ptr::null()) };
        if hints.is_null() {
            return Err("out of memory".to_owned());
        }
        let hints = Self { library, raw: hints };
        hints.fill(name.as_deref(), op_flags);
        let (node, flags) = node.as_ref().map_or((ptr::null(), 0), |node| (node.as_ptr(), sys::FI_SOURCE));
        let mut found = ptr::null_mut();
        // SAFETY: the strings outlive the call, the hints are a valid entry, `found` is a place for the answer.
        let code = unsafe { (library.get_info)(API, node, ptr::null(), flags, hints.raw, &mut found) };
        hints.fill(None, 0);
        if code != 0 || found.is_null() {
            let text = library.error_text(code.into());
            return Err(match code.unsigned_abs() {
                sys::FI_ENODATA => {
                    format!("it offers no connectionless endpoint with one-sided writes here: {text}")
                }
                _ => text,
            });
        }
        let info = Self { library, raw: found };
        let facts = info.facts();
        if facts.data_bytes < IMMEDIATE_BYTES {
            return Err(format!("it carries {} bytes of completion data, 4 are needed", facts.data_bytes));
        }
        if facts.queue_depth == 0 || facts.max_write_bytes == 0 {
            return Err("it states no queue depth or no message size".to_owned());
        }
        Ok(info)
    }

    /// Writes what we need into the hints. The name is borrowed: fill again with `None` before they are freed.
    fn fill(&self, provider: Option<&CStr>, op_flags: u64) {
        // SAFETY: fi_allocinfo's entry is valid and nobody else has it.
        let info = unsafe { &mut *self.raw };
        info.caps = u64::from(sys::FI_MSG | sys::FI_RMA);
        info.mode = sys::FI_CONTEXT | sys::FI_CONTEXT2;
        // SAFETY: fi_allocinfo allocates each of the sub-structures.
        let endpoint = unsafe { &mut *info.ep_attr };
        endpoint.type_ = sys::FI_EP_RDM;
        // SAFETY: as above.
        let domain = unsafe { &mut *info.domain_attr };
        domain.mr_mode = MR_MODES as i32;
        domain.threading = sys::FI_THREAD_DOMAIN;
        domain.cq_data_size = IMMEDIATE_BYTES;
        // SAFETY: as above.
        let transmit = unsafe { &mut *info.tx_attr };
        transmit.op_flags = op_flags;
        // SAFETY: as above.
        let fabric = unsafe { &mut *info.fabric_attr };
        fabric.prov_name = provider.map_or(ptr::null_mut(), |name| name.as_ptr().cast_mut());
    }

    pub(super) fn facts(&self) -> Facts {
        // SAFETY: fi_getinfo returned this entry; it lives until we free it.
        let info = unsafe { &*self.raw };
        // SAFETY: every entry that fi_getinfo returns has all its attributes.
        let (domain, endpoint) = unsafe { (&*info.domain_attr, &*info.ep_attr) };
        // SAFETY: as above.
        let (transmit, fabric) = unsafe { (&*info.tx_attr, &*info.fabric_attr) };
        // SAFETY: the provider's name is a NUL-terminated string of the entry.
        let provider = unsafe { CStr::from_ptr(fabric.prov_name) };
        let has = |bit: u32| domain.mr_mode as u32 & bit != 0;
        Facts {
            provider: provider.to_string_lossy().into_owned(),
            virtual_addresses: has(sys::FI_MR_VIRT_ADDR),
            provider_keys: has(sys::FI_MR_PROV_KEY),
            bind_to_endpoint: has(sys::FI_MR_ENDPOINT),
            key_bytes: domain.mr_key_size,
            max_write_bytes: endpoint.max_msg_size as u64,
            queue_depth: transmit.size,
            delivery_complete: transmit.op_flags & u64::from(sys::FI_DELIVERY_COMPLETE) != 0,
            data_bytes: domain.cq_data_size,
            string_addresses: info.addr_format == sys::FI_ADDR_STR,
            speaks_ip: [sys::FI_SOCKADDR_IN, sys::FI_SOCKADDR_IN6].contains(&info.addr_format),
        }
    }

    pub(super) fn raw(&self) -> *mut sys::fi_info {
        self.raw
    }

    pub(super) fn library(&self) -> Library {
        self.library
    }
}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: the list came from fi_getinfo or fi_dupinfo and is freed once; borrowed names were taken out.
        unsafe { (self.library.free_info)(self.raw) };
    }
}
