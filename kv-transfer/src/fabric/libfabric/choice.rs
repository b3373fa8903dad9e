//! Which of libfabric's offers is taken, and what is said when none can be.
//!
//! A worker that was told to use a provider uses that one or does not start: to run over another without a word would be to
//! find out from the bill, or from the latency.

use std::ffi::{CStr, CString};
use std::net::IpAddr;

use super::info::{EFA, EFA_DIRECT, IMMEDIATE_BYTES, Info, Request, speaks_efa};
use super::library::Library;
use super::sys;
use crate::StartError;

/// Completion that means delivery makes fences exact; a provider without it is drained instead.
const COMPLETIONS: [u32; 2] = [sys::FI_DELIVERY_COMPLETE, 0];

/// A provider as the operator named it.
struct Wanted {
    provider: Option<CString>,
    fabric: Option<CString>,
}

impl Wanted {
    fn parse(name: Option<&str>) -> Result<Self, String> {
        let name_of = |name: &str| CString::new(name).map_err(|error| error.to_string());
        Ok(match name {
            None => Self { provider: None, fabric: None },
            // `efa` leaves it to libfabric which of the two fabrics comes first: the direct one, where the device can do it.
            Some(EFA_DIRECT) => Self { provider: Some(name_of(EFA)?), fabric: Some(name_of(EFA_DIRECT)?) },
            Some(name) => Self { provider: Some(name_of(name)?), fabric: None },
        })
    }

    /// Capabilities to ask for, best first. FI_HMEM is what registering GPU memory will need; the pool is host memory today, and
    /// a provider without it will do. It is asked of EFA alone: it makes libfabric's shm do without cross-memory copies.
    fn capabilities(&self) -> &'static [u64] {
        let efa = self.provider.as_deref().is_some_and(|name| speaks_efa(&name.to_string_lossy()));
        if efa { &[sys::FI_HMEM, 0] } else { &[0] }
    }

    fn request(&self, op_flags: u32, caps: u64, ip: Option<IpAddr>) -> Request<'_> {
        let (provider, fabric) = (self.provider.as_deref(), self.fabric.as_deref());
        Request { provider, fabric, caps, op_flags: op_flags.into(), ip }
    }
}

/// The best offer of exactly the provider asked for, or of any; bound to `ip` if it has IP addresses.
pub(super) fn choose(library: Library, provider: Option<&str>, ip: IpAddr) -> Result<Info, StartError> {
    let refuse = |reason: String| StartError::NoProvider {
        version: library.version(),
        provider: provider.unwrap_or("any").to_owned(),
        reason,
    };
    let wanted = Wanted::parse(provider).map_err(refuse)?;
    let mut code = 0;
    let each = |&op_flags| wanted.capabilities().iter().map(move |&caps| (op_flags, caps));
    for (op_flags, caps) in COMPLETIONS.iter().flat_map(each) {
        match offer(library, &wanted, &wanted.request(op_flags, caps, None)) {
            Ok(info) if info.facts().speaks_ip => {
                let bound = offer(library, &wanted, &wanted.request(op_flags, caps, Some(ip)));
                return bound
                    .map_err(|code| format!("it has no endpoint on {ip}: {}", library.error_text(code)))
                    .and_then(usable)
                    .map_err(refuse);
            }
            Ok(info) => return usable(info).map_err(refuse),
            Err(error) => code = error,
        }
    }
    Err(refuse(missing(library, &wanted, code)))
}

fn offer(library: Library, wanted: &Wanted, request: &Request<'_>) -> Result<Info, i64> {
    let offers = Info::query(library, request)?;
    let exact = offers.exactly(wanted.provider.as_deref(), wanted.fabric.as_deref());
    exact.ok_or_else(|| i64::from(sys::FI_ENODATA))
}

fn usable(info: Info) -> Result<Info, String> {
    let facts = info.facts();
    if facts.data_bytes < IMMEDIATE_BYTES {
        return Err(format!("it carries {} bytes of completion data, 4 are needed", facts.data_bytes));
    }
    if facts.queue_depth == 0 || facts.max_write_bytes == 0 {
        return Err("it states no queue depth or no message size".to_owned());
    }
    Ok(info)
}

/// Why nothing was offered, as exactly as can be found out, and what there is instead.
fn missing(library: Library, wanted: &Wanted, code: i64) -> String {
    let loaded = Info::loaded(library).map(|all| all.providers()).unwrap_or_default();
    let found = Info::everything(library).map(|all| all.providers()).unwrap_or_default();
    let name = wanted.provider.as_deref().map(CStr::to_string_lossy);
    let why = match name.as_deref() {
        Some(name) if found.iter().any(|found| found == name) => {
            "its endpoints are not connectionless ones with one-sided writes that this crate can use"
        }
        Some(name) if loaded.iter().any(|loaded| loaded == name) => {
            "the provider is loaded, and finds no device here that it can drive"
        }
        Some(_) => {
            "no provider of exactly this name is loaded: it is not part of this libfabric, or its plug-in (in libfabric's own \
             folder or where FI_PROVIDER_PATH points) found no device and stayed away"
        }
        None => "no provider has a connectionless endpoint with one-sided writes",
    };
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!(
        "{why} [{}]; endpoints were found of: {}; loaded: {}; RDMA devices of this machine ({RDMA_DEVICES}): {}",
        library.error_text(code),
        list(&found),
        list(&loaded),
        list(&rdma_devices())
    )
}

/// Where the kernel lists them, EFA's among them.
const RDMA_DEVICES: &str = "/sys/class/infiniband";

fn rdma_devices() -> Vec<String> {
    let entries = std::fs::read_dir(RDMA_DEVICES).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
