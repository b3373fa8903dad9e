//! A pool's shape on the wire.

use crate::layout::{KvGeometry, KvLayout, KvOrder, KvPlacement, TensorParallel};

/// Numbers as a peer alleges them.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GeometryWire {
    #[prost(uint32, tag = "1")]
    layers: u32,
    #[prost(uint32, tag = "2")]
    kv_heads: u32,
    #[prost(uint32, tag = "3")]
    head_dim: u32,
    #[prost(uint32, tag = "4")]
    block_tokens: u32,
    /// By name, so that a peer with one that we do not know is told so.
    #[prost(string, tag = "5")]
    dtype: String,
    #[prost(uint32, tag = "6")]
    placement: u32,
    #[prost(uint32, tag = "7")]
    order: u32,
    #[prost(uint32, tag = "8")]
    rank: u32,
    #[prost(uint32, tag = "9")]
    ranks: u32,
    #[prost(uint32, tag = "10")]
    blocks: u32,
}

const PLACEMENTS: [KvPlacement; 3] = [KvPlacement::Joined, KvPlacement::Split, KvPlacement::Latent];
const ORDERS: [KvOrder; 2] = [KvOrder::Nhd, KvOrder::Hnd];

impl From<&KvGeometry> for GeometryWire {
    fn from(geometry: &KvGeometry) -> Self {
        let KvLayout { layers, kv_heads, head_dim, block_tokens, dtype, placement, order, tensor_parallel } =
            geometry.layout;
        let number = |found: Option<usize>| found.map_or(u32::MAX, |index| index as u32);
        Self {
            layers,
            kv_heads,
            head_dim,
            block_tokens,
            dtype: dtype.to_string(),
            placement: number(PLACEMENTS.iter().position(|&known| known == placement)),
            order: number(ORDERS.iter().position(|&known| known == order)),
            rank: tensor_parallel.rank,
            ranks: tensor_parallel.size,
            blocks: geometry.blocks,
        }
    }
}

impl GeometryWire {
    /// The shape, if it is one that can be.
    pub(crate) fn checked(&self) -> Result<KvGeometry, String> {
        let unknown = |what: &str, number: u32| format!("{what} {number} is unknown to this version");
        let placement = PLACEMENTS.get(self.placement as usize);
        let order = ORDERS.get(self.order as usize);
        let layout = KvLayout {
            layers: self.layers,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            block_tokens: self.block_tokens,
            dtype: self.dtype.parse().map_err(|error: crate::UnknownDtype| error.to_string())?,
            placement: *placement.ok_or_else(|| unknown("placement", self.placement))?,
            order: *order.ok_or_else(|| unknown("order", self.order))?,
            tensor_parallel: TensorParallel { rank: self.rank, size: self.ranks },
        };
        let geometry = KvGeometry { layout, blocks: self.blocks };
        geometry.validate().map_err(|error| error.to_string())?;
        Ok(geometry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvDtype;

    #[test]
    fn shapes_read_back_as_written_and_impossible_ones_are_refused() {
        let layout = KvLayout {
            layers: 1,
            kv_heads: 8,
            head_dim: 3,
            block_tokens: 4,
            dtype: KvDtype::Fp8E5m2,
            placement: KvPlacement::Split,
            order: KvOrder::Hnd,
            tensor_parallel: TensorParallel { rank: 3, size: 4 },
        };
        let geometry = KvGeometry { layout, blocks: 7 };
        let wire = GeometryWire::from(&geometry);
        assert_eq!(wire.checked(), Ok(geometry));
        type Lie = fn(&mut GeometryWire);
        let lies: [Lie; 6] = [
            |wire| wire.placement = 3,
            |wire| wire.order = 2,
            |wire| wire.rank = 4,
            |wire| wire.ranks = 0,
            |wire| wire.blocks = 0,
            |wire| wire.dtype = "f8".to_owned(),
        ];
        for lie in lies {
            let mut wire = wire.clone();
            lie(&mut wire);
            wire.checked().unwrap_err();
        }
    }
}
