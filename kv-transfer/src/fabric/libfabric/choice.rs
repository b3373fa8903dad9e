//! Which of libfabric's offers are taken, and what is said when none can be.
//!
//! A worker that was told to use a provider uses that one or does not start: to run over another without a word would be to
//! find out from the bill, or from the latency.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::net::IpAddr;

use super::info::{EFA, EFA_DIRECT, IMMEDIATE_BYTES, Info, Request, speaks_efa};
use super::library::Library;
use super::{locality, sys};
use crate::StartError;
use crate::fabric::MAX_RAILS;

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

/// The rails: of exactly the provider asked for, or of libfabric's first choice.
///
/// `rails` names devices or IP addresses. Without names there is one rail, on `ip` if the provider has IP addresses; of EFA,
/// one on each NIC that is near our memory.
pub(super) fn choose(
    library: Library,
    provider: Option<&str>,
    ip: IpAddr,
    rails: &[String],
) -> Result<Vec<Info>, StartError> {
    let refuse = |reason: String| StartError::NoProvider {
        version: library.version(),
        provider: provider.unwrap_or("any").to_owned(),
        reason,
    };
    let wanted = Wanted::parse(provider).map_err(refuse)?;
    let mut code = 0;
    let each = |&op_flags| wanted.capabilities().iter().map(move |&caps| (op_flags, caps));
    for (op_flags, caps) in COMPLETIONS.iter().flat_map(each) {
        let request = wanted.request(op_flags, caps, None);
        match offers(library, &wanted, &request) {
            Ok(found) => return chosen(library, &wanted, &request, found, ip, rails).map_err(refuse),
            Err(error) => code = error,
        }
    }
    Err(refuse(missing(library, &wanted, code)))
}

/// All offers like the first: of one provider and one fabric.
fn offers(library: Library, wanted: &Wanted, request: &Request<'_>) -> Result<Vec<Info>, i64> {
    let offers = Info::query(library, request)?;
    let mut exact: Vec<Info> = offers.exactly(wanted.provider.as_deref(), wanted.fabric.as_deref()).collect();
    let first = exact.first().ok_or_else(|| i64::from(sys::FI_ENODATA))?.facts();
    exact.retain(|info| {
        let facts = info.facts();
        // The fabrics of providers with IP addresses are their networks.
        facts.provider == first.provider && (facts.speaks_ip || facts.fabric == first.fabric)
    });
    Ok(exact)
}

fn chosen(
    library: Library,
    wanted: &Wanted,
    request: &Request<'_>,
    found: Vec<Info>,
    ip: IpAddr,
    rails: &[String],
) -> Result<Vec<Info>, String> {
    let first = found[0].facts();
    let on_ip = |ip: IpAddr| {
        let bound = offers(library, wanted, &Request { ip: Some(ip), ..*request });
        let none = |code| format!("it has no endpoint on {ip}: {}", library.error_text(code));
        bound.map_err(none).map(|mut offers| offers.swap_remove(0))
    };
    let infos = if !rails.is_empty() {
        let by_name = |name: &String| match name.parse() {
            Ok(ip) if first.speaks_ip => on_ip(ip),
            _ => on_device(&found, name),
        };
        rails.iter().map(by_name).collect::<Result<Vec<Info>, String>>()?
    } else if first.speaks_ip {
        vec![on_ip(ip)?]
    } else if first.speaks_efa() {
        nearest(found)
    } else {
        found.into_iter().take(1).collect()
    };
    if infos.len() > MAX_RAILS {
        return Err(format!("{} rails are too many: name at most {MAX_RAILS}", infos.len()));
    }
    infos.into_iter().map(usable).collect()
}

fn on_device(found: &[Info], name: &str) -> Result<Info, String> {
    let on = found.iter().find(|info| info.facts().device == name).and_then(Info::duplicate);
    on.ok_or_else(|| {
        let mut devices: Vec<String> = found.iter().map(|info| info.facts().device).collect();
        devices.dedup();
        format!("it has no device `{name}`; there are: {}", devices.join(", "))
    })
}

/// One offer of each NIC that is near our memory.
fn nearest(found: Vec<Info>) -> Vec<Info> {
    let mut devices = BTreeSet::new();
    let each: Vec<Info> = found.into_iter().filter(|info| devices.insert(info.facts().device)).collect();
    let nodes: Vec<Option<u32>> = each.iter().map(|info| info.facts().numa_node).collect();
    let near = locality::near(&nodes, &locality::memory_nodes());
    let is_near = |(index, _): &(usize, Info)| near.contains(index);
    each.into_iter().enumerate().filter(is_near).map(|(_, info)| info).collect()
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
