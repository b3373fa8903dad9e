//! Notifications: the immediates of a request's writes.

use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;

use super::agent::{Agent, Backend};
use super::object::{Object, check};
use super::sys;
use crate::FabricError;

/// First bytes of a notification of ours: what it is, and its version.
const MAGIC: [u8; 4] = *b"BKV1";
/// Immediates of one notification; as many as writes of one request.
pub(super) const MAX_IMMEDIATES: usize = 64;

/// Writes a notification into `message`.
pub(super) fn encode(immediates: &[u32], message: &mut Vec<u8>) {
    debug_assert!((1..=MAX_IMMEDIATES).contains(&immediates.len()));
    message.clear();
    message.extend_from_slice(&MAGIC);
    immediates.iter().for_each(|immediate| message.extend_from_slice(&immediate.to_le_bytes()));
}

/// The immediates of a notification, which any peer may have made up.
pub(super) fn decode(message: &[u8]) -> Result<impl Iterator<Item = u32> + '_, String> {
    let (words, rest) = match message.strip_prefix(&MAGIC) {
        Some(body) => body.as_chunks::<4>(),
        None => return Err(format!("a notification of {} bytes is not one of ours", message.len())),
    };
    if !rest.is_empty() || !(1..=MAX_IMMEDIATES).contains(&words.len()) {
        return Err(format!("a notification of {} bytes holds no number of immediates", message.len()));
    }
    Ok(words.iter().map(|&word| u32::from_le_bytes(word)))
}

/// Takes what came.
pub(super) struct Inbox {
    map: Object<sys::nixl_capi_notif_map_s>,
    options: Object<sys::nixl_capi_opt_args_s>,
    agent: Arc<Agent>,
}

impl Inbox {
    pub(super) fn new(backend: &Backend) -> Result<Self, FabricError> {
        let agent = backend.agent().clone();
        let map = Object::make(
            agent.library(),
            "create a table of notifications",
            // SAFETY: an object's address is written.
            |api, out| unsafe { api.nixl_capi_create_notif_map(out) },
            sys::NixlApi::nixl_capi_destroy_notif_map,
        )?;
        Ok(Self { map, options: backend.options()?, agent })
    }

    /// Shows each notification that came, and the name that its sender gave itself. Makes progress, and never waits.
    pub(super) fn take(&mut self, mut each: impl FnMut(&CStr, &[u8])) -> Result<(), FabricError> {
        let (api, map) = (self.agent.library(), self.map.as_ptr());
        let (agent, options) = (self.agent.as_ptr(), self.options.as_ptr());
        // SAFETY: all three are alive.
        let status = unsafe { api.nixl_capi_get_notifs(agent, map, options) };
        check("get the notifications", status)?;
        let mut names = 0;
        // SAFETY: the table is alive, and a size is written.
        check("get the notifications", unsafe { api.nixl_capi_notif_map_size(map, &mut names) })?;
        if names == 0 {
            return Ok(());
        }
        (0..names).filter_map(|index| self.name(index)).for_each(|name| self.show(name, &mut each));
        // SAFETY: the table is alive; what was borrowed from it is not used any more.
        check("clear the notifications", unsafe { api.nixl_capi_notif_map_clear(map) })
    }

    fn name(&self, index: usize) -> Option<&CStr> {
        let (api, mut name) = (self.agent.library(), ptr::null());
        // SAFETY: the table is alive; an index past the end is answered with a status.
        let status = unsafe { api.nixl_capi_notif_map_get_agent_at(self.map.as_ptr(), index, &mut name) };
        if status != sys::NIXL_CAPI_SUCCESS || name.is_null() {
            return None;
        }
        // SAFETY: a string of the table, which stays as it is until it is cleared.
        Some(unsafe { CStr::from_ptr(name) })
    }

    /// A name with a NUL inside finds nothing here: none of ours has one.
    fn show(&self, name: &CStr, each: &mut impl FnMut(&CStr, &[u8])) {
        let (api, map, mut count) = (self.agent.library(), self.map.as_ptr(), 0);
        // SAFETY: the table is alive; an unknown name is answered with a status.
        let status = unsafe { api.nixl_capi_notif_map_get_notifs_size(map, name.as_ptr(), &mut count) };
        if status != sys::NIXL_CAPI_SUCCESS {
            return;
        }
        for index in 0..count {
            let (mut data, mut len) = (ptr::null(), 0);
            // SAFETY: as above.
            let status =
                unsafe { api.nixl_capi_notif_map_get_notif(map, name.as_ptr(), index, &mut data, &mut len) };
            if status == sys::NIXL_CAPI_SUCCESS && !data.is_null() {
                // SAFETY: bytes of the table, which stays as it is until it is cleared.
                each(name, unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediates_read_back_as_written() {
        for count in [1, 2, MAX_IMMEDIATES] {
            let immediates: Vec<u32> = (0..count as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
            let mut message = vec![7; 3];
            encode(&immediates, &mut message);
            assert_eq!(decode(&message).unwrap().collect::<Vec<_>>(), immediates);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let mut long = MAGIC.to_vec();
        long.resize(4 + 4 * (MAX_IMMEDIATES + 1), 0);
        let bad: [&[u8]; 7] = [b"", b"BKV", b"BKV1", b"BKV1abc", b"BKV1abcde", b"BKV2abcd", &long];
        for message in bad {
            assert!(decode(message).is_err(), "{message:?}");
        }
    }
}
