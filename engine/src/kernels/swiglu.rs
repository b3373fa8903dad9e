//! The gated activation of the feed-forward layer.

use super::{
    Element,
    arith::{Arith, exp, multiversion},
};

multiversion! {
    /// `out = silu(gate) · up`; `gate_up` is `[rows, 2, width]`, `out` is `[rows, width]`.
    pub(crate) fn swiglu<T: Element>(gate_up: &[f32], width: usize, out: &mut [T]) = body;
}

#[inline(always)]
fn body<T: Element, A: Arith>(gate_up: &[f32], width: usize, out: &mut [T]) {
    for (gate_up, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = gate_up.split_at(width);
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            *out = T::from_f32(silu::<A>(*gate) * up);
        }
    }
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn silu<A: Arith>(x: f32) -> f32 {
    x / (1.0 + exp::<A>(-x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Isa, testing::random};

    #[test]
    fn agrees_with_the_formula() {
        let width = 37;
        let gate_up: Vec<f32> = random(4 * width, 3).iter().map(|x| x * 30.0).collect();
        for isa in Isa::available() {
            let mut out = vec![0.0f32; 2 * width];
            swiglu(isa, &gate_up, width, &mut out);
            for (at, out) in out.iter().enumerate() {
                let row = &gate_up[at / width * 2 * width..];
                let (gate, up) = (f64::from(row[at % width]), f64::from(row[width + at % width]));
                let want = gate / (1.0 + (-gate).exp()) * up;
                assert!((f64::from(*out) - want).abs() < 1e-5 * want.abs().max(1.0), "{isa}: {out} {want}");
            }
        }
    }

    #[test]
    fn extreme_gates_stay_finite() {
        let mut out = [0.0f32; 2];
        swiglu(Isa::Portable, &[-1e30, 200.0, 1.0, 1.0], 2, &mut out);
        assert!(out[0].abs() < 1e-6 && out[1] == 200.0, "{out:?}");
    }
}
