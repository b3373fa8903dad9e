//! Rows of a matrix by number: the embedding of tokens.

use super::{Element, Packed, Rows, Threads};

/// Row `i` of `out` is row `tokens[i]` of `table`.
pub(crate) fn embed<T: Element>(
    threads: &mut Threads,
    table: &Packed<T>,
    tokens: &[u32],
    out: &mut Rows<f32>,
) {
    let out = out.shape(tokens.len(), table.k());
    threads.for_chunks(out, table.k(), |row, out| table.row(tokens[row] as usize, out));
}

/// The plainest form.
pub(crate) fn reference(table: &[f32], width: usize, tokens: &[u32]) -> Vec<f32> {
    tokens.iter().flat_map(|token| table[*token as usize * width..][..width].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        device::testing::{Probe, close, on_each_device, random},
        kernels::{Batch, HeadShape},
    };

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        let (rows, width) = (37, 6);
        let values = random(rows * width, 1);
        let table = device.weights(&values, width);
        let mut batch = Batch::default();
        batch.push(&[36, 0, 17, 16, 36], 0, &[], 0);
        batch.push(&[5], 0, &[], 0);
        let step = device.plan(batch, HeadShape { heads: 1, kv_heads: 1, head_dim: 2 });
        let mut out = D::Floats::default();
        device.embed(&step, &table, &mut out);
        let want = super::reference(&values, width, &[36, 0, 17, 16, 36, 5]);
        close(label, &device.float_values(&out), &want, D::ROUNDING);
    }

    #[test]
    fn every_device_finds_its_rows() {
        on_each_device!(agrees);
    }
}
