//! Student's t distribution with whole degrees of freedom.

use std::f64::consts::{FRAC_2_PI, SQRT_2};

/// The `t` with `P(T ≤ t) = p`, for `p` of at least 0.5.
pub(super) fn quantile(p: f64, degrees: u32) -> f64 {
    debug_assert!((0.5..1.0).contains(&p) && degrees > 0);
    let (mut low, mut high) = (0.0, SQRT_2);
    while cdf(high, degrees) < p {
        high *= 2.0;
    }
    // Each step halves the interval: after 100 it is the numbers' own precision.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if cdf(middle, degrees) < p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// `P(T ≤ t)` for `t ≥ 0`: Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn cdf(t: f64, degrees: u32) -> f64 {
    let angle = (t / f64::from(degrees).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let odd = degrees % 2 == 1;
    // 1 + (1/2) cos² + (1·3/2·4) cos⁴ + … for even degrees; cos + (2/3) cos³ + (2·4/3·5) cos⁵ + … for odd ones.
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    let mut k = if odd { 1 } else { 0 };
    while k + 2 <= degrees {
        sum += term;
        term *= cos * cos * f64::from(k + 1) / f64::from(k + 2);
        k += 2;
    }
    let within = if odd { FRAC_2_PI * (angle + sin * sum) } else { sin * sum };
    0.5 + within / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, degrees, expected) in [
            (0.975, 1, 12.706_205),
            (0.975, 2, 4.302_653),
            (0.975, 3, 3.182_446),
            (0.975, 9, 2.262_157),
            (0.975, 30, 2.042_272),
            (0.80, 1, 1.376_382),
            (0.80, 7, 0.896_030),
            (0.95, 10, 1.812_461),
            (0.975, 1_000, 1.962_339),
        ] {
            let found = quantile(p, degrees);
            assert!((found - expected).abs() < 1e-5, "t({p}, {degrees}) = {found}, not {expected}");
        }
    }
}
