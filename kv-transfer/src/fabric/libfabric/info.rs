//! Asking libfabric what there is. What is taken of it is decided in [`choice`](super::choice).

use std::ffi::{CStr, CString, c_char};
use std::net::IpAddr;
use std::ptr;

use super::library::Library;
use super::{locality, sys};

/// `FI_VERSION(2, 0)`: the interface that is asked for.
const API: u32 = 2 << 16;
/// Registration modes that this crate can live with; which of them hold is read back.
const MR_MODES: u32 = sys::FI_MR_LOCAL
    | sys::FI_MR_VIRT_ADDR
    | sys::FI_MR_ALLOCATED
    | sys::FI_MR_PROV_KEY
    | sys::FI_MR_ENDPOINT
    | sys::FI_MR_HMEM;
/// libfabric's name of the provider for AWS's Elastic Fabric Adapter.
pub(super) const EFA: &str = "efa";
/// The fabric of that provider that hands every operation to the device.
pub(super) const EFA_DIRECT: &str = "efa-direct";
/// Bytes of an immediate.
pub(super) const IMMEDIATE_BYTES: usize = 4;

/// An `fi_info` list of our own. What is read from it is its first entry, unless said otherwise.
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
    /// Which of the provider's fabrics.
    pub(super) fabric: String,
    /// NIC or network interface.
    pub(super) device: String,
    /// Its address, where the provider has IP addresses.
    pub(super) ip: Option<IpAddr>,
    /// Memory that is near the NIC, where that is known.
    pub(super) numa_node: Option<u32>,
    pub(super) virtual_addresses: bool,
    pub(super) provider_keys: bool,
    pub(super) bind_to_endpoint: bool,
    pub(super) key_bytes: usize,
    pub(super) max_write_bytes: u64,
    pub(super) queue_depth: usize,
    pub(super) delivery_complete: bool,
    /// Addresses are strings of varying length, not structs of one size.
    pub(super) string_addresses: bool,
    pub(super) data_bytes: usize,
    pub(super) speaks_ip: bool,
}

/// Whether a provider understands EFA's options and status codes: efa, and the strict provider of the tests.
pub(super) fn speaks_efa(provider: &str) -> bool {
    [EFA, "strict"].contains(&provider)
}

impl Facts {
    pub(super) fn speaks_efa(&self) -> bool {
        speaks_efa(&self.provider)
    }

    /// NIC or interface as people tell them apart.
    pub(super) fn label(&self) -> String {
        match self.ip {
            Some(ip) => format!("{} {ip}", self.device),
            None => self.device.clone(),
        }
    }

    /// What an operator calls it, and what both ends of a connection must have in common: the provider, but for efa's direct
    /// fabric, which has the same addresses as its other one and does not talk to it.
    pub(super) fn name(&self) -> &str {
        if self.provider == EFA && self.fabric == EFA_DIRECT { EFA_DIRECT } else { &self.provider }
    }
}

/// What is asked of libfabric.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Request<'a> {
    pub(super) provider: Option<&'a CStr>,
    pub(super) fabric: Option<&'a CStr>,
    /// Beyond messages and one-sided operations.
    pub(super) caps: u64,
    /// How completions of writes are meant.
    pub(super) op_flags: u64,
    /// For providers with IP addresses.
    pub(super) ip: Option<IpAddr>,
}

impl Info {
    /// Everything that the library finds, whether it can do what is needed or not.
    pub(super) fn everything(library: Library) -> Option<Self> {
        Self::list(library, 0)
    }

    /// One empty entry for each provider that is loaded, whether it finds a device or not.
    pub(super) fn loaded(library: Library) -> Option<Self> {
        Self::list(library, sys::FI_PROV_ATTR_ONLY)
    }

    fn list(library: Library, flags: u64) -> Option<Self> {
        let mut found = ptr::null_mut();
        // SAFETY: no node, service or hints means everything; `found` is a place for the answer.
        let code =
            unsafe { (library.get_info)(API, ptr::null(), ptr::null(), flags, ptr::null(), &mut found) };
        (code == 0 && !found.is_null()).then_some(Self { library, raw: found })
    }

    /// What libfabric offers for a request; its error number if that is nothing.
    pub(super) fn query(library: Library, request: &Request<'_>) -> Result<Self, i64> {
        // SAFETY: fi_dupinfo(NULL) is fi_allocinfo: a zeroed entry with its sub-structures.
        let hints = unsafe { (library.dup_info)(ptr::null()) };
        if hints.is_null() {
            return Err(i64::from(sys::FI_ENOMEM));
        }
        let hints = Self { library, raw: hints };
        hints.fill(request);
        let node = request.ip.and_then(|ip| CString::new(ip.to_string()).ok());
        let (node, flags) = node.as_ref().map_or((ptr::null(), 0), |node| (node.as_ptr(), sys::FI_SOURCE));
        let mut found = ptr::null_mut();
        // SAFETY: the strings outlive the call, the hints are a valid entry, `found` is a place for the answer.
        let code = unsafe { (library.get_info)(API, node, ptr::null(), flags, hints.raw, &mut found) };
        hints.fill(&Request::default());
        if code == 0 && !found.is_null() { Ok(Self { library, raw: found }) } else { Err(i64::from(code)) }
    }

    /// The entries that are exactly the provider (and fabric) asked for, each alone, in libfabric's order.
    ///
    /// libfabric's own filter is generous: asked for `tcp` it may put `tcp;ofi_rxm` first, and it takes `TCP` for `tcp`.
    pub(super) fn exactly(
        &self,
        provider: Option<&CStr>,
        fabric: Option<&CStr>,
    ) -> impl Iterator<Item = Self> {
        let same =
            |wanted: Option<&CStr>, name| wanted.is_none_or(|wanted| wanted.to_string_lossy() == text(name));
        let exact = move |entry: &&sys::fi_info| {
            // SAFETY: every entry that fi_getinfo returns has all its attributes.
            let attr = unsafe { &*entry.fabric_attr };
            same(provider, attr.prov_name) && same(fabric, attr.name)
        };
        self.entries().filter(exact).filter_map(|entry| self.copy(entry))
    }

    /// Its first entry, alone.
    pub(super) fn duplicate(&self) -> Option<Self> {
        self.entries().next().and_then(|entry| self.copy(entry))
    }

    fn copy(&self, entry: &sys::fi_info) -> Option<Self> {
        // SAFETY: a valid entry, of which fi_dupinfo copies this one alone.
        let copy = unsafe { (self.library.dup_info)(entry) };
        (!copy.is_null()).then_some(Self { library: self.library, raw: copy })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &sys::fi_info> {
        // SAFETY: null, or an entry of the list that `self` owns.
        let at = |raw: *mut sys::fi_info| unsafe { raw.as_ref() };
        std::iter::successors(at(self.raw), move |info| at(info.next))
    }

    /// Names of the providers in the list, each once, in order.
    pub(super) fn providers(&self) -> Vec<String> {
        let mut names = Vec::new();
        for entry in self.entries() {
            // SAFETY: every entry that fi_getinfo returns has all its attributes.
            let name = text(unsafe { (*entry.fabric_attr).prov_name });
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Writes what we need into the hints. Names are borrowed: fill again without before they are freed.
    fn fill(&self, request: &Request<'_>) {
        // SAFETY: fi_allocinfo's entry is valid and nobody else has it.
        let info = unsafe { &mut *self.raw };
        info.caps = u64::from(sys::FI_MSG | sys::FI_RMA) | request.caps;
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
        transmit.op_flags = request.op_flags;
        // SAFETY: as above.
        let fabric = unsafe { &mut *info.fabric_attr };
        let name = |name: Option<&CStr>| name.map_or(ptr::null_mut(), |name| name.as_ptr().cast_mut());
        (fabric.prov_name, fabric.name) = (name(request.provider), name(request.fabric));
    }

    pub(super) fn facts(&self) -> Facts {
        // SAFETY: fi_getinfo returned this entry; it lives until we free it.
        let info = unsafe { &*self.raw };
        // SAFETY: every entry that fi_getinfo returns has all its attributes.
        let (domain, endpoint) = unsafe { (&*info.domain_attr, &*info.ep_attr) };
        // SAFETY: as above.
        let (transmit, fabric) = unsafe { (&*info.tx_attr, &*info.fabric_attr) };
        let has = |bit: u32| domain.mr_mode as u32 & bit != 0;
        Facts {
            provider: text(fabric.prov_name),
            fabric: text(fabric.name),
            device: text(domain.name),
            ip: ip(info),
            numa_node: pci(info).and_then(|address| locality::numa_node(&address)),
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

/// The IP address from which an endpoint will send, if it has one.
fn ip(info: &sys::fi_info) -> Option<IpAddr> {
    // struct sockaddr_in and sockaddr_in6: the address lies behind family and port, and in the latter behind the flow.
    let (at, len) = match info.addr_format {
        sys::FI_SOCKADDR_IN => (4, 4),
        sys::FI_SOCKADDR_IN6 => (8, 16),
        _ => return None,
    };
    if info.src_addr.is_null() || info.src_addrlen < at + len {
        return None;
    }
    let mut bytes = [0u8; 16];
    // SAFETY: the entry has an address of `src_addrlen` bytes, which the range does not leave; `bytes` has room for it.
    unsafe { ptr::copy_nonoverlapping(info.src_addr.cast::<u8>().add(at), bytes.as_mut_ptr(), len) };
    let v4: [u8; 4] = std::array::from_fn(|i| bytes[i]);
    Some(if len == 4 { v4.into() } else { bytes.into() })
}

/// Where a NIC is plugged in, as the kernel writes it, if the provider says.
fn pci(info: &sys::fi_info) -> Option<String> {
    // SAFETY: null, or a description of the NIC that belongs to the entry.
    let nic = unsafe { info.nic.as_ref() }?;
    // SAFETY: as above.
    let bus = unsafe { nic.bus_attr.as_ref() }?;
    if bus.bus_type != sys::FI_BUS_PCI {
        return None;
    }
    // SAFETY: the type says which member of the union holds.
    let sys::fi_pci_attr { domain_id, bus_id, device_id, function_id } = unsafe { bus.attr.pci };
    Some(format!("{domain_id:04x}:{bus_id:02x}:{device_id:02x}.{function_id:x}"))
}

/// A string of libfabric's, empty where there is none.
pub(super) fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: names in libfabric's entries end with NUL and live as long as the entry.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}
