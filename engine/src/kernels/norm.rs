//! RMS normalisation.

use super::{
    Element,
    arith::{Arith, multiversion, sum_lanes},
};

multiversion! {
    /// One row: `out = x / sqrt(mean(x²) + eps) · weight`.
    pub(crate) fn rms_norm<T: Element>(x: &[f32], weight: &[f32], eps: f32, out: &mut [T]) = body;
}

/// The plainest form, summed in double precision.
pub(crate) fn reference(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let row = |x: &[f32]| {
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        x.iter().zip(weight).map(|(x, w)| (f64::from(*x) * scale * f64::from(*w)) as f32).collect::<Vec<_>>()
    };
    x.chunks_exact(weight.len()).flat_map(row).collect()
}

#[inline(always)]
fn body<T: Element, A: Arith>(x: &[f32], weight: &[f32], eps: f32, out: &mut [T]) {
    let scale = inverse_rms::<A>(x, eps);
    for ((x, weight), out) in x.iter().zip(weight).zip(out) {
        *out = T::from_f32(x * scale * weight);
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
    use crate::device::testing::{Probe, close, on_each_device, random};

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        for (rows, width) in [(1, 1), (3, 7), (1, 16), (5, 33), (40, 128)] {
            let (x, weight) = (random(rows * width, 1), random(width, 2));
            let want = super::reference(&x, &weight, 1e-5);
            let (x, weight) = (device.floats(&x, width), device.vector(&weight));
            let mut out = D::Operands::default();
            device.rms_norm(&x, &weight, 1e-5, &mut out);
            close(label, &device.operand_values(&out), &want, D::ROUNDING + 2e-6);
        }
    }

    #[test]
    fn every_device_agrees_with_the_formula() {
        on_each_device!(agrees);
    }

    #[test]
    fn a_row_of_known_length() {
        // Mean of squares 12.5 in all: 3 / sqrt(12.5) and 4 / sqrt(12.5), the second twice.
        assert_eq!(super::reference(&[3.0, 4.0], &[1.0, 2.0], 0.0), [0.848_528_15, 2.262_741_7]);
    }
}
