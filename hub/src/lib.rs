//! A model folder from what a person typed: a directory, or a hub id such as `Qwen/Qwen3-0.6B`.
//!
//! A hub id is looked up in the standard cache (`~/.cache/huggingface/hub`, shared with the Python tools) and
//! downloaded into it when missing: only the files that serving needs, small ones first, weights last, so a snapshot
//! whose weights are complete is complete.
//!
//! ```text
//!  models--org--name/
//!    refs/main                      commit that the branch pointed at
//!    blobs/<etag>                   content; <etag>.incomplete while it is being fetched, continued by Range
//!    snapshots/<commit>/config.json ──► ../../blobs/<etag>
//! ```
//!
//! Why not the crate `hf-hub`: 1.0.0 starts every interrupted file anew (it truncates `.incomplete`) and can't be built
//! without the Xet client, 280 packages in all; 0.5.0 continues, but trusts any server to honour `Range`, never compares
//! a hash, and knows nothing of offline mode. Resuming a download and not serving damaged weights are the point here.
//!
//! Left out: datasets, uploads, Xet's chunked protocol (the hub's plain URLs serve the same bytes), parallel ranges.
//!
//! # Invariants
//! - A file under `blobs/` without `.incomplete` has the size and hash that the hub named.
//! - One process at a time writes a blob (a lock file in `.locks/`, as the Python tools do it).
//! - Nothing is sent to the network when the cache has a whole snapshot, and nothing at all when offline.

#![forbid(unsafe_code)]

mod cache;
mod client;
mod config;
mod download;
mod error;
mod id;
mod progress;
mod resolve;
mod verify;

pub use config::{HubArgs, HubConfig};
pub use error::HubError;
pub use id::HubId;
pub use progress::Progress;
pub use resolve::{Located, ModelFolder, locate, pull, resolve};
