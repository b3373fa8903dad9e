//! The gated activation of a feed-forward layer.

use super::{
    Element, Kernels, Operands, PackedMatrix, Scratches, Threads,
    arith::{Arith, exp, multiversion},
    fused::{self, Groups},
};

/// How gate and up become one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Gate {
    /// `silu(gate) · up`.
    Silu,
    /// gpt-oss: `g · sigmoid(alpha · g) · (u + 1)` with g the gate, at most `limit`, and u the up value within ±`limit`.
    Clamped {
        /// Slope of the sigmoid.
        alpha: f32,
        /// Where values are cut.
        limit: f32,
    },
}

multiversion! {
    /// One row: `gate_up` is `[2, width]`, `out` is `[width]`.
    pub(crate) fn gate<T: Element>(gate: Gate, gate_up: &[f32], out: &mut [T]) = body;
}

#[inline(always)]
fn body<T: Element, A: Arith>(gate: Gate, gate_up: &[f32], out: &mut [T]) {
    match gate {
        Gate::Silu => each(gate_up, out, |gate, up| swish::<A>(gate, 1.0) * up),
        Gate::Clamped { alpha, limit } => each(gate_up, out, |gate, up| {
            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
            swish::<A>(gate, alpha) * (up + 1.0)
        }),
    }
}

#[inline(always)]
fn each<T: Element>(gate_up: &[f32], out: &mut [T], join: impl Fn(f32, f32) -> f32) {
    let (gate, up) = gate_up.split_at(out.len());
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = T::from_f32(join(*gate, *up));
    }
}

/// `x / (1 + e^(-slope · x))`.
#[inline(always)]
fn swish<A: Arith>(x: f32, slope: f32) -> f32 {
    x / (1.0 + exp::<A>(-slope * x))
}

/// Gate's and up's panels of a piece.
const GROUPS: Groups = Groups { parts: 2, panels: 4 };

/// Whether [`gated_linear`] can do it, and pays.
pub(crate) fn fuses(rows: usize, n: usize) -> bool {
    rows >= fused::LEAST_ROWS && GROUPS.divide(n)
}

/// `out = gate(x · wᵀ + bias)`.
pub(crate) fn gated_linear<T: Element>(
    kernels: &Kernels<T>,
    (threads, scratch): (&mut Threads, &Scratches<f32>),
    x: &Operands<T>,
    (w, bias): (&PackedMatrix<T>, &[f32]),
    gate: Gate,
    out: &mut Operands<T>,
) {
    let kernel = kernels.gate;
    out.shape(x.rows(), w.n() / 2);
    fused::linear(kernels.gemm, (threads, scratch), x, (w, bias), GROUPS, out, &|_, _, gate_up, out| {
        kernel(gate, gate_up, out);
    });
}

/// The plainest form, in double precision.
pub(crate) fn reference(gate: Gate, gate_up: &[f32], width: usize) -> Vec<f32> {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let join = |g: f32, u: f32| match gate {
        Gate::Silu => f64::from(g) * sigmoid(g.into()) * f64::from(u),
        Gate::Clamped { alpha, limit } => {
            let (g, u) = (f64::from(g.min(limit)), f64::from(u.clamp(-limit, limit)));
            g * sigmoid(f64::from(alpha) * g) * (u + 1.0)
        }
    };
    let row = |row: &[f32]| (0..width).map(|i| join(row[i], row[width + i]) as f32).collect::<Vec<_>>();
    gate_up.chunks_exact(2 * width).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Probe, close, on_each_device, random};

    const CLAMPED: Gate = Gate::Clamped { alpha: 1.702, limit: 7.0 };

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        for (gate, rows, width) in [(Gate::Silu, 1, 37), (Gate::Silu, 9, 64), (CLAMPED, 6, 37)] {
            let values: Vec<f32> = random(rows * 2 * width, 3).iter().map(|x| x * 30.0).collect();
            let gate_up = device.floats(&values, 2 * width);
            let mut out = D::Operands::default();
            device.gate(gate, &gate_up, &mut out);
            let want = reference(gate, &values, width);
            close(label, &device.operand_values(&out), &want, D::ROUNDING + 1e-5);
        }
    }

    fn extreme_values_stay_finite<D: Probe>(device: &mut D, label: &str) {
        let gate_up = device.floats(&[-1e30, 200.0, 1.0, 1.0], 4);
        let mut out = D::Operands::default();
        device.gate(Gate::Silu, &gate_up, &mut out);
        close(label, &device.operand_values(&out), &[0.0, 200.0], 1e-6);
        let gate_up = device.floats(&[-1e30, 1e30, -1e30, 1e30], 4);
        device.gate(CLAMPED, &gate_up, &mut out);
        // The gate is not cut from below: its sigmoid is 0. The up value is.
        close(label, &device.operand_values(&out), &[0.0, 7.0 * 8.0], 1e-2);
    }

    /// Adapters come between the two; rows without one must not see whether they were made together.
    fn fused_is_the_same_to_the_last_bit<D: Probe>(device: &mut D, label: &str) {
        let k = 34;
        for (rows, width) in [(9, 37), (70, 37), (70, 64), (211, 144), (64, 16)] {
            let x = device.operands(&random(rows * k, 4), k);
            let w = device.weights(&random(2 * width * k, 5), k);
            let bias = device.vector(&random(2 * width, 6));
            for bias in [None, Some(&bias)] {
                let (mut wide, mut apart, mut together) = Default::default();
                device.linear(&x, &w, bias, &mut wide);
                device.gate(CLAMPED, &wide, &mut apart);
                device.gated_linear(&x, (&w, bias), CLAMPED, &mut wide, &mut together);
                let (apart, together) = (device.operand_values(&apart), device.operand_values(&together));
                assert!(apart == together, "{label}: {rows} rows of {width}");
            }
        }
    }

    #[test]
    fn every_device_agrees_with_the_formula() {
        on_each_device!(agrees, extreme_values_stay_finite, fused_is_the_same_to_the_last_bit);
    }

    #[test]
    fn values_known_from_elsewhere() {
        // silu(1) = 0.7310586; 2 · sigmoid(3.404) · (0.5 + 1), by hand.
        assert_eq!(reference(Gate::Silu, &[1.0, 2.0], 1), [2.0 * 0.731_058_6]);
        assert!((reference(CLAMPED, &[2.0, 0.5], 1)[0] - 3.0 * 0.967_829_3).abs() < 1e-5);
    }
}
