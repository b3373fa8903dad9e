//! Endpoint options that EFA wants set before an endpoint is enabled, and asked after.

use std::ffi::c_int;

use super::info::{EFA, Facts};
use super::objects::Endpoint;
use super::sys;
use crate::FabricError;

/// Sets what is to be set before enabling.
pub(super) fn set(endpoint: &Endpoint, facts: &Facts) -> Result<(), FabricError> {
    no_shared_memory(endpoint, facts)?;
    no_cuda_calls(endpoint);
    Ok(())
}

/// Asks an enabled endpoint (libfabric's shm crashes when it is asked anything earlier) and returns the largest write.
pub(super) fn ask(endpoint: &Endpoint, facts: &Facts) -> Result<u64, FabricError> {
    if facts.speaks_efa() {
        writes_are_the_devices(endpoint)?;
    }
    Ok(max_write_bytes(endpoint, facts))
}

/// Peers of the same host go over the NIC as all others do. The efa provider would otherwise send them over its own
/// shared-memory path, with other completion semantics, and GPU memory can crash there. For efa a refusal is an error; other
/// providers have no such path.
fn no_shared_memory(endpoint: &Endpoint, facts: &Facts) -> Result<(), FabricError> {
    match endpoint.set_option(sys::FI_OPT_SHARED_MEMORY_PERMITTED as c_int, false) {
        Err(error) if facts.provider == EFA => Err(error),
        _ => Ok(()),
    }
}

/// libfabric is not to call CUDA behind our back on the data thread. Refused where there is no CUDA to call, or no way around
/// it for GPU memory; the pool is host memory, so either is fine.
fn no_cuda_calls(endpoint: &Endpoint) {
    if let Err(error) = endpoint.set_option(sys::FI_OPT_CUDA_API_PERMITTED as c_int, false) {
        tracing::debug!(%error, "CUDA calls by libfabric are not ruled out");
    }
}

/// Refuses an efa endpoint that writes in software: its target must run code to place bytes, and it is many times slower.
/// Whoever asks for EFA asks for the device; for software there are other providers.
fn writes_are_the_devices(endpoint: &Endpoint) -> Result<(), FabricError> {
    if endpoint.bool_option(sys::FI_OPT_EFA_EMULATED_WRITE) != Some(true) {
        return Ok(());
    }
    let reason = "this device's one-sided writes are emulated in software: use an instance type with RDMA write (and \
                  do not set FI_EFA_USE_DEVICE_RDMA=0), or another provider";
    Err(FabricError {
        fabric: "libfabric",
        operation: "fi_getopt(FI_OPT_EFA_EMULATED_WRITE)",
        reason: reason.to_owned(),
    })
}

/// The attributes speak of messages of all kinds; the option, where there is one, of one-sided operations.
fn max_write_bytes(endpoint: &Endpoint, facts: &Facts) -> u64 {
    let limit = endpoint.size_option(sys::FI_OPT_MAX_RMA_SIZE as c_int).filter(|&limit| limit > 0);
    limit.map_or(facts.max_write_bytes, |limit| facts.max_write_bytes.min(limit as u64))
}
