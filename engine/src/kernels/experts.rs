//! The experts' weight matrices, and their products: each expert over the rows that were routed to it.
//!
//! All experts of a layer are one parallel loop. A row's products are made by the matrix kernel of [`super::gemm`], so they
//! are, bit for bit, what they would be if the row were alone with its expert.

use std::sync::Mutex;

use super::{
    Buffer, Element, Int8Rows, Kernels, Operands, Packed, Routes, Rows, Threads,
    element::LANES,
    gemm::{Job, Sink, TASK_PANELS},
    mxfp4::PackedMxfp4,
    routing::Segment,
    threads::Pointer,
};

/// Tasks for each thread: enough that a thread that lost its core for a while does not hold up the others.
const TASKS: usize = 8;

/// One matrix `[n, k]` for each expert.
pub(crate) enum PackedExperts<T> {
    /// All in the same form.
    Each(Vec<Packed<T>>),
    /// In four bits, unpacked panel by panel when they are used.
    Mxfp4(PackedMxfp4),
}

impl<T: Element> PackedExperts<T> {
    /// Outputs and inputs of each.
    pub(crate) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Each(experts) => (experts[0].n(), experts[0].k()),
            Self::Mxfp4(experts) => (experts.n(), experts.k()),
        }
    }

    /// Experts.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Each(experts) => experts.len(),
            Self::Mxfp4(experts) => experts.experts(),
        }
    }

    /// Whether rows must be quantised for them.
    pub(crate) fn are_int8(&self) -> bool {
        matches!(self, Self::Each(experts) if matches!(experts.first(), Some(Packed::Int8(_))))
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Each(experts) => experts.iter().map(Packed::bytes).sum(),
            Self::Mxfp4(experts) => experts.bytes(),
        }
    }
}

/// Copies the row of each pair: `out` is `[pairs, width]`.
pub(crate) fn gather<T: Element>(
    threads: &mut Threads,
    x: &Operands<T>,
    routes: &Routes,
    out: &mut Operands<T>,
) {
    out.fill(threads, (routes.pairs(), x.width()), |pair, out| {
        out.copy_from_slice(x.row(routes.row_of[pair]))
    });
}

/// `y[pair] = w[expert of pair] · x[pair] + bias[expert of pair]`; `bias` is `[experts, n]` or empty. `scratch` is a buffer
/// for each thread, `quantised` holds `x` in eight bits if the experts are.
pub(crate) fn linear<T: Element>(
    kernels: &Kernels<T>,
    threads: &mut Threads,
    (scratch, quantised): (&[Mutex<Buffer<T>>], &Int8Rows),
    routes: &Routes,
    x: &Operands<T>,
    (experts, bias): (&PackedExperts<T>, &[f32]),
    y: &mut Rows<f32>,
) {
    let (n, k) = experts.shape();
    assert!(x.rows() == routes.pairs() && x.width() == k, "shapes of the experts' product");
    let y = Pointer(y.shape(x.rows(), n).as_mut_ptr());
    let product = Product { x, n, k, bias, y };
    let panels = n.div_ceil(LANES);
    let all = panels * routes.segments.len();
    let per_task = (all / (threads.count() * TASKS))
        .next_multiple_of(TASK_PANELS)
        .clamp(TASK_PANELS, panels.max(TASK_PANELS));
    let tasks = panels.div_ceil(per_task);
    threads.run(tasks * routes.segments.len(), &|thread, task| {
        let segment = routes.segments[task / tasks];
        let range = task % tasks * per_task..panels.min((task % tasks + 1) * per_task);
        match experts {
            PackedExperts::Each(experts) => match &experts[segment.expert] {
                Packed::Plain(w) => (kernels.gemm)(&product.job(segment, w.all_panels(), 0), range),
                Packed::Int8(w) => {
                    let rows = (segment.first, segment.pairs);
                    (kernels.int8)(&quantised.job(rows, w, product.sink(segment)), range);
                }
            },
            PackedExperts::Mxfp4(experts) => {
                let mut buffer =
                    scratch[thread].lock().expect("no task panics while it holds its thread's scratch");
                for first in range.clone().step_by(TASK_PANELS) {
                    let slab = first..range.end.min(first + TASK_PANELS);
                    let weights = buffer.at_least(slab.len() * LANES * k);
                    for (panel, out) in slab.clone().zip(weights.chunks_exact_mut(LANES * k)) {
                        let (nibbles, scales) = experts.panel(segment.expert, panel);
                        (kernels.unpack)(nibbles, scales, out);
                    }
                    (kernels.gemm)(&product.job(segment, weights, first), slab);
                }
            }
        }
    });
}

/// The products of all experts.
struct Product<'a, T: Element> {
    x: &'a Operands<T>,
    n: usize,
    k: usize,
    bias: &'a [f32],
    y: Pointer<f32>,
}

impl<T: Element> Product<'_, T> {
    /// One expert's, of which `weights` holds the panels from `first_panel` on.
    fn job<'a>(&'a self, segment: Segment, weights: &'a [T], first_panel: usize) -> Job<'a, T> {
        let (x, x_stride) = (self.x.storage(segment.first, segment.pairs), self.x.stride());
        Job { x, x_stride, rows: segment.pairs, k: self.k, weights, first_panel, sink: self.sink(segment) }
    }

    /// Where one expert's results go.
    fn sink(&self, segment: Segment) -> Sink<'_> {
        let n = self.n;
        let bias = if self.bias.is_empty() { &[] } else { &self.bias[segment.expert * n..][..n] };
        Sink { n, bias, y: Pointer(self.y.at(segment.first * n)), stride: n, add: false }
    }
}

/// Adds to each row of `out` its experts' results by their weights, in the order of the row's choices.
pub(crate) fn combine(threads: &mut Threads, y: &Rows<f32>, routes: &Routes, out: &mut Rows<f32>) {
    let (width, per_token) = (y.width(), routes.per_token);
    assert!(out.width() == width && out.rows() * per_token == y.rows(), "shapes of the experts' results");
    threads.for_chunks(&mut out[..], width, |row, out| {
        let choices = row * per_token..(row + 1) * per_token;
        let pairs = &routes.pair_of[choices.clone()];
        let weights = &routes.weights[choices];
        for (chunk, out) in out.chunks_mut(LANES).enumerate() {
            let mut sum = [0.0f32; LANES];
            for (pair, weight) in pairs.iter().zip(weights) {
                let y = &y[pair * width + chunk * LANES..][..out.len()];
                sum.iter_mut().zip(y).for_each(|(sum, y)| *sum += weight * y);
            }
            out.iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::{
        WeightFormat,
        device::testing::{Probe, close, on_each_device, random},
        kernels::{Routing, Scoring, gemm, int8},
        model::{StoredExperts, StoredMxfp4},
    };

    /// Rows, experts, choices, outputs, inputs.
    const SHAPES: [[usize; 5]; 4] =
        [[1, 4, 2, 17, 34], [13, 4, 2, 70, 64], [5, 8, 3, 16, 32], [40, 3, 3, 33, 66]];

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        for shape in SHAPES {
            for format in [WeightFormat::Full, WeightFormat::Int8] {
                check(device, &format!("{label} {shape:?} {format:?}"), shape, format);
            }
        }
    }

    fn check<D: Probe>(
        device: &mut D,
        label: &str,
        [rows, count, per_token, n, k]: [usize; 5],
        format: WeightFormat,
    ) {
        let (logits, x) = (random(rows * count, 1), random(rows * k, 2));
        let (w, bias) = (random(count * n * k, 3), random(count * n, 4));
        let experts = device.each_expert(&w, count, k, format);
        let bias_there = device.vector(&bias);
        let routing = Routing { experts: count, per_token, scoring: Scoring::SoftmaxOfAll };
        // Routes rows, multiplies them by their experts and adds that to ones.
        let mut run = |logits: &[f32], x: &[f32]| {
            let ones = vec![1.0; logits.len() / count * n];
            let (logits, x) = (device.floats(logits, count), device.operands(x, k));
            let mut routes = D::Routes::default();
            device.route(&logits, routing, &mut routes);
            let (mut gathered, mut y) = (D::Operands::default(), D::Floats::default());
            device.gather(&x, &routes, &mut gathered);
            device.expert_linear(&gathered, &experts, Some(&bias_there), &routes, &mut y);
            let mut out = device.floats(&ones, n);
            device.combine(&y, &routes, &mut out);
            (device.float_values(&out), device.chosen(&routes))
        };
        let (got, (experts, weights)) = run(&logits, &x);
        let (mut x_rounded, mut w) = (D::rounded(&x), w);
        match format {
            WeightFormat::Full => w = D::rounded(&w),
            WeightFormat::Int8 => w.chunks_mut(k).for_each(int8::reference_row),
        }
        if format == WeightFormat::Int8 && D::QUANTISES_ROWS {
            x_rounded.chunks_mut(k).for_each(int8::quantised);
        }
        let mut want = vec![1.0f64; rows * n];
        for (at, (expert, weight)) in experts.iter().zip(&weights).enumerate() {
            let (row, expert) = (at / per_token, *expert as usize);
            for (out, want) in want[row * n..][..n].iter_mut().enumerate() {
                let w = &w[(expert * n + out) * k..][..k];
                let products = x_rounded[row * k..][..k].iter().zip(w);
                let dot: f64 = products.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                *want += f64::from(*weight) * (dot + f64::from(bias[expert * n + out]));
            }
        }
        let want: Vec<f32> = want.into_iter().map(|x| x as f32).collect();
        close(label, &got, &want, 1e-6 * k as f64);
        for row in 0..rows {
            let (alone, _) = run(&logits[row * count..][..count], &x[row * k..][..k]);
            assert!(alone == got[row * n..][..n], "{label}: row {row} alone differs");
        }
    }

    /// What four bits hold and the operands they make are exact on every device, so only sums differ.
    fn agrees_in_four_bits<D: Probe>(device: &mut D, label: &str) {
        let (rows, count, n, k) = (9, 3, 70, 96);
        let noise = |len: usize, seed| random(len, seed).into_iter().map(|x| (x * 128.0 + 128.0) as u8);
        let blocks: Vec<u8> = noise(count * n * k / 2, 1).collect();
        let scales: Vec<u8> = noise(count * n * k / 32, 2).map(|x| 120 + x % 8).collect();
        let stored = || StoredMxfp4 {
            experts: count,
            rows: n,
            columns: k,
            blocks: &blocks,
            scales: &scales,
            interleaved: true,
        };
        let experts = device.experts(&StoredExperts::Mxfp4(stored()), WeightFormat::Full).unwrap();
        let (logits, x) = (random(rows * count, 3), random(rows * k, 4));
        let routing = Routing { experts: count, per_token: 1, scoring: Scoring::SoftmaxOfChosen };
        let (logits, x) = (device.floats(&logits, count), device.operands(&x, k));
        let (mut routes, mut gathered) = (D::Routes::default(), D::Operands::default());
        device.route(&logits, routing, &mut routes);
        device.gather(&x, &routes, &mut gathered);
        let (mut y, mut out) = (D::Floats::default(), device.floats(&vec![0.0; rows * n], n));
        device.expert_linear(&gathered, &experts, None, &routes, &mut y);
        device.combine(&y, &routes, &mut out);
        let (x, chosen) = (device.operand_values(&x), device.chosen(&routes).0);
        let product = |(x, expert): (&[f32], &u32)| {
            let w: Vec<f32> = (0..n).flat_map(|row| stored().values(*expert as usize, row)).collect();
            gemm::reference(x, &w, k, &[])
        };
        let want: Vec<f32> = x.chunks_exact(k).zip(&chosen).flat_map(product).collect();
        close(label, &device.float_values(&out), &want, 1e-4);
    }

    #[test]
    fn rows_get_their_experts_and_do_not_depend_on_each_other() {
        on_each_device!(agrees, agrees_in_four_bits);
    }
}
