//! How UCX is told to behave, through its own configuration; the process's environment is left alone. What it does before
//! it can be told is [`guest`](super::guest)'s.
//!
//! `UCX_*` variables of the environment still count for whatever is not set here: they are the operator's.

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::ptr;

use super::devices;
use super::library::Library;
use super::sys;

/// What a library that is a guest in another's process leaves alone, and what this crate's use needs. An older UCX may not
/// know one of them, and then has nothing to turn off.
const ALWAYS: [(&str, &str); 7] = [
    // No handlers for crashes, no debugger, no freezing of the process.
    ("HANDLE_ERRORS", "none"),
    // No cache of what kind of memory an address is, for which the allocator is hooked: every operation says it.
    ("MEMTYPE_CACHE", "n"),
    // No cache of registrations, for which munmap is hooked: the pool is registered once.
    ("RCACHE_ENABLE", "n"),
    // Without these, UCX does not take shared memory for endpoints that are to notice a peer's death.
    ("POSIX_ERROR_HANDLING", "y"),
    ("SYSV_ERROR_HANDLING", "y"),
    // Over tcp, UCX makes puts of messages of this size, and its default of 8 KiB costs three times the processor time of
    // this. Each connection has a buffer of it in either direction.
    ("TCP_TX_SEG_SIZE", "128k"),
    ("TCP_RX_SEG_SIZE", "128k"),
];

/// A configuration to start a context with.
pub(super) struct Settings {
    library: Library,
    pub(super) raw: *mut sys::ucp_config_t,
}

impl Settings {
    pub(super) fn new(library: Library, transports: Option<&str>, ip: IpAddr) -> Result<Self, String> {
        let mut raw = ptr::null_mut();
        // SAFETY: no prefix and no file are allowed; `raw` is a place for the answer.
        let status = unsafe { (library.api.ucp_config_read)(ptr::null(), ptr::null(), &mut raw) };
        if status != sys::UCS_OK || raw.is_null() {
            return Err(format!("its configuration cannot be read: {}", library.text(status)));
        }
        let settings = Self { library, raw };
        settings.keep_quiet();
        for (name, value) in ALWAYS {
            if let Err(reason) = settings.set(name, value) {
                tracing::debug!(name, value, reason, "UCX does not know a setting");
            }
        }
        if let Some(transports) = transports {
            settings.set("TLS", transports)?;
        }
        let devices = devices::for_address(ip);
        if devices.is_empty() {
            return Err(format!("no network interface has the address {ip}"));
        }
        settings.set("NET_DEVICES", &devices.join(","))?;
        settings.set("TCP_AF_PRIO", if ip.is_ipv6() { "inet6,inet" } else { "inet,inet6" })?;
        Ok(settings)
    }

    /// UCX prints what goes wrong on standard output, which may carry something else, and says it again by a status. So it
    /// prints nothing, unless somebody chose a level (`UCX_LOG_LEVEL`).
    fn keep_quiet(&self) {
        let mut level = [0u8; 32];
        let (name, len) = (c"LOG_LEVEL", level.len());
        // SAFETY: the name ends with NUL, and there is room for `len` bytes.
        let status = unsafe {
            (self.library.api.ucs_global_opts_get_value)(name.as_ptr(), level.as_mut_ptr().cast(), len)
        };
        let level = CStr::from_bytes_until_nul(&level).unwrap_or_default();
        if status == sys::UCS_OK && level.to_bytes().eq_ignore_ascii_case(b"warn") {
            let quiet = self.set("LOG_LEVEL", "fatal");
            quiet.unwrap_or_else(|reason| tracing::debug!(reason, "UCX may print"));
        }
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let refused = |reason: &dyn std::fmt::Display| format!("setting {name} to `{value}`: {reason}");
        let text = |text: &str| CString::new(text).map_err(|error| refused(&error));
        let (c_name, c_value): (CString, CString) = (text(name)?, text(value)?);
        let (c_name, c_value): (&CStr, &CStr) = (&c_name, &c_value);
        // SAFETY: the configuration is open, and both strings end with NUL and are only read during the call.
        let status =
            unsafe { (self.library.api.ucp_config_modify)(self.raw, c_name.as_ptr(), c_value.as_ptr()) };
        if status == sys::UCS_OK { Ok(()) } else { Err(refused(&self.library.text(status))) }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // SAFETY: it came from ucp_config_read and is released once; contexts keep their own copy.
        unsafe { (self.library.api.ucp_config_release)(self.raw) };
    }
}
