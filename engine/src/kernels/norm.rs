//! RMS normalisation.

use super::{
    Element,
    arith::{Arith, multiversion, sum_lanes},
};

multiversion! {
    /// `out = x / sqrt(mean(x²) + eps) · weight` for each row of `weight.len()` elements; `x` and `out` are `[rows, weight.len()]`.
    pub(crate) fn rms_norm<T: Element>(x: &[f32], weight: &[f32], eps: f32, out: &mut [T]) = body;
}

#[inline(always)]
fn body<T: Element, A: Arith>(x: &[f32], weight: &[f32], eps: f32, out: &mut [T]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let scale = inverse_rms::<A>(x, eps);
        for ((x, weight), out) in x.iter().zip(weight).zip(out) {
            *out = T::from_f32(x * scale * weight);
        }
    }
}

/// `1 / sqrt(mean(x²) + eps)`, summed in sixteen lanes.
#[inline(always)]
pub(super) fn inverse_rms<A: Arith>(x: &[f32], eps: f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for x in whole {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = A::mul_add(*x, *x, *lane);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = A::mul_add(*x, *x, *lane);
    }
    1.0 / (sum_lanes(lanes) / x.len() as f32 + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernels::{Isa, testing::random};

    #[test]
    fn agrees_with_the_formula() {
        for width in [1, 7, 16, 33, 128] {
            let (x, weight) = (random(3 * width, 1), random(width, 2));
            for isa in Isa::available() {
                let (mut single, mut half) = (vec![0.0f32; 3 * width], vec![bf16::ZERO; 3 * width]);
                rms_norm(isa, &x, &weight, 1e-5, &mut single);
                rms_norm(isa, &x, &weight, 1e-5, &mut half);
                for (at, out) in single.iter().enumerate() {
                    let row = &x[at / width * width..][..width];
                    let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                    let want = f64::from(x[at]) / (mean + 1e-5).sqrt() * f64::from(weight[at % width]);
                    assert!((f64::from(*out) - want).abs() < 2e-6 * want.abs().max(1.0), "{isa} {width}");
                    assert_eq!(half[at], bf16::from_f32(*out), "{isa} {width}");
                }
            }
        }
    }
}
