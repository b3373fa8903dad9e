//! Where the workers of `baton up` publish what their prefix caches hold: each on a port of its own.

use anyhow::Context as _;
use baton_kv_events::{Endpoint, Format};
use clap::Args;
use serde::{Serialize, Serializer};

/// Stands for a worker's name in the topic.
const WORKER: &str = "{worker}";

/// Options of each worker, of which ports and topics are made.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "KV events")]
pub(crate) struct KvEventOptions {
    /// Where changes of the prefix caches are published over ZeroMQ, as vLLM does. An endpoint that is listened on, such as
    /// @tcp://127.0.0.1:5557 or tcp://*:5557, is the first worker's; the others have the ports that follow, prefill workers before
    /// decode workers. One that is called, such as tcp://ROUTER:5557, is everybody's. Says what is in prompts [default: nowhere]
    #[arg(
        long,
        env = "BATON_KV_EVENTS_ENDPOINT",
        value_name = "ENDPOINT",
        conflicts_with = "no_prefix_cache"
    )]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    kv_events_endpoint: Option<Endpoint>,

    /// Where routers ask the first worker for KV events that they missed; the ports that follow are the others'
    #[arg(
        long,
        env = "BATON_KV_EVENTS_REPLAY_ENDPOINT",
        value_name = "ENDPOINT",
        requires = "kv_events_endpoint"
    )]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    kv_events_replay_endpoint: Option<Endpoint>,

    /// What KV events are published under, with {worker} for the worker's name, such as kv@{worker}@MODEL [default: nothing]
    #[arg(
        long,
        env = "BATON_KV_EVENTS_TOPIC",
        default_value = "",
        hide_default_value = true,
        value_name = "TOPIC"
    )]
    #[serde(skip_serializing_if = "String::is_empty")]
    kv_events_topic: String,

    /// Form of KV events: array, which most routers read, or map, which newer vLLM writes [default: array]
    #[arg(long, env = "BATON_KV_EVENTS_FORMAT", value_name = "FORMAT", value_parser = checked_format)]
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_events_format: Option<String>,
}

impl KvEventOptions {
    /// Checks that there are ports for so many workers.
    ///
    /// # Errors
    /// There are not; or two workers would have the same.
    pub(crate) fn check(&self, workers: u16) -> anyhow::Result<()> {
        let last = workers.saturating_sub(1);
        for (option, endpoint) in [
            ("--kv-events-endpoint", &self.kv_events_endpoint),
            ("--kv-events-replay-endpoint", &self.kv_events_replay_endpoint),
        ] {
            let Some(endpoint) = endpoint else { continue };
            endpoint.nth(last).with_context(|| {
                format!("{option} {endpoint}: {workers} workers need as many ports from there on")
            })?;
        }
        let (Some(events), Some(replay)) = (&self.kv_events_endpoint, &self.kv_events_replay_endpoint) else {
            return Ok(());
        };
        let taken = |endpoint: &Endpoint| {
            (0..workers).filter_map(|n| endpoint.nth(n)?.listening_port()).collect::<Vec<_>>()
        };
        let (events_ports, replay_ports) = (taken(events), taken(replay));
        if let Some(port) = events_ports.iter().find(|port| replay_ports.contains(port)) {
            anyhow::bail!(
                "--kv-events-replay-endpoint {replay}: port {port} is a worker's for --kv-events-endpoint {events} ({workers} workers \
                 have ports in a row): choose one at least {workers} away"
            );
        }
        Ok(())
    }

    /// As they stand on the command line of the `nth` worker.
    pub(crate) fn words(&self, nth: u16, worker: &str) -> Vec<(&'static str, String)> {
        let Some(endpoint) = &self.kv_events_endpoint else { return Vec::new() };
        let of_worker = |endpoint: &Endpoint| endpoint.nth(nth).map(|endpoint| endpoint.to_string());
        let topic = Some(self.kv_events_topic.replace(WORKER, worker)).filter(|topic| !topic.is_empty());
        let options = [
            ("--kv-events-endpoint", of_worker(endpoint)),
            ("--kv-events-replay-endpoint", self.kv_events_replay_endpoint.as_ref().and_then(of_worker)),
            ("--kv-events-topic", topic),
            ("--kv-events-format", self.kv_events_format.clone()),
        ];
        options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The workers read it; whoever types it should be told here what is wrong with it.
fn checked_format(text: &str) -> Result<String, String> {
    text.parse::<Format>().map(|_| text.to_owned())
}

fn as_text<S: Serializer>(endpoint: &Option<Endpoint>, serializer: S) -> Result<S::Ok, S::Error> {
    match endpoint {
        Some(endpoint) => serializer.collect_str(endpoint),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(events: &str, replay: &str) -> KvEventOptions {
        KvEventOptions {
            kv_events_endpoint: Some(events.parse().unwrap()),
            kv_events_replay_endpoint: (!replay.is_empty()).then(|| replay.parse().unwrap()),
            kv_events_topic: "kv@{worker}@m".to_owned(),
            kv_events_format: None,
        }
    }

    #[test]
    fn workers_have_ports_in_a_row_and_topics_with_their_names() {
        let words = options("tcp://*:5557", "@tcp://127.0.0.1:6557").words(2, "decode-0");
        let expected = [
            ("--kv-events-endpoint", "tcp://*:5559"),
            ("--kv-events-replay-endpoint", "@tcp://127.0.0.1:6559"),
            ("--kv-events-topic", "kv@decode-0@m"),
        ];
        assert_eq!(words, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(KvEventOptions::default().words(0, "decode-0"), []);
    }

    #[test]
    fn a_router_and_any_port_are_the_same_for_all() {
        for endpoint in ["tcp://router:5557", "@tcp://127.0.0.1:0"] {
            assert_eq!(options(endpoint, "").words(7, "w")[0].1, endpoint);
            assert!(options(endpoint, endpoint).check(64).is_ok());
        }
    }

    #[test]
    fn ports_that_there_are_not_are_refused() {
        let refused = |events, replay| options(events, replay).check(3).unwrap_err().to_string();
        assert!(options("tcp://*:5557", "tcp://*:5560").check(3).is_ok());
        let message = refused("tcp://*:5557", "tcp://*:5559");
        assert!(message.contains("port 5559") && message.contains("at least 3 away"), "{message}");
        let message = refused("tcp://*:65534", "");
        assert!(message.contains("--kv-events-endpoint") && message.contains("3 workers"), "{message}");
        assert!(refused("tcp://*:5557", "tcp://*:65535").contains("--kv-events-replay-endpoint"));
    }
}
