//! Gathering into chunks, and scattering out of them.

use super::posting::{Post, Tried};
use super::{DataPlane, SendId};
use crate::engine::{Next, Staged, Work};
use crate::ids::{PeerId, TransferKey};
use crate::layout::Conversion;
use crate::memory::Mapping;
use crate::plan::{Tile, unit_tiles};
use crate::receive::Scatter;
use crate::staging::{HEADER_BYTES, Header};

impl DataPlane {
    /// A chunk was granted to one of our transfers.
    pub(super) fn granted(&mut self, peer: PeerId, key: TransferKey, chunk: u32) {
        let Some(id) = self.sending_of(peer, key) else { return };
        let staged = self.sends.get_mut(&id).and_then(|sending| sending.staged.as_mut());
        let Some(staged) = staged else { return };
        staged.granted(chunk);
        self.queue_up(id);
    }

    /// Fills a chunk and posts it, if the receiver granted one and one of ours is free.
    pub(super) fn post_chunk(&mut self, id: SendId) -> Post {
        let Some(theirs) = self.next_grant(id) else { return Post::Nothing };
        let Some(sending) = self.sends.get_mut(&id) else { return Post::Nothing };
        let Some(ours) = self.chunks.pop() else { return Post::Blocked };
        let (Some(staged), Some(Next::Work(Work::Units(cursor)))) = (&sending.staged, sending.next()) else {
            self.chunks.push(ours);
            return Post::Nothing;
        };
        let (layer, units) = cursor.batch(staged.room);
        let start = self.memory.region.send_chunk(ours);
        gather(self.memory.pool.region(), staged, layer, units, start);
        let block_bytes = staged.gather.destination.layout.block_bytes();
        let (taken, bytes) = (units.len() as u32, staged.bytes(units));
        let len = HEADER_BYTES + u64::from(taken) * block_bytes;
        let tile = Tile::contiguous(start, staged.theirs.receive_chunk(theirs), len);
        match self.try_post(id, &tile, Some((ours, bytes))) {
            Tried::Posted => {
                self.use_grant(id);
                let posted = self.sends.get_mut(&id).map_or(0, |sending| sending.chunk_posted(taken, bytes));
                self.with(id, |_| posted);
                Post::Posted(len)
            }
            Tried::NoRoom => {
                self.chunks.push(ours);
                Post::Blocked
            }
            Tried::Failed => {
                self.chunks.push(ours);
                Post::Nothing
            }
        }
    }

    /// Posts a filled chunk once more, into another one of theirs: the first may still be written.
    pub(super) fn post_chunk_again(&mut self, id: SendId, tile: &Tile, chunk: (u32, u64)) -> Post {
        let Some(theirs) = self.next_grant(id) else { return Post::Nothing };
        let region =
            self.sends.get(&id).and_then(|sending| sending.staged.as_ref()).map(|staged| staged.theirs);
        let Some(region) = region else { return Post::Nothing };
        let tile = Tile::contiguous(tile.source, region.receive_chunk(theirs), tile.len);
        let post = self.post_again(id, &tile, Some(chunk));
        if matches!(post, Post::Posted(_)) {
            self.use_grant(id);
        }
        post
    }

    /// The chunk of theirs that a transfer may write next. `None`: it leaves the turn until there is one.
    fn next_grant(&mut self, id: SendId) -> Option<u32> {
        let sending = self.sends.get_mut(&id)?;
        sending.ask_for_chunks();
        let grant = sending.staged.as_ref().and_then(|staged| staged.grants.front().copied());
        sending.in_turn = grant.is_some();
        grant
    }

    fn use_grant(&mut self, id: SendId) {
        let staged = self.sends.get_mut(&id).and_then(|sending| sending.staged.as_mut());
        staged.and_then(|staged| staged.grants.pop_front());
    }

    /// Brings what has landed to its blocks.
    pub(super) fn scatter(&mut self) {
        while let Some(scatter) = self.scatters.pop() {
            let start = self.memory.region.receive_chunk(scatter.chunk);
            let payload = self.memory.region.chunk_bytes - HEADER_BYTES;
            let outcome = spread(self.memory.pool.region(), &scatter, start, payload);
            self.receiver.scattered(&scatter, outcome);
        }
    }
}

/// Copies units of a layer into the chunk at `start`.
pub(crate) fn gather(memory: &Mapping, staged: &Staged, layer: u32, units: &[(u32, u32)], start: u64) {
    let mut header = [0; HEADER_BYTES as usize];
    Header::encode(layer, units.iter().map(|&(_, unit)| unit), &mut header);
    memory.copy_in(start as usize, &header);
    let from = u64::from(layer) * staged.gather.source.layer_bytes();
    for (&pair, place) in units.iter().zip(0..) {
        for tile in unit_tiles(&staged.gather, pair, |_| place, staged.tokens) {
            copy(memory, &tile, from, start + HEADER_BYTES);
        }
    }
}

/// Copies what the chunk at `start` holds to its blocks. Whoever wrote it may have written anything.
pub(crate) fn spread(memory: &Mapping, scatter: &Scatter, start: u64, payload: u64) -> Result<(), String> {
    let Scatter { conversion, tokens, cell, .. } = scatter;
    let (_, spread) = conversion.staged(payload).ok_or("no unit has room in it")?;
    let mut header = [0; HEADER_BYTES as usize];
    memory.copy_out(start as usize, &mut header);
    let layers = conversion.source.layout.layers;
    let header = Header::decode(&header, layers, conversion.units(*tokens), spread.source.blocks)?;
    let to = layer_start(&spread, header.layer);
    let block_at = |index: u32| cell.blocks[index as usize];
    for (&unit, place) in header.units.iter().zip(0..) {
        for tile in unit_tiles(&spread, (place, unit), block_at, *tokens) {
            copy(memory, &tile, start + HEADER_BYTES, to);
        }
    }
    Ok(())
}

fn layer_start(conversion: &Conversion, layer: u32) -> u64 {
    u64::from(layer) * conversion.destination.layer_bytes()
}

fn copy(memory: &Mapping, tile: &Tile, from: u64, to: u64) {
    for (source, destination) in tile.places() {
        memory.copy_within((from + source) as usize, (to + destination) as usize, tile.len as usize);
    }
}
