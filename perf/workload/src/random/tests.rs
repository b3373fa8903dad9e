use super::*;

const DRAWS: u64 = 100_000;

fn mean_and_variance(draw: impl Fn(&mut Stream) -> f64) -> (f64, f64) {
    let draws: Vec<f64> =
        (0..DRAWS).map(|index| draw(&mut Stream::new(7, Purpose::Arrivals, index))).collect();
    let mean = draws.iter().sum::<f64>() / DRAWS as f64;
    (mean, draws.iter().map(|draw| (draw - mean) * (draw - mean)).sum::<f64>() / DRAWS as f64)
}

fn check(draw: impl Fn(&mut Stream) -> f64, mean: f64, variance: f64) {
    let (got_mean, got_variance) = mean_and_variance(draw);
    assert!((got_mean - mean).abs() < 4.0 * (variance / DRAWS as f64).sqrt(), "mean {got_mean}, not {mean}");
    assert!((got_variance / variance - 1.0).abs() < 0.05, "variance {got_variance}, not {variance}");
}

#[test]
fn first_draws_of_streams_have_their_distributions_moments() {
    check(Stream::unit, 0.5, 1.0 / 12.0);
    check(Stream::exponential, 1.0, 1.0);
    check(Stream::normal, 0.0, 1.0);
    check(|stream| stream.gamma(0.25), 1.0, 4.0);
    check(|stream| stream.gamma(1.0), 1.0, 1.0);
    check(|stream| stream.gamma(9.0), 1.0, 1.0 / 9.0);
    check(|stream| stream.below(101) as f64, 50.0, 850.0);
}

#[test]
fn streams_differ_by_seed_purpose_and_index() {
    let first = |seed, purpose, index| Stream::new(seed, purpose, index).next_u64();
    let draws = [
        first(0, Purpose::Arrivals, 0),
        first(1, Purpose::Arrivals, 0),
        first(0, Purpose::OutputTokens, 0),
        first(0, Purpose::Arrivals, 1),
    ];
    for (place, draw) in draws.iter().enumerate() {
        assert!(!draws[..place].contains(draw));
    }
}

// From the reference implementation in C, with the state 1, 2, 3, 4.
#[test]
fn the_generator_is_xoshiro256_plus_plus() {
    let mut stream = Stream { state: [1, 2, 3, 4] };
    let draws: [u64; 4] = std::array::from_fn(|_| stream.next_u64());
    assert_eq!(draws, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
}

#[test]
fn logarithm_and_exponential_agree_with_the_platforms() {
    for k in -2000..2000_i32 {
        let x = f64::from(k) / 3.0;
        let (ours, theirs) = (exp(x), x.exp());
        assert!((ours / theirs - 1.0).abs() < 2e-13, "exp {x}: {ours}, not {theirs}");
        let (ours, theirs) = (ln(theirs), theirs.ln());
        assert!((ours - theirs).abs() <= 1e-15 * theirs.abs().max(1.0), "ln exp {x}: {ours}, not {theirs}");
    }
    assert_eq!(ln(1.0), 0.0);
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-1000.0), 0.0);
}
