//! What the Inference Extension's conformance tests want of a picker beside the protocol: their own lightweight picker does the same.

use crate::Headers;

/// In the request: `ip` or `ip:port`, with commas, among which to choose.
const SELECTION: &str = "test-epp-endpoint-selection";
/// In the request as it goes on: their echo server sets this in its answer.
const ECHO: &str = "x-echo-set-header";
/// In the answer: who gave it, as the gateway says.
const SERVED: &str = "x-conformance-test-served-endpoint";
/// In the answer: who was to give it.
const SELECTED: &str = "x-conformance-test-selected-endpoint";
/// In place of who served, where the gateway does not say it: a test that asks shows it.
const UNTOLD: &str = "fail: the gateway tells no x-gateway-destination-endpoint-served in envoy.lb";

/// Among whom a request wants to be placed.
pub(crate) fn selection(headers: &Headers) -> Option<Vec<String>> {
    let listed = headers.get(SELECTION).filter(|listed| !listed.is_empty())?;
    Some(listed.split(',').map(|endpoint| endpoint.trim().to_owned()).collect())
}

/// Makes an echo server say who was to serve, for gateways that do not show answers to the picker.
pub(crate) fn request_header(selected: &str) -> (String, String) {
    (ECHO.to_owned(), format!("{SERVED}:{selected}"))
}

/// Says in the answer who was to serve, and who did.
pub(crate) fn answer_headers(selected: &str, served: Option<&str>) -> Vec<(String, String)> {
    [(SERVED, served.unwrap_or(UNTOLD)), (SELECTED, selected)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}
