//! What one worker sends to another, and where each byte of it lies at both ends.

use std::ops::Range;

use super::{KvGeometry, KvLayout, KvOrder, KvPlacement, Mismatch, TensorParallel};

/// An end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// The verdict on two workers that can exchange KV.
///
/// A transfer is counted, covered and hashed in *units*: a unit is what one source block holds of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub(crate) source: KvGeometry,
    pub(crate) destination: KvGeometry,
    /// The heads that go from here to there, as the model numbers them; empty when the receiver gets all of its heads
    /// from others.
    pub(crate) heads: Range<u32>,
    /// The first of them, as each of the two workers numbers its own.
    pub(crate) first_heads: (u32, u32),
    /// Senders that together have what the receiver holds.
    pub(crate) senders: u32,
}

impl Conversion {
    /// Pairs two workers of one model. Of several senders with the same head the receiver's rank decides.
    pub(crate) fn between(source: KvGeometry, destination: KvGeometry) -> Result<Self, Mismatch> {
        check(&source, &destination)?;
        let (ours, theirs) = (source.layout, destination.layout);
        let needed = theirs.heads();
        let (size, kv_heads) = (ours.tensor_parallel.size, ours.kv_heads);
        let (heads, senders) = if size <= kv_heads {
            let (held, each) = (ours.heads(), kv_heads / size);
            let overlap = held.start.max(needed.start)..held.end.min(needed.end);
            (overlap, (needed.end - 1) / each - needed.start / each + 1)
        } else {
            let replicas = size / kv_heads;
            let chosen = ours.tensor_parallel.rank % replicas == theirs.tensor_parallel.rank % replicas;
            let held = ours.heads();
            let sends = chosen && needed.contains(&held.start);
            (if sends { held } else { 0..0 }, needed.len() as u32)
        };
        Ok(Self::of_heads(source, destination, heads, senders))
    }

    /// What one worker can read of another: of a head that several hold, any of them will do.
    pub(crate) fn of_pull(source: KvGeometry, destination: KvGeometry) -> Result<Self, Mismatch> {
        check(&source, &destination)?;
        let (held, needed) = (source.layout.heads(), destination.layout.heads());
        let heads = held.start.max(needed.start)..held.end.min(needed.end);
        Ok(Self::of_heads(source, destination, heads, 1))
    }

    fn of_heads(source: KvGeometry, destination: KvGeometry, heads: Range<u32>, senders: u32) -> Self {
        let first = |layout: &KvLayout| heads.start.saturating_sub(layout.heads().start);
        let first_heads = (first(&source.layout), first(&destination.layout));
        Self { source, destination, heads, first_heads, senders }
    }

    /// The same in two steps, with a place between: from the source into units that are together, and from there to the
    /// destination. The place is as a pool of one layer, a block for each unit; `None` if not even one has room in `bytes`.
    pub(crate) fn staged(&self, bytes: u64) -> Option<(Self, Self)> {
        let layout = KvLayout {
            layers: 1,
            kv_heads: self.heads.len() as u32,
            order: KvOrder::Hnd,
            tensor_parallel: TensorParallel::SINGLE,
            placement: match self.source.layout.placement {
                KvPlacement::Latent => KvPlacement::Latent,
                KvPlacement::Joined | KvPlacement::Split => KvPlacement::Joined,
            },
            ..self.source.layout
        };
        let blocks = u32::try_from(bytes / layout.block_bytes()).unwrap_or(u32::MAX);
        let stage = KvGeometry { layout, blocks };
        let (first, last) = self.first_heads;
        let gather = Self { destination: stage, first_heads: (first, 0), ..self.clone() };
        let scatter = Self { source: stage, first_heads: (0, last), ..self.clone() };
        (blocks > 0).then_some((gather, scatter))
    }

    /// Whether the receiver gets anything from this sender.
    pub(crate) fn is_needed(&self) -> bool {
        !self.heads.is_empty()
    }

    /// Whether a block of the one is, byte for byte, a block of the other.
    pub(crate) fn keeps_blocks(&self) -> bool {
        let (ours, theirs) = (&self.source.layout, &self.destination.layout);
        let whole = self.heads == ours.heads() && self.heads == theirs.heads();
        whole
            && (ours.block_tokens, ours.order, ours.placement)
                == (theirs.block_tokens, theirs.order, theirs.placement)
    }

    /// Units of one layer of a sequence.
    pub(crate) fn units(&self, tokens: u32) -> u32 {
        self.source.layout.blocks_for(tokens)
    }

    /// Payload of a whole transfer.
    pub(crate) fn bytes(&self, tokens: u32) -> u64 {
        let last = self.units(tokens).saturating_sub(1);
        let layer = u64::from(last) * self.unit_bytes(0, tokens) + self.unit_bytes(last, tokens);
        u64::from(self.source.layout.layers) * layer
    }

    /// Payload of a unit: its tokens, or the whole block where blocks are moved as they are.
    pub(crate) fn unit_bytes(&self, unit: u32, tokens: u32) -> u64 {
        let layout = &self.source.layout;
        if self.keeps_blocks() {
            return layout.block_bytes();
        }
        let rows = self.tokens(unit, tokens).len() as u64 * self.heads.len() as u64;
        rows * u64::from(layout.placement.tensors()) * layout.row_bytes()
    }

    /// The tokens of a unit, of a sequence of so many.
    pub(crate) fn tokens(&self, unit: u32, tokens: u32) -> Range<u32> {
        let each = self.source.layout.block_tokens;
        unit * each..((unit + 1) * each).min(tokens)
    }

    pub(crate) fn geometry(&self, side: Side) -> &KvGeometry {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    /// Where a unit's bytes lie at one side, in an order that is the same at both. `block` tells the id of the side's n-th block.
    pub(crate) fn ranges<'a>(
        &'a self,
        side: Side,
        (layer, unit): (u32, u32),
        tokens: u32,
        block: impl Fn(u32) -> u32 + Copy + 'a,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        // What follows the last token is nobody's.
        let full = self.tokens(unit, tokens).len() == self.source.layout.block_tokens as usize;
        let whole = self.keeps_blocks() && full;
        let pieces = whole.then(|| self.geometry(side).pieces(layer, block(unit)));
        let rows = (!whole).then(move || self.rows(side, layer, self.tokens(unit, tokens), block));
        pieces.into_iter().flatten().chain(rows.into_iter().flatten())
    }

    fn rows<'a>(
        &'a self,
        side: Side,
        layer: u32,
        tokens: Range<u32>,
        block: impl Fn(u32) -> u32 + Copy + 'a,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        let geometry = self.geometry(side);
        let layout = &geometry.layout;
        let (each, row) = (layout.block_tokens, layout.row_bytes() as usize);
        let first = self.heads.start
            - match side {
                Side::Source => self.first_heads.0,
                Side::Destination => self.first_heads.1,
            };
        let (token_stride, head_stride) = geometry.strides();
        let heads = move |tensor| self.heads.clone().map(move |head| (tensor, head - first));
        (0..layout.placement.tensors()).flat_map(heads).flat_map(move |(tensor, head)| {
            tokens.clone().map(move |token| {
                let start = geometry.tensor_offset(layer, tensor, block(token / each));
                let within = u64::from(token % each) * token_stride + u64::from(head) * head_stride;
                let start = (start + within) as usize;
                start..start + row
            })
        })
    }
}

/// Names the first field in which two workers differ beyond conversion.
fn check(source: &KvGeometry, destination: &KvGeometry) -> Result<(), Mismatch> {
    let (ours, theirs) = (&source.layout, &destination.layout);
    let latent = |placement| if placement == KvPlacement::Latent { "latent" } else { "keys and values" };
    let facts = [
        ("layers", ours.layers.to_string(), theirs.layers.to_string()),
        ("kv_heads", ours.kv_heads.to_string(), theirs.kv_heads.to_string()),
        ("head_dim", ours.head_dim.to_string(), theirs.head_dim.to_string()),
        ("dtype", ours.dtype.to_string(), theirs.dtype.to_string()),
        ("placement", latent(ours.placement).to_owned(), latent(theirs.placement).to_owned()),
    ];
    match facts.into_iter().find(|(_, ours, theirs)| ours != theirs) {
        Some((field, ours, theirs)) => Err(Mismatch { field, ours, theirs }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::KvDtype;
    use super::*;

    const LAYOUT: KvLayout = KvLayout {
        layers: 2,
        kv_heads: 8,
        head_dim: 4,
        block_tokens: 4,
        dtype: KvDtype::Bf16,
        placement: KvPlacement::Joined,
        order: KvOrder::Hnd,
        tensor_parallel: TensorParallel::SINGLE,
    };

    fn pool(rank: u32, size: u32) -> KvGeometry {
        let layout = KvLayout { tensor_parallel: TensorParallel { rank, size }, ..LAYOUT };
        KvGeometry { layout, blocks: 10 }
    }

    #[test]
    fn whatever_the_ranks_each_receiver_gets_each_of_its_heads_once() {
        let sizes = [1, 2, 4, 8, 16, 32];
        for (senders, receivers) in sizes.into_iter().flat_map(|s| sizes.map(|r| (s, r))) {
            let mut sent = 0;
            for receiver in 0..receivers {
                let needed = pool(receiver, receivers).layout.heads();
                let mut got: Vec<u32> = Vec::new();
                let mut needing = 0;
                for sender in 0..senders {
                    let pair = Conversion::between(pool(sender, senders), pool(receiver, receivers)).unwrap();
                    got.extend(pair.heads.clone());
                    needing += u32::from(pair.is_needed());
                    if pair.is_needed() {
                        assert!(pair.heads.clone().all(|head| pair.source.layout.heads().contains(&head)));
                        sent += 1;
                    }
                    assert!(!pair.is_needed() || pair.senders >= 1);
                }
                got.sort_unstable();
                assert_eq!(got, needed.collect::<Vec<_>>(), "{senders} to rank {receiver} of {receivers}");
                let any = Conversion::between(pool(0, senders), pool(receiver, receivers)).unwrap();
                assert_eq!(any.senders, needing, "{senders} to rank {receiver} of {receivers}");
            }
            assert!(sent >= receivers);
        }
    }

    #[test]
    fn whoever_holds_all_heads_of_a_reader_can_be_read_whichever_replica_it_is() {
        let sizes = [1, 2, 4, 8, 16, 32];
        for (owners, readers) in sizes.into_iter().flat_map(|o| sizes.map(|r| (o, r))) {
            for (owner, reader) in (0..owners).flat_map(|o| (0..readers).map(move |r| (o, r))) {
                let pair = Conversion::of_pull(pool(owner, owners), pool(reader, readers)).unwrap();
                let (held, needed) = (pair.source.layout.heads(), pair.destination.layout.heads());
                let both: Vec<u32> = needed.clone().filter(|head| held.contains(head)).collect();
                assert_eq!(
                    pair.heads.clone().collect::<Vec<_>>(),
                    both,
                    "{owner}/{owners} {reader}/{readers}"
                );
                assert_eq!(pair.heads == needed, both.len() == needed.len());
            }
        }
    }

    #[test]
    fn what_cannot_be_converted_is_named() {
        let ours = pool(0, 1);
        let with = |layout| KvGeometry { layout, ..ours };
        let others = [
            ("layers", KvLayout { layers: 3, ..LAYOUT }),
            ("kv_heads", KvLayout { kv_heads: 4, ..LAYOUT }),
            ("head_dim", KvLayout { head_dim: 8, ..LAYOUT }),
            ("dtype", KvLayout { dtype: KvDtype::F16, ..LAYOUT }),
            ("placement", KvLayout { placement: KvPlacement::Latent, ..LAYOUT }),
        ];
        for (field, layout) in others {
            assert_eq!(Conversion::between(ours, with(layout)).unwrap_err().field, field);
        }
        let same = Conversion::between(ours, KvGeometry { blocks: 3, ..ours }).unwrap();
        assert!(same.keeps_blocks());
        let other = KvLayout { order: KvOrder::Nhd, block_tokens: 7, ..LAYOUT };
        assert!(!Conversion::between(ours, with(other)).unwrap().keeps_blocks());
    }
}
