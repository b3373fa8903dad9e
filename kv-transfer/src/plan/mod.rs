//! Turning block tables into few large writes. Pure: numbers in, numbers out.
//!
//! A plan is made once for the blocks of a push and serves every layer, as a block has the same neighbours in each. Where
//! layouts agree it is runs of neighbouring blocks; where they differ it is [tiles](Tile): rows at regular distances.

mod cursor;
mod runs;
mod tiles;

pub(crate) use cursor::{Cursor, WriteRules};
pub(crate) use tiles::{Plan, Step, Tile, mean_write_bytes, unit_tiles};
