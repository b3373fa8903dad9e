//! Making UCX a good guest: what it takes from the process merely by being loaded is refused or given back.
//!
//! Its configuration comes too late for both, and environment variables, which would be in time, are not this library's
//! to set in a process with other threads.

use std::path::Path;

use libloading::os::unix::Library as Loaded;

use super::sys;

/// UCX's part that watches memory.
const HOOKS: &str = "libucm.so.0";

/// Loading UCX rewrites the first instructions of mmap, munmap, brk… in the C library, while other threads may be in
/// them, to watch memory that it registers. Nothing here needs that: the pool is mapped once and outlives its
/// registration. Its part for it is therefore loaded first, with its switch off, and told to start; that happens once.
///
/// # Errors
/// When that part is not there or is another one: then UCX, if it can be loaded, rewrites them.
pub(super) fn keep_hooks_out(ucx: Option<&Path>) -> Result<(), libloading::Error> {
    let beside = ucx.and_then(Path::parent).map(|folder| folder.join(HOOKS));
    let path = beside.filter(|path| path.exists()).unwrap_or_else(|| HOOKS.into());
    // SAFETY: it is a part of the UCX that is loaded next, which would load it too.
    unsafe { Loaded::new(path) }.and_then(switch_off)
}

fn switch_off(hooks: Loaded) -> Result<(), libloading::Error> {
    // SAFETY: a global of this type, of which every 1.x has the first fields alike (ucm/api/ucm.h).
    let options = unsafe { hooks.get::<*mut sys::ucm_global_config_t>(b"ucm_global_opts\0") }?;
    // SAFETY: a function that takes and returns nothing (ucm/event/event.h).
    let start = unsafe { hooks.get::<unsafe extern "C" fn()>(b"ucm_library_init\0") }?;
    // SAFETY: the symbol is the address of the global, and nobody else reads it before the start below.
    unsafe { (**options).enable_events = 0 };
    // SAFETY: it may be called any number of times, and acts once.
    unsafe { start() };
    // Stays loaded, as UCX does.
    let _ = hooks.into_raw();
    Ok(())
}

/// Loading UCX takes SIGHUP, and where it is configured so the signals of crashes; they belong to the process. The function
/// that puts the former handlers back is in every release, though in no public header: a UCX without it keeps the signals.
pub(super) fn give_signals_back(library: &Loaded) {
    // SAFETY: the symbol is a function that takes and returns nothing (ucs/debug/debug_int.h).
    let disable = unsafe { library.get::<unsafe extern "C" fn()>(b"ucs_debug_disable_signals\0") };
    match disable {
        // SAFETY: it only restores handlers, and does nothing when called again.
        Ok(disable) => unsafe { disable() },
        Err(error) => tracing::warn!(%error, "UCX keeps its signal handlers, SIGHUP's among them"),
    }
}
