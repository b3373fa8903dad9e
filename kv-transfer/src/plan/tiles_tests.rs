//! Plans against the reference permutation: element by element, as the layouts define it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::Cursor;
use super::super::cursor::WriteRules;
use super::*;
use crate::layout::{KvDtype, KvLayout, KvOrder, KvPlacement, TensorParallel};

const KV_HEADS: u32 = 4;
const LAYERS: u32 = 2;
const BLOCKS: u32 = 24;

fn layout(placement: KvPlacement) -> impl Strategy<Value = KvLayout> {
    let size = prop::sample::select(vec![1u32, 2, 4, 8]);
    let order = prop::sample::select(vec![KvOrder::Nhd, KvOrder::Hnd]);
    (1u32..6, order, size, any::<prop::sample::Index>()).prop_map(move |(block_tokens, order, size, rank)| {
        let tensor_parallel = TensorParallel { rank: rank.index(size as usize) as u32, size };
        KvLayout {
            layers: LAYERS,
            kv_heads: KV_HEADS,
            head_dim: 3,
            block_tokens,
            dtype: KvDtype::Bf16,
            placement,
            order,
            tensor_parallel,
        }
    })
}

/// Two layouts of one model; sometimes the same one.
fn layouts() -> impl Strategy<Value = (KvLayout, KvLayout)> {
    let both = |joined, split| {
        if joined {
            KvPlacement::Joined
        } else if split {
            KvPlacement::Split
        } else {
            KvPlacement::Latent
        }
    };
    let placements = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(move |(latent, a, b)| {
        if latent { (KvPlacement::Latent, KvPlacement::Latent) } else { (both(a, true), both(b, true)) }
    });
    placements
        .prop_flat_map(|(ours, theirs)| (layout(ours), layout(theirs), any::<bool>()))
        .prop_map(|(ours, theirs, same)| if same { (ours, ours) } else { (ours, theirs) })
}

fn ids() -> impl Strategy<Value = Vec<u32>> {
    let shuffled = Just((0..BLOCKS).collect::<Vec<_>>()).prop_shuffle();
    (shuffled, any::<bool>()).prop_map(|(ids, sorted)| if sorted { (0..BLOCKS).collect() } else { ids })
}

/// Where the row of (layer, tensor, head, token) starts in a pool with that block table; by the definition of the layout.
fn reference(
    layout: &KvLayout,
    table: &[u32],
    layer: u32,
    tensor: u32,
    head: u32,
    token: u32,
) -> Option<u64> {
    let heads = layout.heads();
    if !heads.contains(&head) {
        return None;
    }
    let (block, token) =
        (u64::from(table[(token / layout.block_tokens) as usize]), u64::from(token % layout.block_tokens));
    let (here, head) = (heads.len() as u64, u64::from(head - heads.start));
    let tokens = u64::from(layout.block_tokens);
    let (layer, tensor, blocks) = (u64::from(layer), u64::from(tensor), u64::from(BLOCKS));
    let within = match layout.order {
        KvOrder::Nhd => token * here + head,
        KvOrder::Hnd => head * tokens + token,
    };
    let piece = match layout.placement {
        KvPlacement::Joined => (layer * blocks + block) * 2 + tensor,
        KvPlacement::Split => (layer * 2 + tensor) * blocks + block,
        KvPlacement::Latent => layer * blocks + block,
    };
    Some((piece * tokens * here + within) * layout.row_bytes())
}

/// Source and destination of each byte.
fn rows(tiles: impl Iterator<Item = Tile>) -> Vec<(u64, u64)> {
    let bytes = |tile: Tile| {
        (0..tile.rows()).flat_map(move |row| {
            let (source, destination) = tile.row(row);
            (0..tile.len).map(move |i| (source + i, destination + i))
        })
    };
    tiles.flat_map(bytes).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn moving_by_plan_is_the_reference_permutation(
        (ours, theirs) in layouts(), sources in ids(), destinations in ids(),
        tokens in 1u32..24, max_bytes in 1u64..200, strided: bool, chunks in 1usize..4,
    ) {
        let geometry = |layout| KvGeometry { layout, blocks: BLOCKS };
        let conversion = Conversion::between(geometry(ours), geometry(theirs)).unwrap();
        prop_assume!(conversion.is_needed());
        let table = &destinations[..theirs.blocks_for(tokens) as usize];
        let pairs: Vec<(u32, u32)> = (0..conversion.units(tokens)).map(|unit| (sources[unit as usize], unit)).collect();
        let mut moved = BTreeMap::new();
        let mut bytes = 0;
        for chunk in pairs.chunks(pairs.len().div_ceil(chunks)) {
            let plan = Arc::new(Plan::new(&conversion, chunk, table, tokens));
            let mut cursor = Cursor::new(0..LAYERS, plan);
            while let Some(write) = cursor.peek(WriteRules { max_bytes, strided }) {
                prop_assert!(strided || write.rows() == 1);
                prop_assert!(write.rows() > 1 || write.len <= max_bytes);
                bytes += write.bytes();
                for row in 0..write.rows() {
                    let (source, destination) = write.row(row);
                    for i in 0..write.len {
                        prop_assert_eq!(moved.insert(destination + i, source + i), None, "written twice");
                    }
                }
                cursor.advance(&write);
            }
        }
        prop_assert_eq!(bytes, conversion.bytes(tokens));
        prop_assert!(moved.keys().all(|&at| at < conversion.destination.pool_bytes()));
        prop_assert!(moved.values().all(|&at| at < conversion.source.pool_bytes()));
        // Each row that both hold and that this sender is to send is moved to its place.
        let mut rows = 0;
        for layer in 0..LAYERS {
            for tensor in 0..ours.placement.tensors() {
                for (head, token) in conversion.heads.clone().flat_map(|head| (0..tokens).map(move |token| (head, token))) {
                    let from = reference(&ours, &sources, layer, tensor, head, token).unwrap();
                    let to = reference(&theirs, table, layer, tensor, head, token).unwrap();
                    (0..ours.row_bytes()).for_each(|i| assert_eq!(moved.get(&(to + i)), Some(&(from + i))));
                    rows += 1;
                }
            }
        }
        if !conversion.keeps_blocks() {
            prop_assert_eq!(rows * ours.row_bytes(), bytes, "and nothing else");
        }
    }

    #[test]
    fn moving_by_way_of_a_stage_is_the_same(
        (ours, theirs) in layouts(), sources in ids(), destinations in ids(), tokens in 1u32..24,
    ) {
        let geometry = |layout| KvGeometry { layout, blocks: BLOCKS };
        let conversion = Conversion::between(geometry(ours), geometry(theirs)).unwrap();
        prop_assume!(conversion.is_needed());
        let (gather, scatter) = conversion.staged(1 << 20).unwrap();
        let table = &destinations[..theirs.blocks_for(tokens) as usize];
        for unit in 0..conversion.units(tokens) {
            let source = sources[unit as usize];
            // The stage's block is any that it has.
            let stage = unit % 3;
            let staged = rows(unit_tiles(&gather, (source, unit), |_| stage, tokens));
            let rest = rows(unit_tiles(&scatter, (stage, unit), |index| table[index as usize], tokens));
            let direct = rows(unit_tiles(&conversion, (source, unit), |index| table[index as usize], tokens));
            let staged: BTreeMap<u64, u64> = staged.into_iter().map(|(from, to)| (to, from)).collect();
            prop_assert_eq!(staged.len(), rest.len());
            prop_assert!(staged.keys().all(|&at| at < gather.destination.pool_bytes()));
            let by_stage: BTreeMap<u64, u64> = rest.into_iter().map(|(from, to)| (to, staged[&from])).collect();
            let direct: BTreeMap<u64, u64> = direct.into_iter().map(|(from, to)| (to, from)).collect();
            prop_assert_eq!(by_stage, direct);
        }
    }

    #[test]
    fn both_ends_hash_the_same_bytes_in_the_same_order(
        (ours, theirs) in layouts(), sources in ids(), destinations in ids(), tokens in 1u32..24,
    ) {
        use crate::layout::Side;
        let geometry = |layout| KvGeometry { layout, blocks: BLOCKS };
        let conversion = Conversion::between(geometry(ours), geometry(theirs)).unwrap();
        prop_assume!(conversion.is_needed());
        let table = &destinations[..theirs.blocks_for(tokens) as usize];
        let pairs: Vec<(u32, u32)> = (0..conversion.units(tokens)).map(|unit| (sources[unit as usize], unit)).collect();
        let plan = Arc::new(Plan::new(&conversion, &pairs, table, tokens));
        let mut moved = BTreeMap::new();
        let mut cursor = Cursor::new(0..LAYERS, plan);
        while let Some(write) = cursor.peek(WriteRules { max_bytes: 1 << 20, strided: true }) {
            for row in 0..write.rows() {
                let (source, destination) = write.row(row);
                (0..write.len).for_each(|i| { moved.insert(source + i, destination + i); });
            }
            cursor.advance(&write);
        }
        for (layer, unit) in (0..LAYERS).flat_map(|layer| (0..conversion.units(tokens)).map(move |unit| (layer, unit))) {
            let bytes = |side, blocks: &[u32]| -> Vec<u64> {
                let block = |index: u32| blocks[index as usize];
                conversion.ranges(side, (layer, unit), tokens, block).flatten().map(|at| at as u64).collect()
            };
            let ours: Vec<u64> = bytes(Side::Source, &sources).into_iter().map(|at| moved[&at]).collect();
            prop_assert!(!ours.is_empty());
            prop_assert_eq!(ours, bytes(Side::Destination, table));
        }
    }
}

#[test]
fn the_same_layout_is_moved_in_runs_of_blocks() {
    let layout = KvLayout {
        layers: 1,
        kv_heads: 2,
        head_dim: 8,
        block_tokens: 16,
        dtype: KvDtype::Bf16,
        placement: KvPlacement::Split,
        order: KvOrder::Nhd,
        tensor_parallel: TensorParallel::SINGLE,
    };
    let geometry = KvGeometry { layout, blocks: 100 };
    let conversion = Conversion::between(geometry, geometry).unwrap();
    let plan = Plan::new(&conversion, &[(5, 0), (6, 1), (9, 2)], &[20, 21, 30], 40);
    let tensor = layout.tensor_bytes();
    assert_eq!(
        *plan.tiles,
        [(5, 20, 2), (105, 120, 2), (9, 30, 1), (109, 130, 1)].map(|(from, to, len): (u64, u64, u64)| {
            Tile::contiguous(from * tensor, to * tensor, len * tensor)
        })
    );
}
