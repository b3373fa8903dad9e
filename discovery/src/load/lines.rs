//! Prometheus' text format, as far as it is needed: `name{label="value",…} number [time]`, one a line.

/// One series' value.
#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    /// What stands between the braces.
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
}

/// Labels, read one by one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Labels<'a>(&'a [u8]);

/// A line that is none of the format.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed;

/// The name that a line begins with, of series whose names begin with an engine's prefix; `None` for all others. It is what every line is
/// asked, so it looks at the fewest bytes that it can.
#[inline]
pub(super) fn name(line: &[u8]) -> Option<&[u8]> {
    let after = match line.first()? {
        b'v' => line.strip_prefix(b"vllm:")?,
        b's' => line.strip_prefix(b"sglang:")?,
        _ => return None,
    };
    // Most lines are buckets of histograms: time_…, request_…, e2e_…, iteration_…, inter_…; no name that is wanted begins so.
    if matches!(after.first()?, b't' | b'r' | b'e' | b'i') && !after.starts_with(b"token_usage") {
        return None;
    }
    let length = after.iter().position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
    let name = &line[..line.len() - after.len() + length];
    (!name.ends_with(b"_bucket")).then_some(name)
}

/// What follows the name.
pub(super) fn sample(rest: &[u8]) -> Result<Sample<'_>, Malformed> {
    let (labels, rest) = match rest.first() {
        Some(b'{') => {
            let end = Labels(&rest[1..]).end().ok_or(Malformed)?;
            (Labels(&rest[1..=end]), &rest[end + 2..])
        }
        _ => (Labels(&[]), rest),
    };
    let mut words = rest.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty());
    let value =
        words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()).ok_or(Malformed)?;
    Ok(Sample { labels, value })
}

impl<'a> Labels<'a> {
    /// A label's value, with its escapes resolved.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let found = self.clone().find(|(label, _)| *label == name.as_bytes())?;
        Some(unescape(found.1))
    }

    /// A label's value as a number, if it is one.
    pub(super) fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        let found = self.clone().find(|(label, _)| *label == name.as_bytes())?;
        std::str::from_utf8(found.1).ok()?.parse().ok()
    }

    /// Bytes before the closing brace, which values may contain.
    fn end(&self) -> Option<usize> {
        let mut is_quoted = false;
        let mut at = 0;
        while at < self.0.len() {
            match self.0[at] {
                b'\\' if is_quoted => at += 1,
                b'"' => is_quoted = !is_quoted,
                b'}' if !is_quoted => return Some(at),
                _ => {}
            }
            at += 1;
        }
        None
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let equals = self.0.iter().position(|&byte| byte == b'=')?;
        let name = self.0[..equals].trim_ascii().strip_prefix(b",").unwrap_or(&self.0[..equals]).trim_ascii();
        let value = self.0[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
        let mut end = 0;
        while *value.get(end)? != b'"' {
            end += if value[end] == b'\\' { 2 } else { 1 };
        }
        self.0 = &value[end + 1..];
        Some((name, &value[..end]))
    }
}

fn unescape(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(&other) => other,
                None => byte,
            },
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = br#"vllm:cache_config_info{a="x}\"=,\n\\y", block_size="16",} 1.5e1 1700000000"#;
        let name = name(line).unwrap();
        assert_eq!(name, b"vllm:cache_config_info");
        let sample = sample(&line[name.len()..]).unwrap();
        assert_eq!(sample.value, 15.0);
        assert_eq!(sample.labels.get("a").unwrap(), "x}\"=,\n\\y");
        assert_eq!(sample.labels.number::<u32>("block_size"), Some(16));
        assert_eq!(sample.labels.number::<u32>("a"), None);
        assert_eq!(sample.labels.get("b"), None);
    }

    #[test]
    fn a_line_without_labels_has_a_value() {
        assert_eq!(sample(b" 3\r").unwrap().value, 3.0);
        assert!(sample(b"\tNaN").unwrap().value.is_nan());
    }

    #[test]
    fn what_is_no_line_is_malformed() {
        for rest in [&b""[..], b"{", b"{a=\"b\"", b"{a=\"b}", b"{a=\"b\"}", b"{} x", b" ", b"{a=\"\\"] {
            assert!(sample(rest).is_err(), "{}", rest.escape_ascii());
        }
    }

    #[test]
    fn names_of_other_series_are_skipped() {
        for line in [
            "",
            "# HELP vllm:num_requests_waiting x",
            "python_info 1",
            "vllm:time_to_first_token_seconds_bucket{",
            "vllm:num",
            "sglang:e2e{",
        ] {
            assert_eq!(name(line.as_bytes()), None, "{line}");
        }
        assert_eq!(name(b"sglang:token_usage 1"), Some(&b"sglang:token_usage"[..]));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(proptest::sample::select(&b"vllm:sgn{}=\",\\ 019.\t\xff\r"[..]), 0..60)) {
            if let Ok(sample) = sample(&line) {
                for (name, _) in sample.labels.clone() {
                    sample.labels.get(&String::from_utf8_lossy(name));
                }
            }
            let _ = name(&line);
        }
    }
}
