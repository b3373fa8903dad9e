//! Arithmetic that gives the same bits on every machine, which the platform's `expf` does not promise.

/// Index of the largest value, the lowest of equal ones; `None` when all are minus infinity.
pub(super) fn argmax(values: &[f32]) -> Option<u32> {
    let mut best = f32::NEG_INFINITY;
    let mut index = None;
    for (i, &value) in (0..).zip(values) {
        if value > best {
            best = value;
            index = Some(i);
        }
    }
    index
}

/// e^x for x ≤ 0, to 2 units in the last place; 0 below -87, where the result would be subnormal.
///
/// Cephes' method: x = n ln 2 + r with |r| ≤ ln 2 / 2, a polynomial for e^r, and n put into the exponent. Written without
/// fused multiply-add so that it rounds alike everywhere.
pub(super) fn exp(x: f32) -> f32 {
    debug_assert!(x <= 0.0, "{x} is not negative");
    if x < -87.0 {
        return 0.0;
    }
    let n = (x * std::f32::consts::LOG2_E + 0.5).floor();
    // ln 2 in two parts, the first short enough for n times it to be exact.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let tail = ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 1.666_666_5e-1)
        * r
        + 0.5;
    let power = tail * (r * r) + r + 1.0;
    // n is in -126..=0, so this is a normal number.
    power * f32::from_bits(((n as i32 + 127) as u32) << 23)
}
