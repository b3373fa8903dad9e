//! A context tile in the pool: where its tokens lie, and their keys and values in the order of the dot products.

use std::{arch::x86_64::*, ops::Range};

use half::bf16;

use super::{LANES, Sizes, TILE, lane_mask};
use crate::kernels::SequenceLayer;

/// Bytes that memory is fetched in.
const CACHE_LINE: usize = 64;

/// Where the tokens of a context tile lie. The pool is shared with peers, so no reference to it is made.
#[derive(Clone, Copy)]
pub(super) struct Context {
    /// Keys in pairs of dimensions; past `tokens`, that of the last one, to be fetched but not read.
    keys: [*const i32; TILE],
    pub(super) tokens: usize,
    /// From a token's key to its value.
    value_bytes: usize,
}

impl Context {
    pub(super) fn find(cache: SequenceLayer<'_>, head: usize, start: usize, tokens: usize) -> Self {
        let mut keys = [std::ptr::null(); TILE];
        cache.keys(head, start, &mut keys[..tokens]);
        let last = keys[tokens - 1];
        keys[tokens..].fill(last);
        Self { keys, tokens, value_bytes: cache.value_bytes() }
    }

    /// Has the keys of some tokens fetched.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn fetch_keys(&self, tokens: Range<usize>, s: Sizes) {
        for key in &self.keys[tokens] {
            fetch(key.cast(), s);
        }
    }

    /// Has the values of the tokens `2 * pair` and the next fetched.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn fetch_values(&self, pair: usize, s: Sizes) {
        fetch(self.value(2 * pair).cast(), s);
        fetch(self.value(2 * pair + 1).cast(), s);
    }

    /// Keys of 16 tokens from `16 * wide` on, 16 pairs of dimensions from `pair` on: a register a pair, a lane a token.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn keys(&self, wide: usize, pair: usize, s: Sizes) -> [__m512i; LANES] {
        let mask = lane_mask(s.head_dim / 2 - pair);
        let mut square = [_mm512_setzero_si512(); LANES];
        let first = wide * LANES;
        for (lane, row) in square.iter_mut().enumerate() {
            let mask = if first + lane < self.tokens { mask } else { 0 };
            // SAFETY: a token's row of head_dim / 2 pairs in a block that the sequence owns, written in this step or before;
            // masked lanes are not read.
            *row = unsafe { _mm512_maskz_loadu_epi32(mask, self.keys[first + lane].wrapping_add(pair)) };
        }
        transpose(&mut square);
        square
    }

    /// Values of the tokens `2 * pair` and the next, of 32 dimensions from register `line` on: a lane has a dimension of both
    /// tokens.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn values(&self, pair: usize, line: usize, s: Sizes) -> [__m512i; 2] {
        let dims = s.head_dim.saturating_sub(line * LANES);
        let mask = if dims >= 2 * LANES { u32::MAX } else { (1 << dims) - 1 };
        let value = |token| self.value(token).wrapping_add(line * LANES);
        // SAFETY: as for keys.
        let even = unsafe { _mm512_maskz_loadu_epi16(mask, value(2 * pair)) };
        let mask = if 2 * pair + 1 < self.tokens { mask } else { 0 };
        // SAFETY: as for keys; a second token that does not exist is masked off as a whole.
        let odd = unsafe { _mm512_maskz_loadu_epi16(mask, value(2 * pair + 1)) };
        let [low, high] = &INTERLEAVE;
        // SAFETY: 64 bytes are a register's.
        let low = unsafe { _mm512_loadu_si512(low.as_ptr().cast()) };
        // SAFETY: as above.
        let high = unsafe { _mm512_loadu_si512(high.as_ptr().cast()) };
        [_mm512_permutex2var_epi16(even, low, odd), _mm512_permutex2var_epi16(even, high, odd)]
    }

    #[inline(always)]
    fn value(&self, token: usize) -> *const i16 {
        self.keys[token].wrapping_byte_add(self.value_bytes).cast()
    }
}

/// Has a row fetched into L2, as it lies in memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch(row: *const i8, s: Sizes) {
    for line in (0..size_of::<bf16>() * s.head_dim).step_by(CACHE_LINE) {
        // A prefetch of any address is harmless.
        _mm_prefetch::<_MM_HINT_T1>(row.wrapping_add(line));
    }
}

/// The elements of two rows in turn: of their lower halves, of their upper halves. 32 and more are of the second row.
const INTERLEAVE: [[u16; 32]; 2] = {
    let mut order = [[0; 32]; 2];
    let mut i = 0;
    while i < 32 {
        order[i / 16][2 * (i % 16)] = i as u16;
        order[i / 16][2 * (i % 16) + 1] = 32 + i as u16;
        i += 1;
    }
    order
};

/// Transposes 16 rows of 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(square: &mut [__m512i; 16]) {
    let r = *square;
    let mut a = r;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut b = a;
    for i in 0..4 {
        b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    // b[4 i + c] holds, in its four quarters, columns c, 4 + c, 8 + c, 12 + c of rows 4 i..4 i + 4.
    for c in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(b[c], b[4 + c]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(b[c], b[4 + c]);
        let even2 = _mm512_shuffle_i32x4::<0x88>(b[8 + c], b[12 + c]);
        let odd2 = _mm512_shuffle_i32x4::<0xdd>(b[8 + c], b[12 + c]);
        square[c] = _mm512_shuffle_i32x4::<0x88>(even, even2);
        square[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, even2);
        square[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
        square[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, odd2);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Line, get, put};
    use super::*;
    use crate::kernels::Isa;

    #[test]
    fn transposing_swaps_rows_and_columns() {
        if Isa::detect() < Isa::Avx512Bf16 {
            return;
        }
        #[target_feature(enable = "avx512f")]
        fn run(lines: &mut [Line; 16]) {
            let mut square = [_mm512_setzero_si512(); 16];
            for (row, line) in square.iter_mut().zip(lines.iter()) {
                *row = get(line);
            }
            transpose(&mut square);
            for (row, line) in square.into_iter().zip(lines) {
                put(line, row);
            }
        }
        let mut lines: [Line; 16] =
            std::array::from_fn(|i| Line(std::array::from_fn(|j| (16 * i + j) as u32)));
        // SAFETY: the CPU has the instructions, by the check above.
        unsafe { run(&mut lines) };
        assert!((0..16).all(|i| (0..16).all(|j| lines[i].0[j] == (16 * j + i) as u32)));
    }
}
