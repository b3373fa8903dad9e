//! The sender's announcement, checked against what was asked for.

use std::sync::Arc;

use crate::checksum::{Hashed, Selection};
use crate::layout::Conversion;
use crate::tally::Tally;
use crate::ticket::{checksums_from_wire, checksums_to_wire};
use crate::wire::{Amend, Manifest};
use crate::{ChecksumMode, TransferError};

/// A manifest that describes exactly the transfer which its receiver asked for.
#[derive(Clone, Debug)]
pub(crate) struct CheckedManifest {
    pub(crate) writes: Tally,
    /// Those of them that failed on their way and were made up for by others: each may have landed, may land yet, or never.
    pub(crate) doubtful: Tally,
    pub(crate) bytes: u64,
    pub(crate) hashed: Hashed,
}

/// What the receiver asked for.
pub(crate) struct Wanted {
    pub(crate) conversion: Arc<Conversion>,
    pub(crate) tokens: u32,
    pub(crate) checksums: ChecksumMode,
    pub(crate) seed: u64,
}

impl CheckedManifest {
    pub(crate) fn check(manifest: &Manifest, wanted: &Wanted) -> Result<Self, TransferError> {
        let (layers, units) =
            (wanted.conversion.source.layout.layers, wanted.conversion.units(wanted.tokens));
        let pieces = u64::from(layers) * u64::from(units);
        let same = |field: &str, announced: u64, expected: u64| {
            if announced == expected { Ok(()) } else { Err(mismatch(field, announced, expected)) }
        };
        same("layers", manifest.layers.into(), layers.into())?;
        same("units", manifest.units.into(), units.into())?;
        same("pieces", manifest.pieces, pieces)?;
        same("bytes", manifest.bytes, wanted.conversion.bytes(wanted.tokens))?;
        same("tokens", manifest.tokens.into(), wanted.tokens.into())?;
        if manifest.writes == 0 {
            return Err(mismatch("writes", 0, pieces));
        }
        let doubtful = manifest.doubtful.unwrap_or_default();
        check_doubtful(doubtful, manifest.writes)?;
        let asked = checksums_to_wire(wanted.checksums);
        let mode = checksums_from_wire(manifest.checksums)
            .filter(|_| manifest.checksums >= asked)
            .ok_or_else(|| mismatch("checksums", manifest.checksums.into(), asked.into()))?;
        let selection = Selection::new(mode, wanted.seed, layers, units);
        same("hashes", manifest.hashes.len() as u64, selection.len() as u64 * 8)?;
        let hashes =
            manifest.hashes.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
        let hashed = Hashed { conversion: wanted.conversion.clone(), selection, hashes };
        Ok(Self { writes: Tally::first(manifest.writes), doubtful, bytes: manifest.bytes, hashed })
    }

    /// Takes over other counts.
    pub(crate) fn amend(&mut self, amend: &Amend) -> Result<(), TransferError> {
        (self.writes, self.doubtful) = (Tally::first(amend.writes), amend.doubtful);
        check_doubtful(amend.doubtful, amend.writes)
    }

    /// Whether these are all writes but some of the doubtful ones. When those are in between, their number has to do: the
    /// sender knows by their completions that all others are delivered.
    pub(crate) fn allows(&self, arrived: Tally) -> bool {
        let sure = self.writes.without(self.doubtful);
        arrived == self.writes
            || arrived == sure
            || (arrived.writes > sure.writes && arrived.writes < self.writes.writes)
    }

    /// Bytes that comparing the hashes reads.
    pub(crate) fn hashed_bytes(&self) -> u64 {
        self.hashed.hashes.len() as u64 * self.hashed.conversion.source.layout.block_bytes()
    }
}

/// Each doubtful write was made once more.
fn check_doubtful(doubtful: Tally, writes: u32) -> Result<(), TransferError> {
    if doubtful.writes < writes {
        return Ok(());
    }
    Err(mismatch("doubtful", doubtful.writes.into(), writes.into()))
}

fn mismatch(field: &str, announced: u64, expected: u64) -> TransferError {
    TransferError::Manifest { field: field.to_owned(), announced, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvGeometry;

    fn wanted() -> Wanted {
        let geometry = KvGeometry::plain(4, 64, 512);
        let conversion = Arc::new(Conversion::between(geometry, geometry).unwrap());
        Wanted { conversion, tokens: 10, checksums: ChecksumMode::Sampled, seed: 3 }
    }

    fn honest() -> Manifest {
        let hashes = Selection::new(ChecksumMode::Sampled, 3, 4, 10).len() * 8;
        Manifest {
            writes: 5,
            bytes: 4 * 10 * 512,
            layers: 4,
            units: 10,
            pieces: 40,
            tokens: 10,
            checksums: 1,
            hashes: vec![0; hashes],
            ..Manifest::default()
        }
    }

    #[test]
    fn an_honest_manifest_passes_and_each_lie_is_named() {
        CheckedManifest::check(&honest(), &wanted()).unwrap();
        type Lie = fn(&mut Manifest);
        let lies: [(&str, Lie); 10] = [
            ("layers", |m| m.layers = 5),
            ("units", |m| m.units = 9),
            ("pieces", |m| m.pieces = 39),
            ("bytes", |m| m.bytes -= 1),
            ("tokens", |m| m.tokens = 11),
            ("writes", |m| m.writes = 0),
            ("doubtful", |m| m.doubtful = Some(Tally::first(5))),
            ("checksums", |m| m.checksums = 0),
            ("checksums", |m| m.checksums = 77),
            ("hashes", |m| m.hashes.truncate(9)),
        ];
        for (name, lie) in lies {
            let mut manifest = honest();
            lie(&mut manifest);
            let error = CheckedManifest::check(&manifest, &wanted()).unwrap_err();
            assert!(
                matches!(&error, TransferError::Manifest { field, .. } if field == name),
                "{name}: {error}"
            );
        }
    }
}
