//! A node in this process, a peer in another, and the fabric between them.

use std::path::PathBuf;
use std::time::Duration;

use baton_kv_transfer::{
    ChecksumMode, FabricSpec, KvDtype, KvGeometry, KvLayout, KvOrder, KvPlacement, TensorParallel,
    TransferConfig, TransferLimits, TransferNode,
};
use serde::{Deserialize, Serialize};

use super::Peer;

/// How a node is set up; travels to the peer process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// As users name it; libfabric's rails follow an `@`.
    pub fabric: String,
    pub layers: u32,
    pub blocks: u32,
    /// Of a block with all heads.
    pub block_bytes: u32,
    pub block_tokens: u32,
    pub kv_heads: u32,
    /// Tokens before heads.
    pub nhd: bool,
    /// K and V apart.
    pub split: bool,
    /// Tensor-parallel rank and size.
    pub rank: (u32, u32),
    pub model: String,
    pub full_checksums: bool,
    pub limits: Limits,
}

/// The bounds that tests make small.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    pub incoming: usize,
    pub outgoing: usize,
    pub blocks_per_transfer: usize,
    pub queued_pushes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let TransferLimits { incoming, outgoing, blocks_per_transfer, queued_pushes, .. } =
            TransferLimits::default();
        Self { incoming, outgoing, blocks_per_transfer, queued_pushes }
    }
}

impl Setup {
    pub fn geometry(&self) -> KvGeometry {
        let layout = KvLayout {
            layers: self.layers,
            kv_heads: self.kv_heads,
            head_dim: self.block_bytes / (4 * self.block_tokens * self.kv_heads),
            block_tokens: self.block_tokens,
            dtype: KvDtype::Bf16,
            placement: if self.split { KvPlacement::Split } else { KvPlacement::Joined },
            order: if self.nhd { KvOrder::Nhd } else { KvOrder::Hnd },
            tensor_parallel: TensorParallel { rank: self.rank.0, size: self.rank.1 },
        };
        KvGeometry { layout, blocks: self.blocks }
    }
}

/// The usual shape of these tests.
pub fn shape(fabric: &str) -> Setup {
    Setup {
        fabric: fabric.to_owned(),
        layers: 6,
        blocks: 96,
        block_bytes: 16 << 10,
        block_tokens: 1,
        kv_heads: 1,
        nhd: false,
        split: false,
        rank: (0, 1),
        model: "test-model".to_owned(),
        full_checksums: true,
        limits: Limits::default(),
    }
}

pub fn config(setup: &Setup) -> TransferConfig {
    let (name, rails) = setup.fabric.split_once('@').unwrap_or((&setup.fabric, ""));
    let fabric: FabricSpec = name.parse().unwrap();
    let mut config = TransferConfig::new(fabric.clone(), setup.geometry(), setup.model.clone());
    let Limits { incoming, outgoing, blocks_per_transfer, queued_pushes } = setup.limits;
    config.limits =
        TransferLimits { incoming, outgoing, blocks_per_transfer, queued_pushes, ..config.limits };
    // Which way a transfer goes is the test's choice, whatever pays on a fabric.
    config.limits.stage_below_bytes = Some(16 << 10);
    config.checksums = if setup.full_checksums { ChecksumMode::Full } else { ChecksumMode::Sampled };
    config.rails = rails.split(',').filter(|rail| !rail.is_empty()).map(str::to_owned).collect();
    match fabric {
        FabricSpec::Shm => {}
        FabricSpec::Libfabric { .. } => config.libfabric_path = Some(library("LIBFABRIC", "libfabric.so.1")),
        FabricSpec::Ucx { .. } => config.ucx_path = Some(library("UCX", "libucp.so.0")),
        FabricSpec::Nixl { .. } => config.nixl_path = Some(nixl()),
    }
    config
}

fn library(variable: &str, file: &str) -> PathBuf {
    let path = std::env::var_os(format!("BATON_TEST_{variable}"));
    PathBuf::from(path.unwrap_or_else(|| {
        panic!(
            "BATON_TEST_{variable} names {file}, as `./dev test` sets it (BATON_TEST_SKIP_{variable}=1 skips)"
        )
    }))
}

fn nixl() -> PathBuf {
    let path = std::env::var_os("BATON_TEST_NIXL");
    PathBuf::from(path.expect(
        "BATON_TEST_NIXL names the site-packages with nixl-cu13, which ./dev test installs (BATON_TEST_SKIP_NIXL=1 skips)",
    ))
}

/// Whether what a fabric needs is here, or was not asked to be left out.
pub fn support_is_here(fabric: &str) -> bool {
    let skip = match fabric.split(':').next() {
        Some("libfabric") => "BATON_TEST_SKIP_LIBFABRIC",
        Some("ucx") => "BATON_TEST_SKIP_UCX",
        Some("nixl") => "BATON_TEST_SKIP_NIXL",
        _ => return true,
    };
    std::env::var_os(skip).is_none_or(|skip| skip != "1")
}

pub struct World {
    pub setup: Setup,
    pub node: TransferNode,
    pub peer: Peer,
}

impl World {
    /// Both ends alike, but for the number of blocks: that may differ.
    pub async fn new(setup: Setup) -> Self {
        let theirs = Setup { blocks: setup.blocks + 32, ..setup.clone() };
        Self::with_peer(setup, &theirs).await
    }

    pub async fn with_peer(setup: Setup, theirs: &Setup) -> Self {
        let peer = Peer::start(theirs).await;
        let node = TransferNode::start(config(&setup)).await.unwrap();
        Self { setup, node, peer }
    }

    /// Both ends hold nothing once all transfers are over: no slot, no quarantine, nothing queued or in flight.
    pub async fn at_rest(&self) {
        until(|| {
            let stats = self.node.stats();
            let held =
                stats.incoming_live + stats.quarantined_blocks + stats.in_flight_writes + stats.queued_pushes;
            (held == 0).then_some(())
        })
        .await;
        // A push that the peer's owner made a moment ago may still be on its way to be refused.
        loop {
            let stats = self.peer.stats().await;
            let held =
                stats.incoming_live + stats.quarantined_blocks + stats.in_flight_writes + stats.queued_pushes;
            if held == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for World {
    /// Ends the node in good order, so that its fabric leaves nothing in the file system when this process exits.
    fn drop(&mut self) {
        self.peer.kill();
        let node = self.node.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(node.shutdown());
        });
        let _ = ended.join();
    }
}

/// Looks until there is something to see; the test's own deadline bounds it.
pub async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs a test on a runtime of its own, under a deadline: nothing here may hang.
pub fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test hangs")
    });
}
