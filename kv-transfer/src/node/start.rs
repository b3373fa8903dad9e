//! Building a node from its configuration.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::NodeInner;
use crate::control::{Links, Listener, Peers, serve_listener};
use crate::engine::{CommandQueue, DataPlane, Memory};
use crate::fabric::Fabric;
use crate::fabric::libfabric::Libfabric;
use crate::fabric::nixl::Nixl;
use crate::fabric::shm::ShmFabric;
use crate::fabric::ucx::Ucx;
use crate::fetch::Offers;
use crate::ids::{NodeId, Slot};
use crate::memory::PoolMemory;
use crate::receive::{Receiver, TableRules};
use crate::stats::Counters;
use crate::{DataPlaneFailed, FabricSpec, StartError, TransferConfig};

/// Longest `model` text; it travels in every ticket.
const MAX_MODEL_BYTES: usize = 16 << 10;

pub(crate) type OpenFabric = (Box<dyn Fabric>, PoolMemory);

pub(super) async fn start(config: TransferConfig) -> Result<Arc<NodeInner>, StartError> {
    check(&config)?;
    let id = NodeId::random();
    let listener = bind(&config, id).await?;
    let opened = open_fabric(&config).await?;
    start_on(opened, config, id, listener)
}

/// Starts a node whose fabric is open.
pub(super) fn start_on(
    (fabric, pool): OpenFabric,
    config: TransferConfig,
    id: NodeId,
    listener: Listener,
) -> Result<Arc<NodeInner>, StartError> {
    let Assembly { node, plane, end } = assemble(config, id, listener, fabric, pool)?;
    let thread = std::thread::Builder::new()
        .name("kv-data".to_owned())
        .spawn(move || {
            let _end = end;
            plane.run();
        })
        .map_err(|source| {
            node.stop();
            StartError::Control { endpoint: "the data thread".to_owned(), source }
        })?;
    *node.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    let fabric = node.description();
    tracing::debug!(
        fabric = fabric.name,
        provider = fabric.provider,
        devices = fabric.devices.join(", "),
        endpoint = fabric.control_endpoint,
        "kv-transfer is up"
    );
    Ok(node)
}

/// A node whose data plane does not run yet.
pub(crate) struct Assembly {
    pub(crate) node: Arc<NodeInner>,
    pub(crate) plane: DataPlane,
    /// Dropped when the data plane has ended.
    pub(crate) end: EndOfDataPlane,
}

/// Puts a node together, and serves its control connections.
pub(crate) fn assemble(
    config: TransferConfig,
    id: NodeId,
    listener: Listener,
    fabric: Box<dyn Fabric>,
    pool: PoolMemory,
) -> Result<Assembly, StartError> {
    let capabilities = fabric.capabilities();
    let counters = Arc::new(Counters::default());
    let peers = Arc::new(Peers::new(counters.clone()));
    let queue = Arc::new(CommandQueue::new(fabric.waker(), counters.clone(), config.limits.queued_pushes));
    let receiver = Arc::new(Receiver::new(rules(&config), peers.clone(), queue.clone(), counters.clone()));
    let endpoint = listener.endpoint().map_err(|source| control(&config, source))?;
    let (address, rails) = (fabric.address(), fabric.rails());
    let region = config.region();
    let memory = Memory { pool: pool.clone(), region };
    let plane = DataPlane::new(
        fabric,
        memory,
        config.limits,
        queue.clone(),
        receiver.clone(),
        peers.clone(),
        counters.clone(),
    );
    let data_ended = CancellationToken::new();
    let end = EndOfDataPlane {
        queue: queue.clone(),
        receiver: receiver.clone(),
        _ended: data_ended.clone().drop_guard(),
    };
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let outgoing = Arc::new(Semaphore::new(config.limits.outgoing));
    let node = Arc::new(NodeInner {
        config,
        id,
        endpoint,
        address,
        capabilities,
        rails,
        pool,
        region,
        counters,
        receiver: receiver.clone(),
        peers,
        queue,
        links: Links::default(),
        offers: Offers::default(),
        tasks: tasks.clone(),
        cancel: cancel.clone(),
        thread: Mutex::new(None),
        next_send: AtomicU64::new(1),
        outgoing,
        closing: CancellationToken::new(),
        data_ended,
    });
    let timer = cancel.clone();
    tasks.spawn(async move { receiver.keep_time(timer).await });
    tasks.spawn(serve_listener(node.clone(), listener, cancel));
    Ok(Assembly { node, plane, end })
}

/// However the data thread ends, by a panic too: nothing waits for it any more, and its node knows why.
pub(crate) struct EndOfDataPlane {
    queue: Arc<CommandQueue>,
    receiver: Arc<Receiver>,
    _ended: DropGuard,
}

impl Drop for EndOfDataPlane {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.queue.close(panicked.then(|| DataPlaneFailed { reason: "its thread panicked".to_owned() }));
        self.receiver.close(self.queue.failure());
    }
}

fn check(config: &TransferConfig) -> Result<(), StartError> {
    config.geometry.validate()?;
    let limits = &config.limits;
    let bounds = [
        ("incoming", limits.incoming, Slot::COUNT),
        ("outgoing", limits.outgoing, 1 << 20),
        ("offers", limits.offers, 1 << 20),
        ("blocks_per_transfer", limits.blocks_per_transfer, 1 << 18),
        ("peers", limits.peers, 1 << 16),
        ("queued_pushes", limits.queued_pushes, 1 << 20),
        // None is allowed.
        ("staging_chunks", limits.staging_chunks.max(1), 1 << 16),
        ("staging_chunk_bytes", limits.staging_chunk_bytes, 1 << 20),
        ("bytes of `model`", config.model.len().max(1), MAX_MODEL_BYTES),
    ];
    match bounds.into_iter().find(|&(_, value, max)| value == 0 || value > max) {
        Some((name, value, max)) => Err(StartError::Limit { name, value, max }),
        None => Ok(()),
    }
}

fn rules(config: &TransferConfig) -> TableRules {
    TableRules {
        geometry: config.geometry,
        checksums: config.checksums,
        slots: config.limits.incoming,
        blocks_per_transfer: config.limits.blocks_per_transfer,
        chunks: config.region().chunks,
    }
}

pub(super) async fn bind(config: &TransferConfig, id: NodeId) -> Result<Listener, StartError> {
    if config.fabric != FabricSpec::Shm && config.listen_ip.is_unspecified() {
        let reason = "tickets carry this address: name one that peers can reach";
        return Err(control(config, io::Error::new(io::ErrorKind::InvalidInput, reason)));
    }
    match config.fabric {
        FabricSpec::Shm => Listener::unix(id),
        FabricSpec::Libfabric { .. } | FabricSpec::Ucx { .. } | FabricSpec::Nixl { .. } => {
            Listener::tcp(config.listen_ip).await
        }
    }
    .map_err(|source| control(config, source))
}

fn control(config: &TransferConfig, source: io::Error) -> StartError {
    StartError::Control { endpoint: format!("of fabric {} on {}", config.fabric, config.listen_ip), source }
}

/// Populating a large pool and loading a library take a while: not on an async thread.
pub(crate) async fn open_fabric(config: &TransferConfig) -> Result<OpenFabric, StartError> {
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || -> Result<OpenFabric, StartError> {
        match &config.fabric {
            FabricSpec::Shm => {
                let region = config.region();
                let (fabric, memory) = ShmFabric::open(region.bytes(), config.huge_pages)?;
                Ok((Box::new(fabric), PoolMemory::new(memory.region().clone(), region.pool_bytes)))
            }
            FabricSpec::Libfabric { provider } => {
                let (fabric, pool) = Libfabric::open(&config, provider.as_deref())?;
                Ok((Box::new(fabric), pool))
            }
            FabricSpec::Ucx { transports } => {
                let (fabric, pool) = Ucx::open(&config, transports.as_deref())?;
                Ok((Box::new(fabric), pool))
            }
            FabricSpec::Nixl { backend } => {
                let (fabric, pool) = Nixl::open(&config, backend.as_deref())?;
                Ok((Box::new(fabric), pool))
            }
        }
    })
    .await;
    opened.unwrap_or_else(|error| {
        let source = io::Error::other(error);
        Err(StartError::Control { endpoint: "the fabric".to_owned(), source })
    })
}
