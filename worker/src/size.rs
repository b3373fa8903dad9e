//! How large the KV pool is.

use std::{fmt, fs, str::FromStr};

use baton_engine::KvLayout;

/// Contexts of full length that the pool holds when nobody says otherwise.
const FULL_CONTEXTS: usize = 8;
/// Part of the free memory that it takes at most.
const PART_OF_FREE_MEMORY: u64 = 4;
/// Largest pool when nobody says otherwise.
const MOST_BYTES: u64 = 4 << 30;

/// A number of bytes, read from text such as `512MiB`, `4GiB`, `1.5GB` or `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// What the pool's size is chosen from.
#[derive(Clone, Copy, Debug)]
pub struct KvBudget {
    /// Asked for.
    pub blocks: Option<u32>,
    /// Asked for.
    pub bytes: Option<ByteSize>,
    /// Longest context, in tokens.
    pub max_context_tokens: usize,
    /// What this process may still take.
    pub free_memory_bytes: u64,
}

impl KvBudget {
    /// Blocks of the pool; 0 when what was asked for holds none.
    pub fn num_blocks(&self, layout: &KvLayout) -> u32 {
        let block_bytes = layout.pool_bytes(1) as u64;
        let blocks_of = |bytes: u64| bytes / block_bytes.max(1);
        let blocks = match (self.blocks, self.bytes) {
            (Some(blocks), _) => u64::from(blocks),
            (None, Some(ByteSize(bytes))) => blocks_of(bytes),
            (None, None) => {
                let wanted = (FULL_CONTEXTS * layout.blocks_for(self.max_context_tokens)) as u64;
                let affordable = blocks_of((self.free_memory_bytes / PART_OF_FREE_MEMORY).min(MOST_BYTES));
                wanted.min(affordable).max(1)
            }
        };
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }
}

/// Memory that this process may still take: the machine's, or its control group's when that is less.
pub(crate) fn free_memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let group = || {
        let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        Some(number("/sys/fs/cgroup/memory.max")?.saturating_sub(number("/sys/fs/cgroup/memory.current")?))
    };
    machine.unwrap_or(MOST_BYTES).min(group().unwrap_or(u64::MAX))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 9] = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
            ("B", 1),
        ];
        let wrong = || format!("{text:?} is not a size; write for example 512MiB or 4GiB");
        let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let (number, unit) = unit.unwrap_or((text, 1));
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let bytes = number * unit as f64;
        if bytes >= 1.0 && bytes < (1_u64 << 60) as f64 { Ok(Self(bytes as u64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ ..0x10_0000 => write!(f, "{bytes} B"),
            bytes @ ..0x4000_0000 => write!(f, "{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
            bytes => write!(f, "{:.2} GiB", bytes as f64 / f64::from(1 << 30)),
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_engine::Dtype;

    use super::*;

    const LAYOUT: KvLayout =
        KvLayout { layers: 2, kv_heads: 2, head_dim: 64, block_tokens: 16, dtype: Dtype::Bf16 };
    const BUDGET: KvBudget =
        KvBudget { blocks: None, bytes: None, max_context_tokens: 1000, free_memory_bytes: 1 << 40 };

    #[test]
    fn sizes_are_read_with_their_units() {
        let bytes = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("1.5 GB"), Ok(1_500_000_000));
        for wrong in ["", "MiB", "-1MiB", "0", "1XB", "nanGiB", "1e40GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn by_default_the_pool_holds_eight_contexts_or_a_quarter_of_the_free_memory() {
        assert_eq!(BUDGET.num_blocks(&LAYOUT), 8 * 63);
        let block_bytes = LAYOUT.pool_bytes(1) as u64;
        let tight = KvBudget { free_memory_bytes: 4 * 10 * block_bytes, ..BUDGET };
        assert_eq!(tight.num_blocks(&LAYOUT), 10);
    }

    #[test]
    fn what_is_asked_for_is_what_there_is() {
        assert_eq!(KvBudget { blocks: Some(7), ..BUDGET }.num_blocks(&LAYOUT), 7);
        let bytes = Some(ByteSize(3 * LAYOUT.pool_bytes(1) as u64 + 1));
        assert_eq!(KvBudget { bytes, ..BUDGET }.num_blocks(&LAYOUT), 3);
        assert_eq!(KvBudget { bytes: Some(ByteSize(1)), ..BUDGET }.num_blocks(&LAYOUT), 0);
    }

    #[test]
    fn available_memory_is_read_from_meminfo() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
