//! Where a span belongs, as the W3C has it: `traceparent` and `tracestate`.

use std::str::FromStr as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
/// Version, trace, span, flags.
const PARENT_BYTES: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;
/// Longer ones are left behind, as the W3C allows.
const MOST_STATE_BYTES: usize = 512;

/// A place in a trace; by default in none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceContext(Option<Box<SpanContext>>);

impl TraceContext {
    /// From what came with a request; `header` gives the first value of one. What can't be understood counts as absent.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let Some((trace, span, flags)) = header(PARENT).and_then(parse) else { return Self::default() };
        let state = header(STATE).filter(|state| state.len() <= MOST_STATE_BYTES);
        let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
        Self::of(SpanContext::new(trace, span, flags, true, state))
    }

    /// [`Self::read`] from headers, or from gRPC metadata as headers.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self::read(|name| headers.get(name)?.to_str().ok())
    }

    pub(super) fn of(context: SpanContext) -> Self {
        Self(context.is_valid().then(|| Box::new(context)))
    }

    pub(super) fn span_context(&self) -> Option<&SpanContext> {
        self.0.as_deref()
    }

    /// Whether it is in a trace that is recorded.
    pub fn is_sampled(&self) -> bool {
        self.span_context().is_some_and(SpanContext::is_sampled)
    }

    /// The trace's id in hexadecimal digits.
    pub fn trace_id(&self) -> Option<String> {
        self.span_context().map(|context| context.trace_id().to_string())
    }

    /// What tells the next process; nothing, if it is in no trace.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let Some(context) = self.span_context() else { return Vec::new() };
        let state = context.trace_state().header();
        let mut headers = vec![(PARENT, self.traceparent().unwrap_or_default())];
        if !state.is_empty() {
            headers.push((STATE, state));
        }
        headers
    }

    /// The header of that name.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.span_context()?;
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
        Some(format!("00-{trace}-{span}-{flags:02x}"))
    }

    /// Tells the next process by these headers, or gRPC metadata as headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in self.headers() {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// Lower-case digits in four fields; a later version may have more.
fn parse(value: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let value = value.trim();
    let is_plain = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    let (known, rest) = value.split_at_checked(PARENT_BYTES).filter(|_| is_plain)?;
    let mut fields = known.split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let has_form = [version, trace, span, flags].map(str::len) == [2, 32, 16, 2];
    let is_understood = match version {
        "00" => rest.is_empty(),
        "ff" => false,
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    if !has_form || !is_understood || fields.next().is_some() {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    Some((TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parent: &str, state: Option<&str>) -> TraceContext {
        TraceContext::read(|name| if name == PARENT { Some(parent) } else { state.filter(|_| name == STATE) })
    }

    #[test]
    fn what_came_in_goes_on_as_it_was() {
        let context = read(GOOD, Some("vendor=a,other=b"));
        assert!(context.is_sampled());
        assert_eq!(context.trace_id().unwrap(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let mut headers = HeaderMap::new();
        context.write(&mut headers);
        assert_eq!(headers[PARENT], GOOD);
        assert_eq!(headers[STATE], "vendor=a,other=b");
        assert_eq!(TraceContext::of_headers(&headers), context);
        assert!(!read(&GOOD.replace("-01", "-00"), None).is_sampled());
    }

    #[test]
    fn a_later_version_is_understood_as_far_as_it_is_known() {
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(read(&later, None), read(GOOD, None));
        assert_eq!(read(&format!("{later}-what-comes"), None), TraceContext::default());
        assert_eq!(read(&format!("{later}-0ff"), None), read(GOOD, None));
    }

    #[test]
    fn what_is_not_understood_is_no_context() {
        let zero_trace = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = GOOD.replace("00f067aa0ba902b7", &"0".repeat(16));
        let bad = [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD[1..],
            &GOOD.replacen("00", "ff", 1),
            &format!("{GOOD}-00"),
            &GOOD.replace('-', "_"),
            &GOOD.replace("0e0e", "é0"),
            &zero_trace,
            &zero_span,
        ];
        for value in bad {
            assert_eq!(read(value, None), TraceContext::default(), "{value}");
        }
        assert_eq!(TraceContext::default().headers(), []);
    }
}
