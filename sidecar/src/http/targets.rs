//! Where a gateway wants a prompt to be prefilled.

use baton_proto::v1::PrefillCandidate;
use http::HeaderMap;

use super::Directory;

/// llm-d's name for it: the chosen prefill worker; here several, best first, with commas between them.
const HEADER: &str = "x-prefiller-host-port";

/// More than that are not looked at.
const MOST_TARGETS: usize = 8;

/// Who is to be asked to prefill.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Targets {
    /// Best first; empty: prefill where it decodes.
    pub(super) candidates: Vec<PrefillCandidate>,
    /// Empty, or that the first choice is nobody's address.
    pub(super) fallback: String,
}

/// Reads the header. It comes from outside, so it chooses among the prefill workers that the registry knows, and no more; who
/// is not among them is passed over, as a worker that left a moment ago would be.
pub(super) fn targets(headers: &HeaderMap, directory: &Directory) -> Targets {
    let values = headers.get_all(HEADER).iter().filter_map(|value| value.to_str().ok());
    let asked = values.flat_map(|value| value.split(',')).map(str::trim).filter(|target| !target.is_empty());
    let mut targets = Targets::default();
    for (at, target) in asked.take(MOST_TARGETS).enumerate() {
        match directory.find(target) {
            Some(candidate) => targets.candidates.push(candidate),
            None if at == 0 => {
                targets.fallback = format!("{HEADER}: the fleet has no prefill worker at {target:?}");
            }
            None => {}
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use baton_proto::v1::PrefillWorkers;

    use super::*;

    fn of(values: &[&str]) -> (Vec<String>, String) {
        let worker = |id: &str, endpoint: &str| PrefillCandidate {
            worker_id: id.to_owned(),
            endpoint: endpoint.to_owned(),
            ..PrefillCandidate::default()
        };
        let directory = Directory::default();
        directory
            .set("s", PrefillWorkers { workers: vec![worker("a", "10.0.0.1:7"), worker("b", "b.local:7")] });
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        let Targets { candidates, fallback } = targets(&headers, &directory);
        (candidates.into_iter().map(|candidate| candidate.worker_id).collect(), fallback)
    }

    #[track_caller]
    fn check(values: &[&str], expected: &[&str], unknown: &str) {
        let (found, fallback) = of(values);
        assert_eq!(found, expected);
        assert!(fallback.contains(unknown) && fallback.is_empty() == unknown.is_empty(), "{fallback:?}");
    }

    #[test]
    fn known_addresses_are_taken_in_order_however_they_are_written() {
        check(&[], &[], "");
        check(&["10.0.0.1:7"], &["a"], "");
        check(&["b.local:7, 10.0.0.1:7"], &["b", "a"], "");
        check(&["b.local:7", "10.0.0.1:7"], &["b", "a"], "");
        check(&[" , "], &[], "");
    }

    #[test]
    fn nobody_is_called_whom_the_registry_does_not_know() {
        check(&["169.254.169.254:80"], &[], "169.254.169.254:80");
        check(&["10.0.0.1:8,b.local:7"], &["b"], "10.0.0.1:8");
        check(&["b.local:7,10.0.0.1:8"], &["b"], "");
        check(&["10.0.0.1"], &[], "10.0.0.1");
        check(&[&"x:1,".repeat(MOST_TARGETS), "10.0.0.1:7"], &[], "x:1");
    }
}
