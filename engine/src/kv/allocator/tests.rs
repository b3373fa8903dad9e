//! The allocator against a model of it that is too simple to be wrong.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use proptest::prelude::*;

use super::*;
use crate::kv::HeldBlocks;

const TOTAL: usize = 70;
const OFF: CacheMode = CacheMode { is_on: false, keeps_events: false };

#[derive(Clone, Debug)]
enum Op {
    Take(usize),
    Grow(usize, usize),
    Clear(usize),
    Drop(usize),
    /// Turns a lease into held blocks, which are dropped by a later `Release`.
    Hold(usize),
    Release(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0_usize..20).prop_map(Op::Take),
        (0_usize..8, 0_usize..10).prop_map(|(lease, blocks)| Op::Grow(lease, blocks)),
        (0_usize..8).prop_map(Op::Clear),
        (0_usize..8).prop_map(Op::Drop),
        (0_usize..8).prop_map(Op::Hold),
        (0_usize..8).prop_map(Op::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_block_has_one_owner_and_comes_back_once(ops in prop::collection::vec(op(), 1..80)) {
        let pool = BlockAllocator::new(TOTAL, OFF, || ());
        let mut leases: Vec<BlockLease> = Vec::new();
        let mut held: Vec<HeldBlocks> = Vec::new();
        let mut freed = vec![0_u64; TOTAL];
        for op in ops {
            let free = pool.counts().free;
            match op {
                Op::Take(blocks) => match pool.take(blocks) {
                    Ok(lease) => {
                        prop_assert_eq!(lease.len(), blocks);
                        leases.push(lease);
                    }
                    Err(error) => prop_assert_eq!(error, OutOfBlocks { wanted: blocks, available: free }),
                },
                Op::Grow(i, blocks) => {
                    if let Some(lease) = leases.get_mut(i) {
                        let before = lease.len();
                        let grown = lease.grow(blocks).is_ok();
                        prop_assert_eq!(grown, blocks <= free);
                        prop_assert_eq!(lease.len(), before + if grown { blocks } else { 0 });
                    }
                }
                Op::Clear(i) => {
                    if let Some(lease) = leases.get_mut(i) {
                        lease.ids().iter().for_each(|id| freed[id.0 as usize] += 1);
                        lease.clear();
                    }
                }
                Op::Drop(i) if i < leases.len() => {
                    leases[i].ids().iter().for_each(|id| freed[id.0 as usize] += 1);
                    drop(leases.swap_remove(i));
                }
                Op::Hold(i) if i < leases.len() => held.push(HeldBlocks::fenced(leases.swap_remove(i))),
                Op::Release(i) if i < held.len() => {
                    let other = held[i].clone();
                    drop(held.swap_remove(i));
                    prop_assert!(other.ids().iter().all(|id| pool.generation(*id) == Some(freed[id.0 as usize])));
                    other.ids().iter().for_each(|id| freed[id.0 as usize] += 1);
                }
                Op::Drop(_) | Op::Hold(_) | Op::Release(_) => {}
            }
            let owned: Vec<_> = leases.iter().flat_map(BlockLease::ids).collect();
            let kept: Vec<_> = held.iter().flat_map(HeldBlocks::ids).collect();
            let distinct: BTreeSet<_> = owned.iter().chain(&kept).collect();
            prop_assert_eq!(distinct.len(), owned.len() + kept.len(), "no block has two owners");
            let counts = pool.counts();
            prop_assert_eq!((counts.owned, counts.held), (owned.len(), kept.len()));
            prop_assert_eq!(counts.free, TOTAL - owned.len() - kept.len());
            for (id, times) in (0..).map(BlockId).zip(&freed) {
                prop_assert_eq!(pool.generation(id), Some(*times));
            }
        }
        drop((leases, held));
        prop_assert_eq!(pool.counts().free, TOTAL);
    }
}

#[test]
fn threads_return_what_they_took_and_say_so() {
    let told = Arc::new(AtomicUsize::new(0));
    let counter = told.clone();
    let pool = BlockAllocator::new(TOTAL, OFF, move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for i in 0..500 {
                    if let Ok(mut lease) = pool.take(1 + (thread + i) % 30) {
                        let _ = lease.grow(1);
                        if i % 3 == 0 { drop(HeldBlocks::fenced(lease)) } else { drop(lease) }
                    }
                }
            });
        }
    });
    let counts = pool.counts();
    assert_eq!((counts.free, counts.taken_total), (TOTAL, counts.freed_total));
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_fresh_pool_gives_neighbours_and_a_freed_block_is_the_last_to_come_again() {
    let pool = BlockAllocator::new(TOTAL, OFF, || ());
    let ids = |lease: &BlockLease| lease.ids().iter().map(|id| id.0).collect::<Vec<_>>();
    let first = pool.take(10).unwrap();
    assert_eq!(ids(&first), (0..10).collect::<Vec<_>>());
    drop(first);
    let rest = pool.take(60).unwrap();
    assert_eq!(ids(&rest), (10..70).collect::<Vec<_>>());
    assert_eq!(ids(&pool.take(10).unwrap()), (0..10).collect::<Vec<_>>());
}

mod cache;
