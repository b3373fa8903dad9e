//! A libfabric provider that enforces EFA's rules instead of being kind. For tests only.
//!
//! The providers that run on any machine (`tcp`, `shm`) forgive: they take a write without a descriptor, keep order, never
//! say "try again", and let a stranger write. EFA does none of that, and few machines have one. This provider is loaded by
//! libfabric like any other (`FI_PROVIDER_PATH=+/path/to/libbaton_strict_fi.so`, provider name `strict`), moves bytes between
//! real processes of one host, and breaks whoever relies on kindness:
//!
//! ```text
//!   initiator                                                    target
//!  fi_writemsg ─ rules ─► ready (shuffled) ══ unix socket ══► rules ─► held ─► tail, head, then the completion
//!      │  refused: error + log line    ▲ source is read here     │ refused: error completion + log line
//!      └ EAGAIN (credits, or a whim)   └── ack: accepted, or placed if FI_DELIVERY_COMPLETE ──┘
//! ```
//!
//! What it advertises (`info`): an RDM endpoint, FI_MSG and FI_RMA; registration by virtual address, of allocated memory, with
//! the provider's keys, local descriptors needed; FI_CONTEXT2; 4 bytes of completion data; one local and one remote iov; no
//! ordering; manual progress; EFA's address format.
//!
//! What it refuses is the list `rules::Rule`; each refusal is an error to the caller and a line in the log file, so
//! that a test can say at its end that nothing was violated. What it does to those who obey: delivers in any order, the end
//! of a write before its beginning; completes in any order; says FI_EAGAIN at the credit limit and sometimes before; holds
//! what is accepted for some rounds of progress; keeps posts with FI_MORE until one without it comes.
//!
//! Its settings are environment variables (`settings::Settings`), as for libfabric's own providers.
//!
//! # Trust
//! Its sockets are open to every process of the host. It belongs into tests and nowhere else; libfabric loads it only when
//! told to.

mod context;
mod info;
mod link;
mod log;
mod memory;
mod nic;
mod objects;
mod queue;
mod rules;
mod settings;
mod sys;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::{Arc, OnceLock};

use settings::Settings;

/// `FI_VERSION(2, 1)`: the headers that the bindings come from.
const VERSION: u32 = 2 << 16 | 1;

static SETTINGS: OnceLock<Option<Arc<Settings>>> = OnceLock::new();

/// What libfabric reads of a provider. It writes into the context, and hands the pointer back to no one else.
struct Provider(std::cell::UnsafeCell<sys::fi_provider>);

// SAFETY: this crate only takes its address; libfabric, which writes to it, does so under its own lock.
unsafe impl Sync for Provider {}

static PROVIDER: Provider = Provider(std::cell::UnsafeCell::new(sys::fi_provider {
    version: VERSION,
    fi_version: VERSION,
    context: sys::fi_context { internal: [std::ptr::null_mut(); 4] },
    name: info::PROVIDER_NAME.as_ptr(),
    getinfo: Some(info::getinfo),
    fabric: Some(objects::fabric::open),
    cleanup: Some(cleanup),
}));

unsafe extern "C" fn cleanup() {}

/// The settings of this process, read once; `None` when they make no sense, which was said on standard error.
fn settings() -> Option<&'static Arc<Settings>> {
    SETTINGS.get_or_init(|| Settings::from_env().map(Arc::new).map_err(|e| log::complain(&e)).ok()).as_ref()
}

/// What libfabric calls after loading.
#[unsafe(no_mangle)]
pub extern "C" fn fi_prov_ini() -> *mut sys::fi_provider {
    if settings().is_none() { std::ptr::null_mut() } else { PROVIDER.0.get() }
}
