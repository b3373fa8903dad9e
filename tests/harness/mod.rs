//! What the tests speak: a [`Deployment`] of real processes, its [`Worker`]s, and an HTTP [`Client`].
//!
//! Nothing here waits a fixed time: it waits for a line, an answer or a condition, under a deadline ([`eventually`]).
//! A test may kill only what it started: processes are addressed through the deployment that owns them.

mod adapter;
mod by_hand;
mod client;
mod cluster;
mod collector;
mod deployment;
mod envoy;
mod metrics;
mod model;
mod pods;
mod process;
mod prompt;
mod serving;
mod vllm;
mod wait;
mod worker;

pub(crate) use adapter::write_adapter;
pub(crate) use by_hand::{ANY, LyingRegistry, start, start_with, words, worker_args};
pub(crate) use client::{Client, Event, Reply, Stream};
pub(crate) use cluster::Cluster;
pub(crate) use collector::{Collector, Received};
pub(crate) use deployment::{Deployment, Up, required_variable};
pub(crate) use envoy::{Gateway, GatewayShape};
pub(crate) use metrics::Metrics;
pub(crate) use model::{ModelFolder, Shape};
pub(crate) use pods::{Pods, Speaks};
pub(crate) use process::{Process, Sent};
pub(crate) use prompt::{Answer, Ask, all_at_once, prompt_of};
pub(crate) use vllm::FakeVllm;
pub(crate) use wait::{eventually, eventually_within};
pub(crate) use worker::{Role, Worker};
