//! Which processes there are, and each one's command line.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use baton_process::{LogArgs, LogColor, TraceArgs};
use clap::ValueEnum;

use super::config::{Config, Model};

/// Any free port of this machine.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// All processes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) processes: Vec<ProcessPlan>,
}

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct ProcessPlan {
    /// Unique; also the worker's id.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) args: Vec<Arg>,
}

/// What a process is, in the order in which they stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Front,
    Sidecar,
    PrefillWorker,
    DecodeWorker,
}

/// A word of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arg {
    Text(OsString),
    /// The addresses that other processes reported, with commas between; those start first.
    AddressesOf {
        processes: Vec<String>,
        listener: &'static str,
    },
    /// Where to listen. Started again, the process listens where it did, because others know that address.
    Listen {
        listener: &'static str,
        first: SocketAddr,
    },
}

/// Addresses that processes reported, by process and listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    known: BTreeMap<String, BTreeMap<String, SocketAddr>>,
}

impl Addresses {
    pub(crate) fn insert(&mut self, process: &str, listeners: BTreeMap<String, SocketAddr>) {
        self.known.insert(process.to_owned(), listeners);
    }

    pub(crate) fn get(&self, process: &str, listener: &str) -> Option<SocketAddr> {
        self.known.get(process)?.get(listener).copied()
    }
}

impl ProcessPlan {
    /// The command line, or `None` while an address in it is not known.
    pub(crate) fn command_line(&self, addresses: &Addresses) -> Option<Vec<OsString>> {
        self.args.iter().map(|arg| self.resolve(arg, addresses)).collect()
    }

    fn resolve(&self, arg: &Arg, addresses: &Addresses) -> Option<OsString> {
        match arg {
            Arg::Text(text) => Some(text.clone()),
            Arg::AddressesOf { processes, listener } => {
                let addresses = processes.iter().map(|process| addresses.get(process, listener));
                let addresses: Vec<String> =
                    addresses.map(|a| a.map(|a| a.to_string())).collect::<Option<_>>()?;
                Some(addresses.join(",").into())
            }
            Arg::Listen { listener, first } => {
                Some(addresses.get(&self.name, listener).unwrap_or(*first).to_string().into())
            }
        }
    }
}

impl Plan {
    /// The fronts, the sidecars, the workers.
    pub(crate) fn new(config: &Config, logs: &LogArgs, traces: &TraceArgs) -> Self {
        let mut processes: Vec<_> = (0..config.schedulers).map(|index| front(index, config)).collect();
        processes.extend((0..config.decode).map(|index| sidecar(index, config)));
        processes.extend((0..config.prefill).map(|index| prefill_worker(index, config)));
        processes.extend((0..config.decode).map(|index| decode_worker(index, config)));
        for process in &mut processes {
            process.args.extend(tls_options(config));
            process.args.extend(log_options(logs));
            process.args.extend(trace_options(traces));
        }
        Self { processes }
    }
}

/// One is just that; several have numbers.
fn front_name(index: u16, config: &Config) -> String {
    if config.schedulers == 1 { "scheduler".to_owned() } else { format!("scheduler-{index}") }
}

fn registries(config: &Config) -> Arg {
    let processes = (0..config.schedulers).map(|index| front_name(index, config)).collect();
    Arg::AddressesOf { processes, listener: "registry" }
}

fn front(index: u16, config: &Config) -> ProcessPlan {
    let mut line = Line::new("scheduler");
    line.option("--model", config.model.as_text());
    line.option("--served-model-name", &config.served_model_name);
    line.word("--listen", Arg::Listen { listener: "http", first: config.listen(index) });
    line.word("--registry-listen", Arg::Listen { listener: "registry", first: ANY });
    line.option("--drain-timeout", config.drain_timeout.to_string());
    if config.allow_runtime_lora_updating {
        line.flag("--allow-runtime-lora-updating");
    }
    if config.prefill == 0 {
        line.flag("--aggregated");
    }
    line.if_given("--max-context", config.max_context.map(|tokens| tokens.to_string()));
    if config.prefill > 0 {
        line.if_given("--disaggregate", config.disaggregate.as_ref());
    }
    line.if_given("--slo-ttft-ms", config.slo_ttft_ms.map(|ms| ms.to_string()));
    line.if_given("--slo-tpot-ms", config.slo_tpot_ms.map(|ms| ms.to_string()));
    line.if_given("--routing-profile", config.routing_profile.as_ref());
    line.if_given("--tool-call-parser", config.tool_call_parser.as_ref());
    line.if_given("--reasoning-parser", config.reasoning_parser.as_ref());
    line.if_given("--upstream", config.upstream.as_ref());
    line.words(config.tenancy.words());
    line.into_plan(front_name(index, config), Kind::Front)
}

fn sidecar(index: u16, config: &Config) -> ProcessPlan {
    let mut line = Line::new("sidecar");
    line.word("--listen", Arg::Listen { listener: "grpc", first: ANY });
    line.word("--admin-listen", Arg::Listen { listener: "admin", first: ANY });
    line.word("--registry", registries(config));
    line.option("--drain-deadline", format!("{}s", config.drain_timeout));
    line.into_plan(format!("sidecar-{index}"), Kind::Sidecar)
}

fn prefill_worker(index: u16, config: &Config) -> ProcessPlan {
    worker("prefill-worker", format!("prefill-{index}"), index, registries(config), config)
        .into_plan(format!("prefill-{index}"), Kind::PrefillWorker)
}

/// It joins through its sidecar.
fn decode_worker(index: u16, config: &Config) -> ProcessPlan {
    let registry = Arg::AddressesOf { processes: vec![format!("sidecar-{index}")], listener: "grpc" };
    let mut line =
        worker("decode-worker", format!("decode-{index}"), config.prefill + index, registry, config);
    line.if_given("--speculative-config", config.speculative_config.as_ref());
    line.into_plan(format!("decode-{index}"), Kind::DecodeWorker)
}

/// The `nth` of all workers.
fn worker(subcommand: &str, id: String, nth: u16, registry: Arg, config: &Config) -> Line {
    let mut line = Line::new(subcommand);
    let kv_events = config.kv_events.words(nth, &id);
    line.option("--worker-id", id);
    line.option("--model", config.model.as_text());
    line.option("--served-model-name", &config.served_model_name);
    line.option("--listen", ANY.to_string());
    line.option("--admin-listen", ANY.to_string());
    line.word("--registry", registry);
    line.option("--fabric", &config.fabric);
    line.option("--threads", config.threads.to_string());
    line.option("--drain-timeout", config.drain_timeout.to_string());
    line.if_given("--libfabric", config.libfabric.as_ref());
    line.if_given("--rails", (!config.rails.is_empty()).then(|| config.rails.join(",")));
    line.if_given("--nixl", config.nixl.as_ref());
    line.if_given("--ucx", config.ucx.as_ref());
    line.if_given("--max-context", config.max_context.map(|tokens| tokens.to_string()));
    line.if_given("--max-loras", config.max_loras.map(|adapters| adapters.to_string()));
    for module in &config.lora_modules {
        line.option("--lora-modules", module);
    }
    line.words(config.worker.words());
    for (name, value) in kv_events {
        line.option(name, value);
    }
    line
}

/// Each process is a server to others and a client of others.
fn tls_options(config: &Config) -> Vec<Arg> {
    let mut line = Line { args: Vec::new() };
    for (name, value) in config.tls.files.words() {
        line.option(name, value);
    }
    line.args
}

/// Children log like the supervisor, who passes their lines on; a pipe must not cost the colours.
fn log_options(logs: &LogArgs) -> Vec<Arg> {
    let color = if logs.colored() { LogColor::Always } else { LogColor::Never };
    let mut line = Line { args: Vec::new() };
    line.option("--log", &logs.log);
    line.option("--log-format", name_of(&logs.log_format));
    line.option("--log-color", name_of(&color));
    line.args
}

/// Children send their spans themselves, each under its own name.
fn trace_options(traces: &TraceArgs) -> Vec<Arg> {
    let mut line = Line { args: Vec::new() };
    for (name, value) in traces.words() {
        line.option(name, value);
    }
    line.args
}

fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A command line in the making.
struct Line {
    args: Vec<Arg>,
}

impl Line {
    fn new(subcommand: &str) -> Self {
        Self { args: vec![Arg::Text(subcommand.into())] }
    }

    fn flag(&mut self, name: &str) {
        self.args.push(Arg::Text(name.into()));
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.word(name, Arg::Text(value.into()));
    }

    fn if_given(&mut self, name: &str, value: Option<impl Into<OsString>>) {
        if let Some(value) = value {
            self.option(name, value);
        }
    }

    fn words<V: Into<OsString>>(&mut self, words: impl IntoIterator<Item = (&'static str, Option<V>)>) {
        for (name, value) in words {
            self.flag(name);
            self.args.extend(value.map(|value| Arg::Text(value.into())));
        }
    }

    fn word(&mut self, name: &str, value: Arg) {
        self.flag(name);
        self.args.push(value);
    }

    fn into_plan(self, name: String, kind: Kind) -> ProcessPlan {
        ProcessPlan { name, kind, args: self.args }
    }
}

impl Model {
    fn as_text(&self) -> OsString {
        match self {
            Self::Folder(path) => PathBuf::clone(path).into(),
            Self::OnHub(id) => id.to_string().into(),
        }
    }
}
