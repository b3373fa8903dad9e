//! The loops of [`super::peak`] for AVX-512.

use std::arch::x86_64::*;

use super::{
    element::LANES,
    peak::{CHAINS, Peak},
};

pub(super) const F32: Peak = Peak { run: f32, operations: 2 * LANES * CHAINS };
pub(super) const BF16: Peak = Peak { run: bf16, operations: 2 * 2 * LANES * CHAINS };
pub(super) const INT8: Peak = Peak { run: int8, operations: 2 * 4 * LANES * CHAINS };

fn f32(rounds: usize) {
    // SAFETY: handed out only for an `Isa` that has these instructions.
    unsafe { f32_loop(rounds) }
}

#[target_feature(enable = "avx512f")]
fn f32_loop(rounds: usize) {
    let x = std::hint::black_box(_mm512_set1_ps(0.5));
    let mut acc = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = _mm512_fmadd_ps(*acc, x, x);
        }
    }
    std::hint::black_box(acc);
}

fn bf16(rounds: usize) {
    // SAFETY: as above.
    unsafe { bf16_loop(rounds) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_loop(rounds: usize) {
    let x = std::hint::black_box(_mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5), _mm512_set1_ps(0.25)));
    let mut acc = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = _mm512_dpbf16_ps(*acc, x, x);
        }
    }
    std::hint::black_box(acc);
}

fn int8(rounds: usize) {
    // SAFETY: as above.
    unsafe { int8_loop(rounds) }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn int8_loop(rounds: usize) {
    let x = std::hint::black_box(_mm512_set1_epi8(3));
    let mut acc = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, x, x);
        }
    }
    std::hint::black_box(acc);
}
