//! How values are spread: a histogram that can be added to another one, and whose buckets are those of the pickers that dashboards were made for.

/// Upper bounds of buckets, as llm-d's router has them.
pub(super) mod bounds {
    pub(in crate::epp) const REQUEST_SECONDS: &[f64] = &[
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
        15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0,
        2700.0, 3600.0,
    ];
    pub(in crate::epp) const FIRST_TOKEN_SECONDS: &[f64] = &[
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
        15.0, 20.0, 30.0, 45.0, 60.0, 120.0,
    ];
    pub(in crate::epp) const TOKEN_SECONDS: &[f64] = &[
        0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8,
        1.0, 2.0,
    ];
    pub(in crate::epp) const NORMALIZED_SECONDS: &[f64] =
        &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
    pub(in crate::epp) const REQUEST_BYTES: &[f64] = &[
        64.0,
        128.0,
        256.0,
        512.0,
        1024.0,
        2048.0,
        4096.0,
        8192.0,
        16384.0,
        32768.0,
        65536.0,
        131072.0,
        262144.0,
        524288.0,
        1048576.0,
        2097152.0,
        4194304.0,
        8388608.0,
        16777216.0,
        33554432.0,
        67108864.0,
        134217728.0,
        268435456.0,
        536870912.0,
        1073741824.0,
    ];
    pub(in crate::epp) const RESPONSE_BYTES: &[f64] = &[
        1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32778.0,
        65536.0,
    ];
    pub(in crate::epp) const INPUT_TOKENS: &[f64] = &[
        1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32778.0,
        65536.0, 131072.0, 262144.0, 524288.0, 1048576.0,
    ];
    pub(in crate::epp) const OUTPUT_TOKENS: &[f64] =
        &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];
    pub(in crate::epp) const QUEUE_SECONDS: &[f64] =
        &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
    pub(in crate::epp) const SCHEDULER_SECONDS: &[f64] =
        &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
    pub(in crate::epp) const PROCESSING_SECONDS: &[f64] =
        &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    pub(in crate::epp) const SHARE: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
    pub(in crate::epp) const HIT_BYTES: &[f64] = &[
        0.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0,
    ];
}

/// Values by bucket.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    bounds: &'static [f64],
    // One more than bounds: the last is for all that is larger.
    counts: Vec<u64>,
    sum: f64,
}

impl Spread {
    /// Empty.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub(super) fn observe(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Adds what `other`, of the same bounds, has seen.
    pub(super) fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds, other.bounds, "one metric");
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, count)| *own += count);
        self.sum += other.sum;
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    /// Upper bounds with what is in each bucket alone.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        self.bounds.iter().copied().chain([f64::INFINITY]).zip(self.counts.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_takes_it() {
        let mut spread = Spread::new(bounds::SHARE);
        for value in [0.0, 0.05, 0.1, 1.0, 7.0] {
            spread.observe(value);
        }
        let filled: Vec<_> = spread.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0, 1), (0.1, 2), (1.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((spread.count(), spread.sum()), (5, 8.15));
    }

    #[test]
    fn what_is_added_is_as_if_seen_here() {
        let (mut one, mut other, mut both) =
            (Spread::new(bounds::SHARE), Spread::new(bounds::SHARE), Spread::new(bounds::SHARE));
        one.observe(0.25);
        other.observe(0.5);
        [0.25, 0.5].into_iter().for_each(|value| both.observe(value));
        one.add(&other);
        assert_eq!(one, both);
    }
}
