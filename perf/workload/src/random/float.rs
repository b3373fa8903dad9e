//! Logarithm and exponential from operations that IEEE 754 rounds exactly, so that they are the same bits everywhere.
//! The standard library's go to the platform's, which may differ in the last bit.

use std::f64::consts::{LN_2, SQRT_2};

/// Natural logarithm of a positive normal number, to about 1e-15; -infinity for 0.
pub(crate) fn ln(x: f64) -> f64 {
    debug_assert!(x >= 0.0);
    if x < f64::MIN_POSITIVE {
        return f64::NEG_INFINITY;
    }
    // x = m 2^e with m in [√½, √2)
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i32 - 1023) as f64;
    let mut m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if m >= SQRT_2 {
        m *= 0.5;
        exponent += 1.0;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)), |s| below 0.172: s^23 is below 1e-17.
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let series = (0..=10).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    exponent * LN_2 + 2.0 * s * series
}

/// e to the power of `x`, to about 1e-15 for results near 1 and 1e-13 for the largest; 0 below the normal numbers.
pub(crate) fn exp(x: f64) -> f64 {
    if x < -708.0 {
        return 0.0;
    }
    if x > 709.0 {
        return f64::INFINITY;
    }
    // x = k ln 2 + r with |r| at most ln 2 / 2: r^18/18! is below 1e-24.
    let k = (x / LN_2).round();
    let r = x - k * LN_2;
    let series = (1..=17).rev().fold(1.0, |sum, n| 1.0 + sum * r / f64::from(n));
    series * f64::from_bits(((k as i64 + 1023) as u64) << 52)
}
