//! The highest rate at which something holds, though it need not hold at all lower ones.
//!
//! A queue that has just become long enough makes others be used, so more load can be served better: where the share of good
//! requests falls below the line, it may do so for a narrow dip only. A search that halves finds one of the places where the line is
//! crossed, and which one depends on where it began; so what is above is asked for, too.

/// Rates are found to this ratio.
const PRECISION: f64 = 1.02;
/// Rates are looked for up to so many steps, each up to four times the last, from the first guess, either way.
const MOST_STEPS: u32 = 12;
/// Multiples of a rate that fails at which it is asked whether that was a dip.
const BEYOND: [f64; 4] = [1.05, 1.12, 1.25, 1.5];

/// Near `guess` at first; none if it never holds.
///
/// # Errors
/// What `holds` says.
pub(crate) fn highest<E>(
    guess: f64,
    mut holds: impl FnMut(f64) -> Result<bool, E>,
) -> Result<Option<f64>, E> {
    let (good, bad) = bracket(guess.max(1e-6), &mut holds)?;
    let (Some(mut good), Some(mut bad)) = (good, bad) else { return Ok(good) };
    for _ in 0..MOST_STEPS {
        while bad / good > PRECISION {
            let middle = (bad * good).sqrt();
            if holds(middle)? { good = middle } else { bad = middle }
        }
        let (mut beyond, mut above) = (None, None);
        for rate in BEYOND.iter().rev().map(|factor| bad * factor) {
            if holds(rate)? {
                beyond = Some(rate);
                break;
            }
            above = Some(rate);
        }
        let Some(rate) = beyond else { break };
        good = rate;
        bad = match above {
            Some(above) => above,
            None => match bracket(rate, &mut holds)? {
                (Some(highest), Some(bad)) => {
                    good = highest;
                    bad
                }
                _ => break,
            },
        };
    }
    Ok(Some(good))
}

/// A rate at which it holds and one at which it does not, as far as there are any near enough.
fn bracket<E>(
    mut rate: f64,
    holds: &mut impl FnMut(f64) -> Result<bool, E>,
) -> Result<(Option<f64>, Option<f64>), E> {
    let (mut good, mut bad) = (None, None);
    let mut factor: f64 = 1.25;
    for _ in 0..MOST_STEPS {
        if holds(rate)? {
            good = Some(rate);
            if bad.is_some() {
                break;
            }
            rate *= factor;
        } else {
            bad = Some(rate);
            if good.is_some() {
                break;
            }
            rate /= factor;
        }
        factor = (factor * factor).min(4.0);
    }
    Ok((good, bad))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[track_caller]
    fn check(holds: impl Fn(f64) -> bool, expected: f64) {
        for guess in [0.1, 1.0, 10.0, 30.0, 45.0, 60.0, 80.0, 120.0, 1000.0] {
            let Ok(found) = highest(guess, |rate| Ok::<_, Infallible>(holds(rate)));
            let found = found.expect("it holds somewhere");
            assert!(
                found <= expected && found * PRECISION >= expected,
                "{found} from {guess}, not {expected}"
            );
            assert!(holds(found));
        }
    }

    #[test]
    fn one_crossing_is_found_from_everywhere() {
        check(|rate| rate <= 42.0, 42.0);
        check(|rate| rate <= 0.3, 0.3);
        check(|rate| rate <= 5_000.0, 5_000.0);
    }

    #[test]
    fn a_dip_does_not_end_the_search() {
        // As with one prefill and five decode workers: three narrow dips, and the end.
        let dips = [(47.1, 47.8), (54.6, 55.2), (58.0, 58.6), (60.4, 61.0)];
        check(|rate| rate < 90.8 && !dips.iter().any(|(from, to)| (*from..*to).contains(&rate)), 90.8);
    }

    #[test]
    fn what_never_holds_is_not_found_and_what_always_holds_is() {
        let Ok(never) = highest(5.0, |_| Ok::<_, Infallible>(false));
        assert_eq!(never, None);
        let Ok(always) = highest(5.0, |_| Ok::<_, Infallible>(true));
        assert!(always.is_some_and(|rate| rate >= 5.0));
    }
}
