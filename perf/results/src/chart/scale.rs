/// From values to pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    log: bool,
    /// Pixels of `low` and `high`.
    pixels: (f64, f64),
}

/// Values that reach over more than this ratio are drawn on a logarithmic scale.
const LOG_ABOVE: f64 = 30.0;

/// About so many ticks.
const TICKS: f64 = 6.0;

impl Scale {
    /// From 0 (or the least value, if that is less) to a round value above all.
    pub(super) fn linear(values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((0.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let high = if high > low { high } else { low + 1.0 };
        let step = step(high - low);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, log: false, pixels }
    }

    /// Logarithmic if the values are positive and reach far, else linear.
    pub(super) fn fitting(values: impl Iterator<Item = f64> + Clone, pixels: (f64, f64)) -> Self {
        let all = values.clone().filter(|value| value.is_finite());
        let (low, high) =
            all.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if low > 0.0 && low.is_finite() && high / low > LOG_ABOVE {
            return Self { low: round_down(low), high: round_up(high), log: true, pixels };
        }
        Self::linear(values, pixels)
    }

    /// Between two given values.
    pub(super) fn between(low: f64, high: f64, log: bool, pixels: (f64, f64)) -> Self {
        Self { low, high, log, pixels }
    }

    pub(super) fn is_log(&self) -> bool {
        self.log
    }

    /// Where `value` is drawn; what lies outside is drawn at the edge.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// Round values along it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if !self.log {
            let step = step(self.high - self.low);
            let count = ((self.high - self.low) / step + 1e-6).floor() as u32;
            let first = (self.low / step - 1e-6).ceil() * step;
            return (0..=count)
                .map(|n| first + f64::from(n) * step)
                .filter(|&tick| tick <= self.high * (1.0 + 1e-9))
                .collect();
        }
        let wide = (self.high / self.low).log10() > 3.0;
        let factors: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|decade| factors.iter().map(move |factor| factor * 10_f64.powi(decade)));
        all.filter(|&tick| self.low * (1.0 - 1e-9) <= tick && tick <= self.high * (1.0 + 1e-9)).collect()
    }
}

/// A step of 1, 2 or 5 times a power of ten.
fn step(range: f64) -> f64 {
    let raw = range / TICKS;
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| raw <= factor * power * (1.0 + 1e-9));
    factor.unwrap_or(10.0) * power
}

fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|factor| factor * power).find(|&round| round <= value).unwrap_or(power)
}

fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&round| round >= value)
        .unwrap_or(10.0 * power)
}

/// A tick's label: as many digits as it needs, thousands apart.
pub(super) fn label(value: f64) -> String {
    let rounded = format!("{value:.4}");
    let trimmed = rounded.trim_end_matches('0').trim_end_matches('.');
    let (whole, fraction) =
        trimmed.split_once('.').map_or((trimmed, None), |(whole, part)| (whole, Some(part)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("−", digits));
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(format!("{sign}{grouped}"), |part| format!("{sign}{grouped}.{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_enclose_the_values() {
        let scale = Scale::linear([3.0, 47.0].into_iter(), (0.0, 100.0));
        assert_eq!(scale.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert!((scale.at(25.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn values_that_reach_far_are_drawn_by_their_logarithms() {
        let scale = Scale::fitting([3.0, 900.0].into_iter(), (100.0, 0.0));
        assert!(scale.is_log());
        assert_eq!(scale.ticks(), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert!((scale.at(2.0) - 100.0).abs() < 1e-9 && scale.at(1000.0).abs() < 1e-9);
        assert!(!Scale::fitting([0.0, 900.0].into_iter(), (0.0, 1.0)).is_log());
    }

    #[test]
    fn nothing_to_draw_still_has_a_scale() {
        let scale = Scale::fitting(std::iter::empty(), (0.0, 10.0));
        assert!(scale.ticks().len() > 1 && scale.at(0.5).is_finite());
    }

    #[test]
    fn labels_have_the_digits_that_they_need() {
        assert_eq!(
            [0.0, 0.05, 2.5, 1200.0, 1_000_000.0, -20.0].map(label),
            ["0", "0.05", "2.5", "1,200", "1,000,000", "−20"]
        );
    }
}
