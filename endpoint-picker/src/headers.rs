//! Headers as ext_proc carries them.

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};

/// Names in lower case, with their values; a name may come several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, which is in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// All, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub(crate) fn read(map: Option<HeaderMap>) -> Self {
        let headers = map.map(|map| map.headers).unwrap_or_default();
        Self(headers.into_iter().map(|header| (header.key.to_ascii_lowercase(), text(&header))).collect())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(headers: [(&str, &str); N]) -> Self {
        Self(headers.map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned())).into())
    }
}

/// Gateways fill one of the two; what is no text is of no use here.
fn text(header: &HeaderValue) -> String {
    match header.raw_value.is_empty() {
        true => header.value.clone(),
        false => String::from_utf8_lossy(&header.raw_value).into_owned(),
    }
}
