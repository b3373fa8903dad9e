//! What a transfer node is told at start; every limit of the crate has its home here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::KvGeometry;
use crate::staging::Region;

/// Which fabric moves the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FabricSpec {
    /// Shared memory of processes on one host; needs no library.
    Shm,
    /// libfabric, opened at run time.
    Libfabric {
        /// Provider by its libfabric name (`tcp`, `shm`, `efa`…); `None` takes libfabric's first choice.
        provider: Option<String>,
    },
    /// A NIXL agent, opened at run time.
    Nixl {
        /// Backend by its NIXL name (`UCX`…); `None` takes `UCX`.
        backend: Option<String>,
    },
    /// UCX, opened at run time.
    Ucx {
        /// Transports by their UCX names (`tcp`, `posix,cma`, `rc`…), as in `UCX_TLS`; `None` lets UCX choose among all.
        transports: Option<String>,
    },
}

/// How much of the payload is hashed at both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumMode {
    /// Nothing: only counts and coverage are checked.
    Off,
    /// A handful of pieces a transfer, spread over its layers.
    #[default]
    Sampled,
    /// Every piece.
    Full,
}

/// A mode of hashing that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use off, sampled or full")]
pub struct UnknownChecksumMode;

impl FromStr for ChecksumMode {
    type Err = UnknownChecksumMode;

    fn from_str(text: &str) -> Result<Self, UnknownChecksumMode> {
        match text {
            "off" => Ok(Self::Off),
            "sampled" => Ok(Self::Sampled),
            "full" => Ok(Self::Full),
            _ => Err(UnknownChecksumMode),
        }
    }
}

impl fmt::Display for ChecksumMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Sampled => "sampled",
            Self::Full => "full",
        })
    }
}

/// Settings of one [`TransferNode`](crate::TransferNode).
#[derive(Clone, Debug)]
pub struct TransferConfig {
    /// Which fabric moves the bytes.
    pub fabric: FabricSpec,
    /// Address that the control endpoint binds to, and libfabric's and UCX's data endpoints; shm does not use it.
    pub listen_ip: IpAddr,
    /// Of libfabric: the NICs (by libfabric's name of the domain) or IP addresses over which transfers are striped, at most 32.
    /// Empty: those of EFA that are near this process's memory; one endpoint, on `listen_ip`, of other providers.
    pub rails: Vec<String>,
    /// Where `libfabric.so.1` lies; `None` leaves it to the loader's search path.
    pub libfabric_path: Option<PathBuf>,
    /// Where `libnixl_capi.so` lies (file or folder, or the `site-packages` that has NIXL); `None` leaves it to the loader.
    pub nixl_path: Option<PathBuf>,
    /// Where `libucp.so.0` lies; `None` leaves it to the loader's search path.
    pub ucx_path: Option<PathBuf>,
    /// Shape of this worker's KV pool.
    pub geometry: KvGeometry,
    /// Model and revision as text; a transfer needs it equal at both ends.
    pub model: String,
    /// How much of the payload is hashed.
    pub checksums: ChecksumMode,
    /// Back the pool with huge pages from hugetlbfs where the machine has them reserved (else it is told to use THP).
    pub huge_pages: bool,
    /// Bounds and time limits.
    pub limits: TransferLimits,
}

/// Bounds and time limits of a node. When one is reached the operation fails fast, except where its line says "waits".
#[derive(Clone, Copy, Debug)]
pub struct TransferLimits {
    /// Transfers that may be expected at once, fenced ones included; at most 4096 (12 bits of the immediate).
    pub incoming: usize,
    /// Transfers that may be open for sending or fetching at once.
    pub outgoing: usize,
    /// Offers that may be live at once.
    pub offers: usize,
    /// Destination blocks in one transfer.
    pub blocks_per_transfer: usize,
    /// Peers connected at once, in each direction.
    pub peers: usize,
    /// Pushes not wholly posted yet, over all transfers; a further one waits for `push_patience`, then fails.
    pub queued_pushes: usize,
    /// Chunks of registered memory, for sending and for receiving each, through which short pieces travel together on fabrics
    /// that cannot write rows at regular distances themselves; 0 for none. A sender that finds none free at its receiver waits
    /// for its turn.
    pub staging_chunks: usize,
    /// Bytes of a chunk; at most a mebibyte, which is one write.
    pub staging_chunk_bytes: usize,
    /// Bytes of writes that may be in flight to one peer; more wait.
    pub in_flight_bytes_per_peer: u64,
    /// Bytes of writes that may be in flight in all; more wait.
    pub in_flight_bytes: u64,
    /// Bytes of computed layers that are pushed together; `None` chooses by the link's measured speed. Layers of a prompt that
    /// has fewer bytes go in one push, at its end.
    pub push_group_bytes: Option<u64>,
    /// Mean bytes of a write below which a transfer goes by way of chunks; 0: none does. `None` takes what was measured for the
    /// fabric (perf/RESULTS.md; `baton bench transfer --staging-curve` measures a link).
    pub stage_below_bytes: Option<u64>,
    /// How long `push` may hold its caller while the queue is full.
    pub push_patience: Duration,
    /// Connecting to a peer, its handshake, and each attach.
    pub handshake: Duration,
    /// How long a peer's host may be silent before its control connection counts as ended, at either end of it (TCP's keepalive
    /// and user timeout). The two ends notice a cut within this of each other, so it must be as long at every worker.
    pub silence: Duration,
    /// The longest that a posted write may take until it has landed or is lost for good, on a fabric that buffers; a network
    /// adapter's retransmissions included. Arriving bytes are drained for so long after a sender ended its connection (it does so,
    /// or its kernel, when it posts no more), and for `silence` longer after one that fell silent: see
    /// [`fence`](Self::fence).
    pub drain: Duration,
    /// How long a write or read may be under way, counted in time in which the data thread ran. After it everything to that peer
    /// fails, its connection is ended, and its data path where the fabric can. What is still not back after a further `drain`
    /// may still touch memory here: then the data plane fails, as only the end of the fabric ends every access.
    pub overdue: Duration,
    /// `shutdown` gives up on quiescence after this.
    pub shutdown: Duration,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            incoming: 4096,
            outgoing: 4096,
            offers: 4096,
            blocks_per_transfer: 65_536,
            peers: 256,
            queued_pushes: 4096,
            staging_chunks: 16,
            staging_chunk_bytes: 1 << 20,
            in_flight_bytes_per_peer: 128 << 20,
            in_flight_bytes: 512 << 20,
            push_group_bytes: None,
            stage_below_bytes: None,
            push_patience: Duration::from_millis(250),
            handshake: Duration::from_secs(5),
            silence: Duration::from_secs(4),
            drain: Duration::from_millis(300),
            overdue: Duration::from_secs(30),
            shutdown: Duration::from_secs(2),
        }
    }
}

impl TransferLimits {
    /// How long the blocks of a sender that is gone stay fenced. Its last write is posted when it notices the end itself, and
    /// lands or is lost within `drain` of that. Who ended the connection had noticed before; who was cut off may live, and
    /// notices up to `silence` later than this end. (What no time bounds is a host that is cut off *and* stopped, and posts when
    /// it goes on: its address is gone from the fabric by then, which is all that keeps its writes out.)
    #[must_use]
    pub fn fence(&self, was_silent: bool) -> Duration {
        if was_silent { self.silence + self.drain } else { self.drain }
    }
}

impl TransferConfig {
    /// The defaults for a pool of `geometry` and peers that serve the same `model`.
    #[must_use]
    pub fn new(fabric: FabricSpec, geometry: KvGeometry, model: impl Into<String>) -> Self {
        Self {
            fabric,
            listen_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            rails: Vec::new(),
            libfabric_path: None,
            nixl_path: None,
            ucx_path: None,
            geometry,
            model: model.into(),
            checksums: ChecksumMode::default(),
            huge_pages: false,
            limits: TransferLimits::default(),
        }
    }
}

impl TransferConfig {
    /// What a fabric registers: the pool, and what short pieces travel through.
    pub(crate) fn region(&self) -> Region {
        let chunks = match self.fabric {
            FabricSpec::Shm => 0,
            FabricSpec::Libfabric { .. } | FabricSpec::Ucx { .. } | FabricSpec::Nixl { .. } => {
                self.limits.staging_chunks as u32
            }
        };
        let chunk_bytes = self.limits.staging_chunk_bytes as u64;
        Region { pool_bytes: self.geometry.pool_bytes(), chunks, chunk_bytes }
    }
}

/// A fabric name that this build does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown fabric `{name}`: use `shm`, `libfabric`, `libfabric:PROVIDER`, `ucx`, `ucx:TRANSPORTS`, `nixl` or `nixl:BACKEND`"
)]
pub struct UnknownFabric {
    /// What was asked for.
    pub name: String,
}

impl FromStr for FabricSpec {
    type Err = UnknownFabric;

    fn from_str(text: &str) -> Result<Self, UnknownFabric> {
        match text.split_once(':') {
            None if text == "shm" => Ok(Self::Shm),
            None if text == "libfabric" => Ok(Self::Libfabric { provider: None }),
            Some(("libfabric", provider)) if !provider.is_empty() => {
                Ok(Self::Libfabric { provider: Some(provider.to_owned()) })
            }
            None if text == "nixl" => Ok(Self::Nixl { backend: None }),
            Some(("nixl", backend)) if !backend.is_empty() => {
                Ok(Self::Nixl { backend: Some(backend.to_owned()) })
            }
            None if text == "ucx" => Ok(Self::Ucx { transports: None }),
            Some(("ucx", transports)) if !transports.is_empty() => {
                Ok(Self::Ucx { transports: Some(transports.to_owned()) })
            }
            _ => Err(UnknownFabric { name: text.to_owned() }),
        }
    }
}

impl fmt::Display for FabricSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shm => f.write_str("shm"),
            Self::Libfabric { provider: None } => f.write_str("libfabric"),
            Self::Libfabric { provider: Some(provider) } => write!(f, "libfabric:{provider}"),
            Self::Nixl { backend: None } => f.write_str("nixl"),
            Self::Nixl { backend: Some(backend) } => write!(f, "nixl:{backend}"),
            Self::Ucx { transports: None } => f.write_str("ucx"),
            Self::Ucx { transports: Some(transports) } => write!(f, "ucx:{transports}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_modes_read_back_as_written() {
        for mode in [ChecksumMode::Off, ChecksumMode::Sampled, ChecksumMode::Full] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("Full".parse::<ChecksumMode>(), Err(UnknownChecksumMode));
    }

    #[test]
    fn fabric_names_read_back_as_written() {
        for name in [
            "shm",
            "libfabric",
            "libfabric:tcp",
            "libfabric:tcp;ofi_rxm",
            "nixl",
            "nixl:UCX",
            "ucx",
            "ucx:posix,cma",
        ] {
            assert_eq!(name.parse::<FabricSpec>().unwrap().to_string(), name);
        }
        for name in ["", "SHM", "libfabric:", "shm:x", "NIXL", "nixl:", "ucx:", "UCX"] {
            assert_eq!(name.parse::<FabricSpec>(), Err(UnknownFabric { name: name.to_owned() }));
        }
    }
}
