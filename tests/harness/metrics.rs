//! Reading Prometheus' text format.

use std::collections::BTreeMap;

/// The samples of one `/metrics` answer.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text; fails on a line that is neither a comment nor a sample.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            samples: lines
                .map(|line| Sample::parse(line).unwrap_or_else(|| panic!("no sample: {line}")))
                .collect(),
        }
    }

    /// Sum over all samples of that name whose labels include `labels`; `None` if there is no such sample.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|&(key, value)| sample.labels.get(key).is_some_and(|v| v == value))
        };
        let mut values = self.samples.iter().filter(fits).map(|sample| sample.value).peekable();
        values.peek().is_some().then(|| values.sum())
    }

    /// [`Metrics::sum`] of a metric that must be there.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels).unwrap_or_else(|| {
            let names: std::collections::BTreeSet<_> = self.samples.iter().map(|s| &s.name).collect();
            panic!("no metric {name}{labels:?}; there are {names:?}")
        })
    }

    /// Whether any sample has the name, or the name with a suffix such as `_bucket`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name.strip_prefix(name).is_some_and(is_suffix))
    }
}

fn is_suffix(rest: &str) -> bool {
    matches!(rest, "" | "_total" | "_bucket" | "_sum" | "_count" | "_info")
}

impl Sample {
    /// `name{key="value",…} number`
    fn parse(line: &str) -> Option<Self> {
        let (head, rest) = match line.split_once('{') {
            Some((name, rest)) => (name, Some(rest)),
            None => (line.split_once(' ')?.0, None),
        };
        let mut labels = BTreeMap::new();
        let number = match rest {
            None => line.split_once(' ')?.1,
            Some(rest) => {
                let (inside, number) = rest.rsplit_once('}')?;
                for pair in inside.split("\",").filter(|pair| !pair.is_empty()) {
                    let (key, value) = pair.split_once("=\"")?;
                    labels.insert(key.trim().to_owned(), value.trim_end_matches('"').to_owned());
                }
                number.trim_start()
            }
        };
        let value = number.split(' ').next()?.parse().ok()?;
        Some(Self { name: head.to_owned(), labels, value })
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let text = "# HELP a help\na{role=\"x\",n=\"1\"} 2\na{role=\"y\"} 3.5\nb_bucket{le=\"+Inf\"} 7\nc 1e3\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.get("a", &[]), 5.5);
        assert_eq!(metrics.get("a", &[("role", "x")]), 2.0);
        assert_eq!(metrics.get("c", &[]), 1000.0);
        assert_eq!(metrics.sum("a", &[("role", "z")]), None);
        assert!(metrics.has("b") && !metrics.has("b_b"));
    }
}
