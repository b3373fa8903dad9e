//! Matrices of four-bit floats in blocks that share a scale (MXFP4 of the OCP Microscaling specification 1.0).
//!
//! An element has a sign, two bits of exponent and one of mantissa: ±0, 0.5, 1, 1.5, 2, 3, 4, 6. Each 32 neighbours of a row
//! share a power of two, stored as its exponent + 127. Products of the two are exact in bf16, so nothing is lost by
//! unpacking a panel into a thread's scratch and multiplying that: 4.25 bits an element come from memory, not 16.
//!
//! ```text
//! panel: rows 0..16   pair of columns 0:  one byte a row, the even column in the low half
//!                     pair of columns 1:  …
//!        scales       block 0: one byte a row;  block 1: …
//! ```

use super::{Buffer, Element, Threads, arith::multiversion, element::LANES};

/// Elements that share a scale.
pub(crate) const BLOCK: usize = 32;

/// `[experts][n, k]`.
pub(crate) struct PackedMxfp4 {
    n: usize,
    k: usize,
    /// `[experts][panels][k / 2][16]`.
    nibbles: Buffer<u8>,
    /// `[experts][panels][k / 32][16]`.
    scales: Buffer<u8>,
}

/// A compiled kernel: a panel's nibbles and scales to a panel as [`super::PackedMatrix`] holds it.
pub(crate) type Kernel<T> = fn(&[u8], &[u8], &mut [T]);

impl PackedMxfp4 {
    /// Zeros, to be filled panel by panel.
    pub(crate) fn zeroed(experts: usize, n: usize, k: usize) -> std::io::Result<Self> {
        assert_eq!(k % BLOCK, 0, "whole blocks; other widths are refused with the configuration");
        let rows = experts * n.div_ceil(LANES) * LANES;
        let (nibbles, scales) = (Buffer::zeroed(rows * k / 2)?, Buffer::zeroed(rows * k / BLOCK)?);
        Ok(Self { n, k, nibbles, scales })
    }

    /// Experts.
    pub(crate) fn experts(&self) -> usize {
        self.nibbles.len() / (self.n.next_multiple_of(LANES) * self.k / 2)
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.nibbles.len() + self.scales.len()
    }

    /// Panels of an expert.
    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    /// Nibbles and scales of a panel.
    pub(crate) fn panel(&self, expert: usize, panel: usize) -> (&[u8], &[u8]) {
        let at = expert * self.panels() + panel;
        let (nibbles, scales) = (LANES * self.k / 2, LANES * self.k / BLOCK);
        (&self.nibbles[at * nibbles..][..nibbles], &self.scales[at * scales..][..scales])
    }

    /// Fills the panels in parallel: `body(expert, panel, nibbles, scales)`.
    pub(crate) fn fill(
        &mut self,
        threads: &mut Threads,
        body: impl Fn(usize, usize, &mut [u8], &mut [u8]) + Sync,
    ) {
        let (panels, nibbles, scales) = (self.panels(), LANES * self.k / 2, LANES * self.k / BLOCK);
        let memory = ((&mut self.nibbles[..], nibbles), (&mut self.scales[..], scales));
        threads.for_chunk_pairs(memory.0, memory.1, |at, nibbles, scales| {
            body(at / panels, at % panels, nibbles, scales);
        });
    }

    /// Writes a stored row, its bytes in order, as lane `lane` of a panel.
    pub(crate) fn pack_row(panel: &mut [u8], lane: usize, row: &[u8]) {
        for (step, byte) in panel.chunks_exact_mut(LANES).zip(row) {
            step[lane] = *byte;
        }
    }
}

multiversion! {
    /// Unpacks a panel, for any element type.
    pub(crate) fn unpack<T: Element>(nibbles: &[u8], scales: &[u8], out: &mut [T]) = body;
}

#[inline(always)]
#[expect(
    clippy::extra_unused_type_parameters,
    reason = "multiversion! names the arithmetic; no product is added here"
)]
fn body<T: Element, A>(nibbles: &[u8], scales: &[u8], out: &mut [T]) {
    let blocks = nibbles.chunks_exact(LANES * BLOCK / 2).zip(out.chunks_exact_mut(LANES * BLOCK));
    for ((nibbles, out), scales) in blocks.zip(scales.as_chunks::<LANES>().0) {
        let scale: [f32; LANES] = std::array::from_fn(|lane| power_of_two(scales[lane]));
        let pairs = nibbles.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<{ 2 * LANES }>().0);
        for (bytes, out) in pairs {
            for lane in 0..LANES {
                let byte = u32::from(bytes[lane]);
                // Where each of the two columns lies: side by side if the type has groups of two, else lanes apart.
                let second = if T::GROUP == 1 { LANES } else { 1 };
                out[lane * T::GROUP] = T::from_f32(float(byte & 0xf) * scale[lane]);
                out[lane * T::GROUP + second] = T::from_f32(float(byte >> 4) * scale[lane]);
            }
        }
    }
}

/// A nibble's value, by moving its exponent and mantissa to where f32 has them and correcting the exponent's bias, which
/// is 1 there and 127 here. A nibble without exponent is 0 or 0.5, an f32 without exponent likewise `mantissa · 2^-126`.
#[inline(always)]
fn float(nibble: u32) -> f32 {
    const BIAS: f32 = f32::from_bits((127 + 126) << 23);
    f32::from_bits((nibble & 7) << 22 | (nibble & 8) << 28) * BIAS
}

/// `2^(exponent - 127)`.
#[inline(always)]
fn power_of_two(exponent: u8) -> f32 {
    // The smallest has no exponent in f32.
    f32::from_bits(if exponent == 0 { 1 << 22 } else { u32::from(exponent) << 23 })
}

/// The plainest form: a stored row's elements.
pub(crate) fn reference(row: &[u8], scales: &[u8]) -> Vec<f32> {
    const VALUES: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let element = |nibble: u8, scale: u8| {
        let sign = if nibble & 8 == 0 { 1.0 } else { -1.0 };
        (sign * VALUES[usize::from(nibble & 7)] * 2f64.powi(i32::from(scale) - 127)) as f32
    };
    let bytes = row.iter().enumerate().map(|(at, byte)| (*byte, scales[2 * at / BLOCK]));
    bytes.flat_map(|(byte, scale)| [element(byte & 0xf, scale), element(byte >> 4, scale)]).collect()
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernels::{Isa, PackedMatrix};

    /// Every nibble under every scale that is a number, subnormal products and infinite ones too.
    fn unpacking_gives_the_packed_matrix<T: Element>() {
        let k = 64;
        for start in (0..=251).chain([252, 254]) {
            let row =
                |lane: usize| -> Vec<u8> { (0..k / 2).map(|i| (i * 37 + lane * 11 + start) as u8).collect() };
            let scales = |lane: usize| [start as u8, start.max(lane % 4 * 84) as u8];
            let (mut nibbles, mut packed_scales) = (vec![0; LANES * k / 2], vec![0; LANES * k / BLOCK]);
            let mut want = vec![T::default(); LANES * k];
            for lane in 0..LANES {
                PackedMxfp4::pack_row(&mut nibbles, lane, &row(lane));
                PackedMxfp4::pack_row(&mut packed_scales, lane, &scales(lane));
                let values: Vec<T> =
                    reference(&row(lane), &scales(lane)).into_iter().map(T::from_f32).collect();
                PackedMatrix::pack_row(&mut want, lane, &values);
            }
            for isa in Isa::available() {
                let mut out = vec![T::default(); LANES * k];
                T::unpack(isa)(&nibbles, &packed_scales, &mut out);
                let bits = |x: &[T]| x.iter().map(|x| x.to_f32().to_bits()).collect::<Vec<_>>();
                assert!(bits(&out) == bits(&want), "{isa} from scale {start} on");
            }
        }
    }

    #[test]
    fn unpacking_is_exact() {
        unpacking_gives_the_packed_matrix::<f32>();
        unpacking_gives_the_packed_matrix::<bf16>();
    }

    #[test]
    fn elements_by_hand() {
        // 0x2f: low -6, high 1; scale 128 is 2. The rest of the block is 0.
        let mut row = [0; 16];
        row[0] = 0x2f;
        assert_eq!(reference(&row, &[128])[..3], [-12.0, 2.0, 0.0]);
        assert_eq!((power_of_two(0), power_of_two(127)), (2f32.powi(-127), 1.0));
    }
}
