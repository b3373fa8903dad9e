//! What gateway and picker tell each other beside the request.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::config::core::v3::Metadata,
    google::protobuf::{Struct, Value, value::Kind},
};

/// In which the gateway says what it leaves to choose from …
const SUBSET_NAMESPACE: &str = "envoy.lb.subset_hint";
/// … under this key.
const SUBSET_KEY: &str = "x-gateway-destination-endpoint-subset";
/// Of both what is chosen and what served.
const NAMESPACE: &str = "envoy.lb";
/// Header of the request, and key of its metadata: `ip:port[,ip:port…]`.
pub(crate) const DESTINATION: &str = "x-gateway-destination-endpoint";
/// The endpoint that answered.
const SERVED_KEY: &str = "x-gateway-destination-endpoint-served";

/// What the gateway leaves to choose from, as a list or as text with commas; `None`: everything.
pub(crate) fn subset(metadata: Option<&Metadata>) -> Option<Vec<String>> {
    let value = find(metadata, SUBSET_NAMESPACE, SUBSET_KEY)?;
    let texts: Vec<&str> = match value {
        Kind::ListValue(list) => list.values.iter().filter_map(text).collect(),
        Kind::StringValue(text) => text.split(',').collect(),
        _ => Vec::new(),
    };
    Some(texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).map(str::to_owned).collect())
}

/// Who answered.
pub(crate) fn served(metadata: Option<&Metadata>) -> Option<String> {
    match find(metadata, NAMESPACE, SERVED_KEY)? {
        Kind::StringValue(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// The destination, for the gateway's load balancer.
pub(crate) fn destination(endpoints: &str) -> Struct {
    let text = Value { kind: Some(Kind::StringValue(endpoints.to_owned())) };
    let inner = Struct { fields: HashMap::from([(DESTINATION.to_owned(), text)]) };
    let inner = Value { kind: Some(Kind::StructValue(inner)) };
    Struct { fields: HashMap::from([(NAMESPACE.to_owned(), inner)]) }
}

fn find<'a>(metadata: Option<&'a Metadata>, namespace: &str, key: &str) -> Option<&'a Kind> {
    metadata?.filter_metadata.get(namespace)?.fields.get(key)?.kind.as_ref()
}

fn text(value: &Value) -> Option<&str> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}
