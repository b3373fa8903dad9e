//! Matrix product with weights in eight bits: `y[m, n] = Σ_g s[n, g] · t[m, g] · Σ_{k in g} q[n, k] · p[m, k] + b[n]`.
//!
//! Weights are made when a model is loaded: each 128 neighbours of a row (a group) share a scale, symmetric around zero.
//! Activations are made for each product, row by row in the same way. Sums within a group are whole numbers, so exact in any
//! order; groups are added in f32 in the order of k. So the product is batch-invariant like that of [`super::gemm`].
//!
//! `VPDPBUSD` takes unsigned by signed bytes: weights are kept with 128 added, and 128 times the sum of a row's group is where
//! its sum starts.
//!
//! ```text
//! panel 0: rows 0..16      step 0: row 0 [k0 k1 k2 k3] row 1 [k0 k1 k2 k3] … row 15     = one 64-byte register
//!                          step 1: row 0 [k4 k5 k6 k7] …
//! scales of panel 0        group 0: rows 0..16 as bf16;  group 1: …
//! ```

use std::ops::Range;

use half::bf16;

use super::{
    Buffer, Element, Operands, Output, Threads,
    arith::{Arith, multiversion},
    element::LANES,
    gemm::{Cut, Sink},
};

/// Neighbours that share a scale.
pub(crate) const GROUP: usize = 128;
/// Inputs that one instruction multiplies for a lane.
pub(super) const QUAD: usize = 4;
/// What is added to a weight to keep it as an unsigned byte.
pub(super) const OFFSET: i32 = 128;
/// The largest weight and activation.
const MOST: f32 = 127.0;

/// A weight matrix `[n, k]` in eight bits.
pub(crate) struct Int8Matrix {
    n: usize,
    k: usize,
    /// `[panels][quads][16][4]`.
    values: Buffer<u8>,
    /// `[panels][groups][16]`.
    scales: Buffer<bf16>,
}

/// Activations in eight bits; kept from product to product.
pub(crate) struct Int8Rows {
    /// `[rows][quads][4]`.
    values: Buffer<i8>,
    /// `[rows][groups]`.
    groups: Buffer<RowGroup>,
}

/// A group of an activation row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowGroup {
    pub(super) scale: f32,
    /// Of its values.
    pub(super) sum: i32,
}

// SAFETY: a float and an integer, without padding: any bytes are a value.
unsafe impl super::buffer::Bits for RowGroup {}

/// One product, as the kernels see it.
pub(crate) struct Job<'a> {
    pub(super) x: &'a [i8],
    pub(super) x_groups: &'a [RowGroup],
    pub(super) rows: usize,
    pub(super) w: &'a Int8Matrix,
    pub(super) sink: Sink<'a>,
}

/// A compiled kernel: computes the columns of some panels.
pub(crate) type Kernel = fn(&Job<'_>, Range<usize>);

/// A compiled kernel: a row into bytes and groups.
pub(crate) type Quantise<T> = fn(&[T], &mut [i8], &mut [RowGroup]);

fn quads(k: usize) -> usize {
    k.div_ceil(QUAD)
}

fn groups(k: usize) -> usize {
    k.div_ceil(GROUP)
}

impl Int8Matrix {
    /// Zeros, to be filled by panel.
    pub(crate) fn zeroed(n: usize, k: usize) -> std::io::Result<Self> {
        let lanes = n.div_ceil(LANES) * LANES;
        let (values, scales) = (lanes * quads(k) * QUAD, lanes * groups(k));
        Ok(Self { n, k, values: Buffer::zeroed(values)?, scales: Buffer::zeroed(scales)? })
    }

    /// Outputs.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.values.len() + size_of_val(&self.scales[..])
    }

    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    pub(super) fn quads(&self) -> usize {
        quads(self.k)
    }

    pub(super) fn groups(&self) -> usize {
        groups(self.k)
    }

    /// Values and scales of a panel.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> (&[u8], &[bf16]) {
        let (values, scales) = (self.quads() * QUAD * LANES, self.groups() * LANES);
        (&self.values[panel * values..][..values], &self.scales[panel * scales..][..scales])
    }

    /// Fills it in parallel from its rows: `read(row, values)`.
    pub(crate) fn fill(&mut self, threads: &mut Threads, read: impl Fn(usize, &mut [f32]) + Sync) {
        let (n, k) = (self.n, self.k);
        let (values, scales) = (self.quads() * QUAD * LANES, self.groups() * LANES);
        let memory = ((&mut self.values[..], values), (&mut self.scales[..], scales));
        threads.for_chunk_pairs(memory.0, memory.1, |panel, values, scales| {
            let mut row = vec![0.0; k];
            values.fill(OFFSET as u8);
            for (lane, number) in (panel * LANES..n).take(LANES).enumerate() {
                read(number, &mut row);
                pack_row(&row, lane, values, scales);
            }
        });
    }

    /// Row `n` as f32.
    pub(crate) fn row(&self, n: usize, out: &mut [f32]) {
        let ((values, scales), lane) = (self.panel(n / LANES), n % LANES);
        for (k, out) in out.iter_mut().enumerate() {
            let value = i32::from(values[(k / QUAD * LANES + lane) * QUAD + k % QUAD]) - OFFSET;
            *out = value as f32 * scales[k / GROUP * LANES + lane].to_f32();
        }
    }
}

/// Writes `row` as lane `lane` of a panel.
fn pack_row(row: &[f32], lane: usize, values: &mut [u8], scales: &mut [bf16]) {
    for (group, part) in row.chunks(GROUP).enumerate() {
        let scale = weight_scale(part);
        scales[group * LANES + lane] = scale;
        for (at, x) in part.iter().enumerate() {
            let k = group * GROUP + at;
            let value = rounded(*x, scale.to_f32()) as i32 + OFFSET;
            values[(k / QUAD * LANES + lane) * QUAD + k % QUAD] = value as u8;
        }
    }
}

/// The scale of a group of weights, as it is kept.
fn weight_scale(group: &[f32]) -> bf16 {
    bf16::from_f32(largest(group.iter().copied()) / MOST)
}

#[inline(always)]
fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |most, x| most.max(x.abs()))
}

/// The nearest of -127..=127 by a scale, of which 0 means that all of the group is 0.
#[inline(always)]
fn rounded(x: f32, scale: f32) -> f32 {
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    (x * inverse).round_ties_even().clamp(-MOST, MOST)
}

/// What `row` becomes as weights, in f32: what devices without whole-number products compute with.
pub(crate) fn reference_row(row: &mut [f32]) {
    for part in row.chunks_mut(GROUP) {
        let scale = weight_scale(part).to_f32();
        part.iter_mut().for_each(|x| *x = rounded(*x, scale) * scale);
    }
}

/// A row of activations as the kernels see it, in f32.
#[cfg(test)]
pub(super) fn quantised(row: &mut [f32]) {
    for part in row.chunks_mut(GROUP) {
        let scale = largest(part.iter().copied()) / MOST;
        part.iter_mut().for_each(|x| *x = rounded(*x, scale) * scale);
    }
}

impl Default for Int8Rows {
    fn default() -> Self {
        Self { values: Buffer::new(), groups: Buffer::new() }
    }
}

impl Int8Rows {
    /// Takes rows of `k` elements.
    pub(crate) fn quantise<T: Element>(
        &mut self,
        kernel: Quantise<T>,
        threads: &mut Threads,
        x: &Operands<T>,
    ) {
        let (rows, values, groups) = (x.rows(), quads(x.width()) * QUAD, groups(x.width()));
        let memory = (self.values.at_least(rows * values), self.groups.at_least(rows * groups));
        threads.for_chunk_pairs((memory.0, values), (memory.1, groups), |row, values, groups| {
            kernel(x.row(row), values, groups);
        });
    }

    /// The product of `rows` of them, from `first` on, with `w`.
    pub(crate) fn job<'a>(
        &'a self,
        (first, rows): (usize, usize),
        w: &'a Int8Matrix,
        sink: Sink<'a>,
    ) -> Job<'a> {
        let (values, groups) = (w.quads() * QUAD, w.groups());
        let (x, x_groups) = (&self.values[first * values..], &self.groups[first * groups..]);
        Job { x: &x[..rows * values], x_groups: &x_groups[..rows * groups], rows, w, sink }
    }
}

multiversion! {
    /// The kernel that quantises a row.
    pub(crate) fn quantise<T: Element>(row: &[T], values: &mut [i8], groups: &mut [RowGroup]) = quantise_body;
}

#[inline(always)]
fn quantise_body<T: Element, A: Arith>(row: &[T], values: &mut [i8], groups: &mut [RowGroup]) {
    for ((part, values), group) in row.chunks(GROUP).zip(values.chunks_mut(GROUP)).zip(groups) {
        let scale = largest(part.iter().map(|x| x.to_f32())) / MOST;
        for (value, x) in values.iter_mut().zip(part) {
            *value = rounded(x.to_f32(), scale) as i8;
        }
        values[part.len()..].fill(0);
        *group = RowGroup { scale, sum: values.iter().map(|x| i32::from(*x)).sum() };
    }
}

/// `y = x · wᵀ + bias` of rows that were quantised.
pub(crate) fn linear(
    kernel: Kernel,
    threads: &mut Threads,
    x: &Int8Rows,
    rows: usize,
    w: &Int8Matrix,
    bias: &[f32],
    output: Output<'_>,
) {
    let job = x.job((0, rows), w, Sink::new(rows, w.n(), bias, output));
    let cut = Cut::of(w.panels(), threads.count());
    threads.run(cut.tasks(), &|_, task| kernel(&job, cut.range(task)));
}

/// The kernel for a level of instructions.
pub(crate) fn kernel(isa: super::Isa) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        super::Isa::Avx512Bf16 => super::int8_avx512::kernel,
        _ => panels(isa),
    }
}

multiversion! {
    /// The kernel for CPUs without whole-number dot products.
    fn panels(job: &Job<'_>, panels: Range<usize>) = body;
}

#[inline(always)]
fn body<A: Arith>(job: &Job<'_>, panels: Range<usize>) {
    let (quads, groups) = (job.w.quads(), job.w.groups());
    for panel in panels {
        let (values, scales) = job.w.panel(panel);
        for row in 0..job.rows {
            let x = &job.x[row * quads * QUAD..][..quads * QUAD];
            let x_groups = &job.x_groups[row * groups..][..groups];
            let mut sums = [0.0; LANES];
            for (group, x_group) in x_groups.iter().enumerate() {
                let mut acc = [-OFFSET * x_group.sum; LANES];
                let part = group * GROUP..(group * GROUP + GROUP).min(quads * QUAD);
                let steps = values[part.start * LANES..part.end * LANES].chunks_exact(LANES * QUAD);
                for (step, x) in steps.zip(x[part].chunks_exact(QUAD)) {
                    for (acc, w) in acc.iter_mut().zip(step.chunks_exact(QUAD)) {
                        *acc += w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum::<i32>();
                    }
                }
                let scales = &scales[group * LANES..][..LANES];
                for ((sum, acc), scale) in sums.iter_mut().zip(acc).zip(scales) {
                    *sum = A::mul_add(acc as f32, Element::to_f32(*scale) * x_group.scale, *sum);
                }
            }
            job.sink.put(row, panel, &sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Probe, close, on_each_device, random};
    use crate::{WeightFormat, kernels::gemm::reference};

    /// Outputs and inputs: whole groups, parts of one, odd tails.
    const SHAPES: [(usize, usize); 6] = [(1, 2), (16, 128), (17, 34), (70, 258), (128, 130), (33, 1024)];

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        for (n, k) in SHAPES {
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 13, 25] {
                check(device, &format!("{label} {rows}x{n}x{k}"), rows, n, k);
            }
        }
    }

    fn check<D: Probe>(device: &mut D, label: &str, rows: usize, n: usize, k: usize) {
        let (x, w, bias) = (random(rows * k, 1), random(n * k, 2), random(n, 3));
        let matrix = device.weights_as(&w, k, WeightFormat::Int8);
        let bias_there = device.vector(&bias);
        let operands = device.operands(&x, k);
        let (mut w, mut x) = (w, device.operand_values(&operands));
        w.chunks_mut(k).for_each(reference_row);
        if D::QUANTISES_ROWS {
            x.chunks_mut(k).for_each(quantised);
        }
        let mut y = D::Floats::default();
        device.linear(&operands, &matrix, Some(&bias_there), &mut y);
        let got = device.float_values(&y);
        close(label, &got, &reference(&x, &w, k, &bias), 1e-6 * k as f64);
        for row in 0..rows {
            let mut alone = D::Floats::default();
            let one = device.operand_values(&operands)[row * k..][..k].to_vec();
            let one = device.operands(&one, k);
            device.linear(&one, &matrix, Some(&bias_there), &mut alone);
            assert!(device.float_values(&alone) == got[row * n..][..n], "{label}: row {row} alone differs");
        }
    }

    #[test]
    fn products_agree_with_the_reference_and_rows_do_not_depend_on_each_other() {
        on_each_device!(agrees);
    }

    #[test]
    fn weights_read_back_within_half_a_step_and_zeros_stay() {
        let (n, k) = (19, 300);
        let mut values = random(n * k, 4);
        values[k..2 * k].fill(0.0);
        let mut matrix = Int8Matrix::zeroed(n, k).unwrap();
        matrix.fill(&mut Threads::new(2), |row, out| out.copy_from_slice(&values[row * k..][..k]));
        for (row, want) in values.chunks(k).enumerate() {
            let (mut got, mut as_reference) = (vec![f32::NAN; k], want.to_vec());
            matrix.row(row, &mut got);
            reference_row(&mut as_reference);
            assert_eq!(got, as_reference);
            for (part, (got, want)) in got.chunks(GROUP).zip(want.chunks(GROUP)).enumerate() {
                let step = largest(want.iter().copied()) / MOST;
                // Half a step, and what the largest loses when its scale was rounded down to bf16.
                let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off <= step * 0.51 + step * MOST / 256.0, "row {row} part {part}: {off} of {step}");
            }
        }
    }
}
