//! Writing a kernel once for all instruction sets.
//!
//! A kernel's body is an `#[inline(always)]` function generic over [`Arith`]; [`multiversion!`] wraps it in one function
//! per instruction set, into which it is inlined and where the compiler vectorises it.

/// How a product is added.
pub(crate) trait Arith {
    /// `a * b + c`.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// One rounding: CPUs with FMA.
pub(crate) struct Fused;

/// Two roundings: a fused product without hardware support would be a slow library call.
pub(crate) struct Plain;

impl Arith for Fused {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Arith for Plain {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// Sums 16 partial sums in a fixed order.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; 16]) -> f32 {
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// e^x for x <= 0 or small positive x, error under 2 units in the last place, 0 below -87; exactly 1 at 0.
///
/// Cephes `expf`: x = n ln 2 + r, a polynomial for e^r, n into the exponent. Written out so that it vectorises and
/// does not depend on the machine's C library.
#[inline(always)]
pub(crate) fn exp<A: Arith>(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = A::mul_add(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = A::mul_add(n, -0.693_359_4, clamped);
    let r = A::mul_add(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = A::mul_add(p, r, c);
    }
    let e = A::mul_add(p, r * r, r + 1.0);
    // The integer is in the lowest bits; a cast of `n` would not vectorise.
    let scale = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    if x < -87.0 { 0.0 } else { e * scale }
}

/// Defines `fn name(isa) -> fn(args…)`: the version of `body::<…, Arith>` compiled for `isa`, chosen once and then called
/// without another look at the instruction set.
macro_rules! multiversion {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($g:ident : $bound:path),*>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;
    ) => {
        $(#[$meta])*
        $vis fn $name $(<$($g: $bound),*>)? (isa: $crate::kernels::Isa) -> fn($($ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            fn avx2 $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                #[target_feature(enable = "avx2,fma")]
                fn compiled $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body::<$($($g,)*)? $crate::kernels::arith::Fused>($($arg),*)
                }
                // SAFETY: handed out below for an `Isa` that has these instructions; one above `Portable` is made only
                // by detection on this CPU or checked against it (`Model::load`). A plain call cannot promise that.
                unsafe { compiled($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            fn avx512 $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn compiled $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body::<$($($g,)*)? $crate::kernels::arith::Fused>($($arg),*)
                }
                // SAFETY: as above.
                unsafe { compiled($($arg),*) }
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx512Bf16 => avx512 $(::<$($g),*>)?,
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx2 => avx2 $(::<$($g),*>)?,
                _ => $body::<$($($g,)*)? $crate::kernels::arith::Plain>,
            }
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_exact_value_and_exact_at_zero() {
        assert_eq!((exp::<Plain>(0.0), exp::<Fused>(0.0)), (1.0, 1.0));
        assert_eq!((exp::<Plain>(f32::NEG_INFINITY), exp::<Plain>(-1000.0)), (0.0, 0.0));
        for i in 0..200_000 {
            let x = -86.9 + i as f32 * 5e-4;
            let exact = f64::from(x).exp();
            for ours in [exp::<Plain>(x), exp::<Fused>(x)] {
                assert!((f64::from(ours) / exact - 1.0).abs() < 3e-7, "exp({x}) = {ours}, exactly {exact}");
            }
        }
    }
}
