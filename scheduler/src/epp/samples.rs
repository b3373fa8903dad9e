//! From counts to samples: values with all the labels that any name shows.

use std::{borrow::Cow, sync::Arc};

use super::{
    pool::Pool,
    spread::Spread,
    tallies::{Kind, Requests, Tallies},
    who::Who,
};

/// What a sample is of; a name says what it calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Model,
    Tenant,
    Priority,
    ErrorCode,
    Streaming,
    Outcome,
    Pool,
    Namespace,
    Stage,
    Worker,
    Port,
    Status,
    DecisionType,
    Plugin,
    Build,
    /// Always empty: it has no meaning here, and queries expect it.
    Empty,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Count(u64),
    Level(f64),
    Spread(Spread),
}

/// A value with its labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    labels: Vec<(Label, Cow<'static, str>)>,
    pub(super) value: Value,
}

/// What is known at the moment somebody asks.
pub(super) struct Scrape<'a> {
    pub(super) tallies: &'a Tallies,
    pub(super) pool: &'a Pool,
    /// Cached blocks that are known.
    pub(super) index_blocks: u64,
}

impl Value {
    /// Adds what is of the same metric, and told apart by labels that a name does not show.
    pub(super) fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Count(own), Self::Count(count)) => *own += count,
            (Self::Level(own), Self::Level(level)) => *own += level,
            (Self::Spread(own), Self::Spread(spread)) => own.add(&spread),
            _ => debug_assert!(false, "one metric has one kind of values"),
        }
    }
}

impl Sample {
    pub(super) fn new(value: Value) -> Self {
        Self { labels: Vec::new(), value }
    }

    pub(super) fn with(mut self, label: Label, value: impl Into<Cow<'static, str>>) -> Self {
        self.labels.push((label, value.into()));
        self
    }

    /// Empty, if it has none.
    pub(super) fn label(&self, label: Label) -> &str {
        self.labels.iter().find(|(own, _)| *own == label).map_or("", |(_, value)| value)
    }

    fn of(self, who: &Who) -> Self {
        let (model, tenant) = (who.model.to_string(), who.tenant.to_string());
        self.with(Label::Model, model)
            .with(Label::Tenant, tenant)
            .with(Label::Priority, who.priority.to_string())
    }

    fn of_model(self, model: &Arc<str>) -> Self {
        self.with(Label::Model, model.to_string()).with(Label::Plugin, PLUGIN)
    }
}

/// What decides; llm-d has a plugin for each part of it.
const PLUGIN: &str = "baton-router";

/// One sample for each whose requests were seen.
pub(super) fn by_requests(scrape: &Scrape<'_>, value: impl Fn(&Requests) -> Value) -> Vec<Sample> {
    let requests = scrape.tallies.requests.iter();
    requests.map(|(who, requests)| Sample::new(value(requests)).of(who)).collect()
}

/// As [`by_requests`], for metrics of the whole pool.
pub(super) fn by_waiting(scrape: &Scrape<'_>, value: impl Fn(&Requests) -> u64) -> Vec<Sample> {
    let of_pool = |sample: Sample| scrape.pool.label(sample);
    by_requests(scrape, |requests| Value::Level(value(requests) as f64)).into_iter().map(of_pool).collect()
}

pub(super) fn errors(scrape: &Scrape<'_>) -> Vec<Sample> {
    let errors = |(who, requests): (&Who, &Requests)| -> Vec<Sample> {
        let sample = |(code, count): (&&'static str, &u64)| {
            Sample::new(Value::Count(*count)).of(who).with(Label::ErrorCode, *code)
        };
        requests.errors.iter().map(sample).collect()
    };
    scrape.tallies.requests.iter().flat_map(errors).collect()
}

pub(super) fn first_tokens(scrape: &Scrape<'_>) -> Vec<Sample> {
    let both = |(who, requests): (&Who, &Requests)| {
        ["false", "true"]
            .into_iter()
            .zip(requests.ttft.clone())
            .map(|(streaming, spread)| {
                Sample::new(Value::Spread(spread)).of(who).with(Label::Streaming, streaming)
            })
            .collect::<Vec<_>>()
    };
    scrape.tallies.requests.iter().flat_map(both).collect()
}

pub(super) fn predictions(scrape: &Scrape<'_>) -> Vec<Sample> {
    let spreads = by_requests(scrape, |requests| Value::Spread(requests.predicted_ttft.clone()));
    spreads.into_iter().map(|sample| sample.with(Label::Plugin, PLUGIN)).collect()
}

/// By outcome: `of` chooses the time, of the wait and of the offer.
pub(super) fn flows(scrape: &Scrape<'_>, of: impl Fn(&super::tallies::Flow) -> Value) -> Vec<Sample> {
    let sample = |((who, outcome), flow): (&(Who, super::Outcome), &super::tallies::Flow)| {
        scrape.pool.label(Sample::new(of(flow)).of(who).with(Label::Outcome, outcome.name()))
    };
    scrape.tallies.flows.iter().map(sample).collect()
}

pub(super) fn decisions(scrape: &Scrape<'_>) -> Vec<Sample> {
    let sample = |((model, kind), count): (&(Arc<str>, Kind), &u64)| {
        let kind = match kind {
            Kind::DecodeOnly => "decode-only",
            Kind::PrefillDecode => "prefill-decode",
        };
        Sample::new(Value::Count(*count)).of_model(model).with(Label::DecisionType, kind)
    };
    scrape.tallies.decisions.iter().map(sample).collect()
}

pub(super) fn attempts(scrape: &Scrape<'_>) -> Vec<Sample> {
    let attempts = scrape.tallies.attempts.iter().map(|(attempt, count)| {
        let sample = scrape.pool.label(Sample::new(Value::Count(*count)).of_model(&attempt.model));
        match &attempt.worker {
            None => sample.with(Label::Status, "failure"),
            Some((worker, port)) => sample
                .with(Label::Status, "success")
                .with(Label::Worker, worker.clone())
                .with(Label::Port, port.clone()),
        }
    });
    attempts.collect()
}

/// Of what the router itself does.
pub(super) fn of_plugin(value: Value) -> Vec<Sample> {
    vec![Sample::new(value).with(Label::Plugin, PLUGIN)]
}

pub(super) fn build() -> Vec<Sample> {
    vec![Sample::new(Value::Level(1.0)).with(Label::Build, env!("CARGO_PKG_VERSION"))]
}
