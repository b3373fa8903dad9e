//! The index.
#![deny(unsafe_code)]
mod events;
mod holders;
mod index;
mod indexer;
mod key;
#[expect(unsafe_code, reason = "the one instruction that no safe function gives")]
mod prefetch;
mod prompt;
mod shared;
mod subscribe;
mod table;

pub use events::{BatchReader, BatchReport, DecodeError, Slices};
pub use index::{
    AddError, Found, Index, IndexLimits, IndexStats, Matches, Tier, TierWeights, WorkerId, WorkerSpec,
};
pub use indexer::{Ended, IndexHandle, Indexer};
pub use prompt::{PromptKeys, Scope};
pub use shared::{IndexReader, IndexWriter, share};
pub use subscribe::{Health, Source, Subscriber, SubscriptionStats, WorkerStatus};
