use crate::Load;

/// A figure with about four digits, and never more than three after the point.
pub(crate) fn number(value: f64) -> String {
    format!("{value:.*}", decimals(value))
}

/// Places after the point that make about four digits of `value`.
pub(crate) fn decimals(value: f64) -> usize {
    match value.abs() {
        size if size >= 1_000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    }
}

/// A figure that somebody chose, with the digits that it needs.
pub(crate) fn plain(value: f64) -> String {
    let rounded = format!("{value:.4}");
    rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The load that was offered, in a few words.
pub(crate) fn load(load: &Load) -> String {
    match load {
        Load::Closed { concurrency } => format!("{concurrency} at once"),
        Load::Open { arrivals, requests_per_second } => {
            format!("{} requests/s, {arrivals}", plain(*requests_per_second))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_about_four_digits() {
        let found: Vec<String> =
            [0.0, 0.0123, 5.0, 41.06, 655.04, 12_345.6, -5.5].into_iter().map(number).collect();
        assert_eq!(found, ["0.000", "0.012", "5.000", "41.06", "655.0", "12346", "-5.500"]);
        assert_eq!([2.0, 0.25, 1_000.0, 2.666_66].map(plain), ["2", "0.25", "1000", "2.6667"]);
    }
}
