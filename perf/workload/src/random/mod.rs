//! Random numbers that are the same on every machine and with every version of every library.

mod float;

pub(crate) use float::{exp, ln};

/// What a number is drawn for. Each purpose has a stream of its own, so that changing one option does not change what others draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Arrivals = 1,
    InputTokens = 2,
    OutputTokens = 3,
    PrefixGroup = 4,
    Turns = 5,
    ThinkTime = 6,
    IsCancelled = 7,
    CancelAfter = 8,
    Content = 9,
    PrefixTokens = 10,
    ContentOffset = 11,
    ContentRound = 12,
}

/// A stream of random numbers: xoshiro256++ by Blackman and Vigna, seeded through SplitMix64 as they advise.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    state: [u64; 4],
}

impl Stream {
    /// The stream of one purpose and, within it, of one request (or piece, or session).
    pub(crate) fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let mut state = mix(seed.wrapping_add(GOLDEN)) ^ purpose as u64;
        state = mix(state.wrapping_add(GOLDEN)) ^ index;
        let mut next = || {
            state = state.wrapping_add(GOLDEN);
            mix(state)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform in [0, 1), in steps of 2⁻⁵³.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform in [0, `below`), which is not 0. Multiply and shift: the bias is below 2⁻³² for what is drawn here.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(below)) >> 64) as u64
    }

    /// Exponential with mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -ln(1.0 - self.unit())
    }

    /// Normal with mean 0 and standard deviation 1: Marsaglia's polar method, of whose two numbers one is used.
    pub(crate) fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * ln(square) / square).sqrt();
            }
        }
    }

    /// Gamma with mean 1: Marsaglia and Tsang (2000), `shape` over 0.
    pub(crate) fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            // Gamma(a) is Gamma(a + 1) times U^(1/a).
            let boost = exp(ln(1.0 - self.unit()) / shape);
            return self.gamma(shape + 1.0) * ((shape + 1.0) / shape) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            let v = v * v * v;
            if v > 0.0 && ln(1.0 - self.unit()) < 0.5 * x * x + d - d * v + d * ln(v) {
                return d * v / shape;
            }
        }
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
