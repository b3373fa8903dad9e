//! Unpacking MXFP4 to bf16 with AVX-512: 32 elements by one look-up in a table of sixteen bf16.
//!
//! ```text
//! 16 bytes, one a row     each byte in a 32-bit lane:  low half = its low nibble, high half = its high nibble
//!                         = two 16-bit indices, in the order in which a packed panel has its two columns
//! table                   bf16 of each nibble
//! scale                   added to the exponent, where the element is not zero
//! ```

use std::arch::x86_64::*;

use half::bf16;

use super::{Isa, element::LANES, mxfp4};

/// bf16 of 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
const VALUES: [u16; 16] = [
    0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, 0x8000, 0xbf00, 0xbf80, 0xbfc0, 0xc000,
    0xc040, 0xc080, 0xc0c0,
];

/// The kernel, for a CPU that has the instructions.
pub(super) fn kernel(nibbles: &[u8], scales: &[u8], out: &mut [bf16]) {
    // With these scales every product of an element is a normal number: its exponent is from 126 to 129 before scaling.
    if scales.iter().all(|scale| (2..=252).contains(scale)) {
        // SAFETY: handed out only for an `Isa` that has these instructions; see `multiversion!`.
        unsafe { unpack(nibbles, scales, out) }
    } else {
        mxfp4::unpack(Isa::Avx512Bf16)(nibbles, scales, out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn unpack(nibbles: &[u8], scales: &[u8], out: &mut [bf16]) {
    const BYTES: usize = LANES * mxfp4::BLOCK / 2;
    let table: [u16; 32] = std::array::from_fn(|i| VALUES[i % 16]);
    // SAFETY: 64 bytes of an array; any border will do.
    let table = unsafe { _mm512_loadu_si512(table.as_ptr().cast()) };
    let blocks = nibbles.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<{ 2 * BYTES }>().0);
    for ((nibbles, out), scales) in blocks.zip(scales.as_chunks::<LANES>().0) {
        // The scale's exponent without its bias, at the exponent's place in both halves of a lane.
        // SAFETY: 16 bytes of an array; any border will do.
        let scale = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(scales.as_ptr().cast()) });
        let scale = _mm512_slli_epi32::<7>(_mm512_sub_epi32(scale, _mm512_set1_epi32(127)));
        let scale = _mm512_and_si512(scale, _mm512_set1_epi32(0xffff));
        let scale = _mm512_or_si512(scale, _mm512_slli_epi32::<16>(scale));
        let steps = nibbles.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<{ 2 * LANES }>().0);
        for (bytes, out) in steps {
            // SAFETY: as for scales.
            let bytes = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
            let spread = _mm512_or_si512(bytes, _mm512_slli_epi32::<12>(bytes));
            let indices = _mm512_and_si512(spread, _mm512_set1_epi16(0xf));
            let nonzero = _mm512_test_epi16_mask(indices, _mm512_set1_epi16(7));
            let values = _mm512_permutexvar_epi16(indices, table);
            let values = _mm512_mask_add_epi16(values, nonzero, values, scale);
            // SAFETY: 64 bytes of an array; any border will do.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), values) };
        }
    }
}
