//! What the machine gave to us, and to others.

use std::fs;

/// CPU time of the whole machine since it was started, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    /// Now; `None` where the kernel does not say.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line of /proc/stat: user nice system idle iowait irq softirq steal (proc(5)).
    fn parse(stat: &str) -> Option<Self> {
        let times = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
        let times: Vec<u64> = times.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { all: times.iter().sum(), stolen: *times.get(7)? })
    }

    /// The share of the time since `earlier` that the hypervisor gave to others.
    pub(crate) fn stolen_since(self, earlier: Self) -> f64 {
        let (all, stolen) =
            (self.all.saturating_sub(earlier.all), self.stolen.saturating_sub(earlier.stolen));
        if all == 0 { 0.0 } else { stolen as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_read() {
        let before = Ticks::parse("cpu  10 0 10 70 0 0 0 10 5 5\ncpu0 1\n").unwrap();
        let after = Ticks::parse("cpu  20 0 20 125 0 0 0 35 9 9\n").unwrap();
        assert_eq!(after.stolen_since(before), 0.25);
        assert_eq!(after.stolen_since(after), 0.0);
        assert_eq!(Ticks::parse("intr 5"), None);
    }
}
