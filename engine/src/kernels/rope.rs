//! Cosines and sines of each row's position.

/// Cosines, then sines, of a position's angles, each times `scale`: `out` is twice as long as `frequencies`.
///
/// The angle is rounded to f32 as in transformers; its cosine is taken in double precision, so that it does not depend on
/// which C library the machine has. It is the plainest form already, so it is its own reference.
pub(crate) fn rope_row(frequencies: &[f32], scale: f32, position: usize, out: &mut [f32]) {
    let (cos, sin) = out.split_at_mut(frequencies.len());
    for ((frequency, cos), sin) in frequencies.iter().zip(cos).zip(sin) {
        let angle = f64::from(position as f32 * frequency);
        (*cos, *sin) = (angle.cos() as f32 * scale, angle.sin() as f32 * scale);
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        device::testing::{Probe, close, on_each_device},
        kernels::{Batch, HeadShape},
        kv::BlockId,
    };

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        let mut batch = Batch::default();
        batch.push(&[0; 2], 0, &[BlockId(0)], 0);
        batch.push(&[0], 40_000, &[], 0);
        let step = device.plan(batch, HeadShape { heads: 1, kv_heads: 1, head_dim: 4 });
        let frequencies = device.vector(&[1.0, 0.25]);
        let mut out = D::Floats::default();
        device.rope_table(&step, &frequencies, 2.0, &mut out);
        let angle = |position: f32| [position, position * 0.25].map(f64::from);
        let want: Vec<f32> = [0.0, 1.0, 40_000.0]
            .into_iter()
            .flat_map(|p| [angle(p).map(f64::cos), angle(p).map(f64::sin)].concat())
            .map(|x| 2.0 * x as f32)
            .collect();
        close(label, &device.float_values(&out), &want, 1e-6);
    }

    #[test]
    fn every_device_agrees_with_the_formula() {
        on_each_device!(agrees);
    }
}
