//! What this machine can do at most, measured now.

use std::time::Instant;

use crate::{
    Isa,
    kernels::{Buffer, Peak, Threads, Unit},
};

/// More than any cache holds.
pub(super) const READ_BYTES: usize = 512 << 20;
/// A thread reads this at a time.
const SLICE: usize = 64 << 10;
/// Rounds of a loop of products that a thread does at a time.
const ROUNDS: usize = 20_000;
/// Such loops for each thread.
const LOOPS: usize = 64;
/// Each figure is the best of so many tries: what neighbours on the machine took away is not the machine's limit.
const TRIES: usize = 5;

/// Limits of some threads together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes read from memory in a second.
    pub read_bytes: f64,
    /// Multiplications and additions of f32 in a second.
    pub f32_operations: f64,
    /// Of products of bf16; where there is no instruction for them, of f32.
    pub bf16_operations: f64,
    /// Of products of eight-bit numbers; likewise.
    pub int8_operations: f64,
}

impl Limits {
    /// Measures for about two seconds.
    ///
    /// # Errors
    /// No memory to read.
    pub fn measure(isa: Isa, threads: usize) -> std::io::Result<Self> {
        let threads = &mut Threads::new(threads);
        Ok(Self {
            read_bytes: reading(threads)?,
            f32_operations: computing(threads, isa, Unit::Fma),
            bf16_operations: computing(threads, isa, Unit::Bf16Dot),
            int8_operations: computing(threads, isa, Unit::Int8Dot),
        })
    }

    pub(crate) fn operations(&self, unit: Unit) -> f64 {
        match unit {
            Unit::Fma => self.f32_operations,
            Unit::Bf16Dot => self.bf16_operations,
            Unit::Int8Dot => self.int8_operations,
        }
    }
}

fn reading(threads: &mut Threads) -> std::io::Result<f64> {
    let mut memory = Buffer::<f32>::zeroed(READ_BYTES / size_of::<f32>())?;
    let slice = SLICE / size_of::<f32>();
    threads.for_chunks(&mut memory, slice, |_, chunk| chunk.fill(1.0));
    let rate = best(|| {
        threads.for_chunks(&mut memory, slice, |_, chunk| {
            // Sixteen sums side by side, which the compiler keeps in registers of whatever width.
            let mut sums = [0.0f32; 64];
            for part in chunk.as_chunks::<64>().0 {
                sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
            std::hint::black_box(sums);
        });
    });
    Ok(rate * READ_BYTES as f64)
}

fn computing(threads: &mut Threads, isa: Isa, unit: Unit) -> f64 {
    let (peak, loops) = (Peak::of(isa, unit), LOOPS * threads.count());
    best(|| threads.run(loops, &|_, _| (peak.run)(ROUNDS))) * (loops * ROUNDS * peak.operations) as f64
}

/// How often a second, at best.
fn best(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    1.0 / (0..TRIES).map(once).fold(f64::INFINITY, f64::min)
}
