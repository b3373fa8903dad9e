//! A part of what is done for a request.

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};

use super::{context::TraceContext, setup};

/// A part of what is done for a request; it ends when this is dropped. Costs nothing when traces are off or this one is not recorded.
#[derive(Debug, Default)]
pub struct Span {
    // `None`: not recorded.
    span: Option<Box<opentelemetry_sdk::trace::Span>>,
    context: TraceContext,
}

impl Span {
    /// Begins now, as a part of `parent`, or as the beginning of a trace.
    pub fn begin(name: impl Into<Cow<'static, str>>, kind: SpanKind, parent: &TraceContext) -> Self {
        Self::begin_at(name, kind, parent, None)
    }

    /// Something that is over already.
    pub fn past(
        name: impl Into<Cow<'static, str>>,
        parent: &TraceContext,
        (from, to): (SystemTime, SystemTime),
    ) {
        let mut this = Self::begin_at(name, SpanKind::Internal, parent, Some(from));
        if let Some(span) = &mut this.span {
            span.end_with_timestamp(to.max(from));
        }
    }

    fn begin_at(
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: &TraceContext,
        at: Option<SystemTime>,
    ) -> Self {
        let Some(tracer) = setup::tracer() else { return Self { span: None, context: parent.clone() } };
        let mut builder = tracer.span_builder(name).with_kind(kind);
        builder.start_time = at;
        // Not the thread's: there is none.
        let mut around = Context::new();
        if let Some(context) = parent.span_context() {
            around = around.with_remote_span_context(context.clone());
        }
        let span = tracer.build_with_context(builder, &around);
        let context = TraceContext::of(span.span_context().clone());
        Self { span: span.is_recording().then(|| Box::new(span)), context }
    }

    /// Where it is, for its parts.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Whether it is worth telling it anything.
    pub fn is_recorded(&self) -> bool {
        self.span.is_some()
    }

    /// Another name, as more is known.
    pub fn rename(&mut self, name: String) {
        if let Some(span) = &mut self.span {
            span.update_name(name);
        }
    }

    /// An attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// A list of words.
    pub fn set_words(&mut self, key: &'static str, words: &[&'static str]) {
        let words = words.iter().map(|word| StringValue::from(*word)).collect();
        self.set(key, Value::Array(Array::String(words)));
    }

    /// A number that counts something.
    pub fn set_count(&mut self, key: &'static str, count: u64) {
        self.set(key, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Something happened now.
    pub fn event<const N: usize>(&mut self, name: &'static str, attributes: [(&'static str, String); N]) {
        if let Some(span) = &mut self.span {
            let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
            span.add_event(name, attributes.collect());
        }
    }

    /// It failed: `error_type` is one of few words, `message` for a person.
    pub fn fail(&mut self, error_type: impl Into<Value>, message: impl Into<Cow<'static, str>>) {
        self.set("error.type", error_type);
        if let Some(span) = &mut self.span {
            span.set_status(Status::error(message));
        }
    }
}
