//! The agent, its backend, and the memory registered with it. What is made from the agent holds it.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;

use super::library::Library;
use super::object::{Object, check, fault};
use super::sys;
use crate::FabricError;
use crate::memory::PoolMemory;

pub(super) struct Agent(Object<sys::nixl_capi_agent_s>);

/// The plugin that moves the bytes.
pub(super) struct Backend {
    raw: Object<sys::nixl_capi_backend_s>,
    agent: Arc<Agent>,
}

/// The pool, registered once.
pub(super) struct Registration {
    list: Object<sys::nixl_capi_reg_dlist_s>,
    options: Object<sys::nixl_capi_opt_args_s>,
    agent: Arc<Agent>,
    _pool: PoolMemory,
}

unsafe extern "C" {
    /// For what the C API allocates with `malloc` and hands over.
    fn free(pointer: *mut c_void);
}

impl Agent {
    /// An agent without locks or threads of its own: calls must not overlap, and they make the progress.
    pub(super) fn create(library: Library, name: &CStr) -> Result<Arc<Self>, FabricError> {
        let config = sys::nixl_capi_agent_config_t {
            enable_prog_thread: false,
            enable_listen_thread: false,
            listen_port: 0,
            thread_sync: sys::NIXL_CAPI_THREAD_SYNC_NONE,
            num_workers: 1,
            pthr_delay_us: 0,
            lthr_delay_us: 0,
            capture_telemetry: false,
        };
        let agent = Object::make(
            library,
            "create an agent",
            // SAFETY: name and configuration live during the call, which copies them.
            |api, out| unsafe { api.nixl_capi_create_configured_agent(name.as_ptr(), &config, out) },
            sys::NixlApi::nixl_capi_destroy_agent,
        )?;
        Ok(Arc::new(Self(agent)))
    }

    /// Names of the backends whose plugins lie beside the library.
    pub(super) fn plugins(&self) -> Result<Vec<String>, FabricError> {
        let api = self.library();
        let list = Object::make(
            api,
            "list the plugins",
            // SAFETY: the agent is alive.
            |api, out| unsafe { api.nixl_capi_get_available_plugins(self.as_ptr(), out) },
            sys::NixlApi::nixl_capi_destroy_string_list,
        )?;
        let mut count = 0;
        // SAFETY: the list is alive, and a size is written.
        check("list the plugins", unsafe { api.nixl_capi_string_list_size(list.as_ptr(), &mut count) })?;
        let name = |index| {
            let mut name = ptr::null();
            // SAFETY: as above; an index past the end is answered with a status.
            let status = unsafe { api.nixl_capi_string_list_get(list.as_ptr(), index, &mut name) };
            check("list the plugins", status)?;
            // SAFETY: a string of the list, which lives on.
            Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
        };
        (0..count).map(name).collect()
    }

    /// What peers must have to write here: how to connect, and the keys of all registered memory.
    pub(super) fn metadata(&self) -> Result<Vec<u8>, FabricError> {
        let (mut data, mut len) = (ptr::null_mut(), 0);
        // SAFETY: the agent is alive; address and length of an allocation are written.
        let status = unsafe { self.library().nixl_capi_get_local_md(self.as_ptr(), &mut data, &mut len) };
        check("get the local metadata", status)?;
        // SAFETY: the call succeeded, so `len` bytes lie there.
        let metadata = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec();
        // SAFETY: allocated by malloc for us, and not used after this.
        unsafe { free(data) };
        Ok(metadata)
    }

    /// Takes over what a peer told of itself; returns the name that NIXL read in it.
    pub(super) fn load(&self, metadata: &[u8]) -> Result<CString, FabricError> {
        let (data, mut name) = (metadata.as_ptr().cast::<c_void>(), ptr::null_mut::<c_char>());
        let api = self.library();
        // SAFETY: the bytes live during the call, which copies them; the address of a string is written.
        let status = unsafe { api.nixl_capi_load_remote_md(self.as_ptr(), data, metadata.len(), &mut name) };
        check("load a peer's metadata", status)?;
        if name.is_null() {
            return Err(fault("load a peer's metadata", &"it names no agent"));
        }
        // SAFETY: the call succeeded, so a string lies there.
        let owned = unsafe { CStr::from_ptr(name) }.to_owned();
        // SAFETY: allocated by malloc for us, and not used after this.
        unsafe { free(name.cast()) };
        Ok(owned)
    }

    /// Forgets a peer and closes the connection to it.
    pub(super) fn invalidate(&self, name: &CStr) {
        // SAFETY: the agent is alive; an unknown name is answered with a status.
        let status = unsafe { self.library().nixl_capi_invalidate_remote_md(self.as_ptr(), name.as_ptr()) };
        if status != sys::NIXL_CAPI_SUCCESS {
            // NIXL drops an agent by itself when it finds it disconnected.
            tracing::debug!(?name, status, "an agent was gone already");
        }
    }

    pub(super) fn library(&self) -> Library {
        self.0.library()
    }

    pub(super) fn as_ptr(&self) -> *mut sys::nixl_capi_agent_s {
        self.0.as_ptr()
    }
}

impl Backend {
    pub(super) fn create(
        agent: &Arc<Agent>,
        plugin: &CStr,
        parameters: &[(&CStr, &CStr)],
    ) -> Result<Self, FabricError> {
        let api = agent.library();
        let table = Object::make(
            api,
            "create parameters",
            // SAFETY: an object's address is written.
            |api, out| unsafe { api.nixl_capi_create_params(out) },
            sys::NixlApi::nixl_capi_destroy_params,
        )?;
        for (key, value) in parameters {
            // SAFETY: the table is alive, the strings are copied.
            let status = unsafe { api.nixl_capi_params_add(table.as_ptr(), key.as_ptr(), value.as_ptr()) };
            check("set a parameter", status)?;
        }
        let (agent, parameters) = (agent.clone(), table.as_ptr());
        let raw = Object::make(
            api,
            "create the backend",
            // SAFETY: agent and parameters are alive; the name is copied.
            |api, out| unsafe {
                api.nixl_capi_create_backend(agent.as_ptr(), plugin.as_ptr(), parameters, out)
            },
            sys::NixlApi::nixl_capi_destroy_backend,
        )?;
        Ok(Self { raw, agent })
    }

    /// Arguments that name this backend.
    pub(super) fn options(&self) -> Result<Object<sys::nixl_capi_opt_args_s>, FabricError> {
        let options = Object::make(
            self.agent.library(),
            "create arguments",
            // SAFETY: an object's address is written.
            |api, out| unsafe { api.nixl_capi_create_opt_args(out) },
            sys::NixlApi::nixl_capi_destroy_opt_args,
        )?;
        // SAFETY: both are alive; the backend itself belongs to the agent and goes with it.
        let status = unsafe {
            self.agent.library().nixl_capi_opt_args_add_backend(options.as_ptr(), self.raw.as_ptr())
        };
        check("choose the backend", status)?;
        Ok(options)
    }

    pub(super) fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Registers the pool, for our writes and reads, and the peers'.
    pub(super) fn register(&self, pool: &PoolMemory) -> Result<Registration, FabricError> {
        let (api, agent) = (self.agent.library(), self.agent.clone());
        let list = Object::make(
            api,
            "create a list of memory",
            // SAFETY: an object's address is written.
            |api, out| unsafe { api.nixl_capi_create_reg_dlist(sys::NIXL_CAPI_MEM_DRAM, out) },
            sys::NixlApi::nixl_capi_destroy_reg_dlist,
        )?;
        let (start, len) = (pool.ptr().as_ptr() as usize, pool.region().len());
        // SAFETY: the list is alive; there is no extra information about the memory.
        let status =
            unsafe { api.nixl_capi_reg_dlist_add_desc(list.as_ptr(), start, len, 0, ptr::null(), 0) };
        check("list the pool", status)?;
        let options = self.options()?;
        // SAFETY: all three are alive; the range is mapped, and stays so as the registration holds the pool.
        let status = unsafe { api.nixl_capi_register_mem(agent.as_ptr(), list.as_ptr(), options.as_ptr()) };
        check("register the pool", status)?;
        Ok(Registration { list, options, agent, _pool: pool.clone() })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let api = self.agent.library();
        let (agent, list, options) = (self.agent.as_ptr(), self.list.as_ptr(), self.options.as_ptr());
        // SAFETY: all three are alive; the memory was registered with just these and is deregistered once.
        let status = unsafe { api.nixl_capi_deregister_mem(agent, list, options) };
        if status != sys::NIXL_CAPI_SUCCESS {
            tracing::debug!(status, "the pool was not deregistered");
        }
    }
}
