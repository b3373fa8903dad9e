//! A running `baton up`.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;

use super::{Client, Metrics, ModelFolder, Process, Role, Sent, Worker, eventually, worker::blocks_in_use};

/// Until `up` is ready: loading a model and starting a handful of processes on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Until `up` has ended after a signal; it may let running requests end first.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone)]
pub(crate) struct Up {
    args: Vec<String>,
}

/// A running `baton up`, all of whose workers have joined.
pub(crate) struct Deployment {
    process: Process,
    client: Client,
    workers: Vec<Worker>,
    blocks_at_start: BTreeMap<String, f64>,
    is_stopped: bool,
}

impl Up {
    /// `--prefill PREFILL --decode DECODE` of `model`, on any free port, over shared memory.
    pub(crate) fn new(model: &ModelFolder, prefill: usize, decode: usize) -> Self {
        // Prompts are short here, and hand-overs are what is looked at.
        let args = ["up", "--model", &model.arg(), "--port", "0", "--disaggregate", "always"]
            .map(str::to_owned)
            .to_vec();
        Self { args }.with("--prefill", prefill).with("--decode", decode)
    }

    /// With another option.
    pub(crate) fn with(mut self, option: &str, value: impl ToString) -> Self {
        self.args.extend([option.to_owned(), value.to_string()]);
        self
    }

    /// With an option that has no value.
    pub(crate) fn with_flag(mut self, option: &str) -> Self {
        self.args.push(option.to_owned());
        self
    }

    /// A process that dies stays dead.
    pub(crate) fn without_restarts(mut self) -> Self {
        self.args.push("--no-restart".to_owned());
        self
    }

    /// Over libfabric's `provider`, from the library that `./dev test` installs.
    pub(crate) fn over_libfabric(self, provider: &str) -> Self {
        let library = required_variable("BATON_TEST_LIBFABRIC", "the path of libfabric.so.1");
        self.with("--fabric", format!("libfabric:{provider}")).with("--libfabric", library)
    }

    /// Over a NIXL agent with UCX, from the package that `./dev test` installs.
    pub(crate) fn over_nixl(self) -> Self {
        let packages = required_variable("BATON_TEST_NIXL", "the site-packages with nixl-cu13");
        self.with("--fabric", "nixl").with("--nixl", packages)
    }

    /// The command line after `baton`.
    pub(crate) fn args(&self) -> &[String] {
        &self.args
    }
}

/// A setting that `./dev test` makes; a test that needs it fails without, and says how to get it.
pub(crate) fn required_variable(name: &str, what: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("set {name} to {what}, or run `./dev test`, which installs it"))
}

impl Deployment {
    /// Starts it, and waits until it is ready.
    pub(crate) fn up(up: &Up) -> Self {
        Self::up_as(up, |client| client)
    }

    /// The same, of one that asks for keys: its client has that of an operator.
    pub(crate) fn up_with_key(up: &Up, key: &str) -> Self {
        Self::up_as(up, |client| client.saying("authorization", &format!("Bearer {key}")))
    }

    fn up_as(up: &Up, introduce: impl FnOnce(Client) -> Client) -> Self {
        let mut process = Process::start(up.args());
        let ready = |line: &str| line.strip_prefix("ready ").map(str::to_owned);
        let client = Client::new(process.wait_for_stdout(START_DEADLINE, "the ready line", ready));
        let client = introduce(client);
        let workers = workers_of(&client);
        let blocks_at_start = workers.iter().map(|w| (w.id.clone(), w.blocks_in_use())).collect();
        Self { process, client, workers, blocks_at_start, is_stopped: false }
    }

    /// Speaks to the front.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Its `baton up`.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The workers that were there at the start.
    pub(crate) fn workers(&self, role: Role) -> Vec<&Worker> {
        self.workers.iter().filter(|worker| worker.role == role).collect()
    }

    /// Those of them whose process lives.
    pub(crate) fn alive(&self, role: Role) -> Vec<&Worker> {
        let family = self.process.family();
        self.workers(role).into_iter().filter(|worker| family.contains(&worker.pid())).collect()
    }

    /// The only worker of that role.
    pub(crate) fn worker(&self, role: Role) -> &Worker {
        let [worker] = self.workers(role)[..] else { panic!("not one {role:?} worker") };
        worker
    }

    /// Ids of the workers that the front knows now.
    pub(crate) fn joined(&self) -> Vec<String> {
        workers_of(&self.client).into_iter().map(|worker| worker.id).collect()
    }

    /// Waits until every prefill worker that is there is connected to every decode worker that is there.
    pub(crate) fn assert_paired(&self) {
        eventually("the workers to be paired", || match self.client.get("/ready/pairs") {
            reply if reply.status == 200 && reply.body.is_empty() => Ok(()),
            reply => Err(reply.body),
        });
    }

    /// Requests that were not served as first intended.
    pub(crate) fn fallbacks(&self) -> f64 {
        Metrics::parse(&self.client.get("/metrics").body).get("baton_fallbacks_total", &[])
    }

    /// Waits until every worker that lives holds as many KV blocks as when it started.
    pub(crate) fn assert_blocks_return(&self) {
        for worker in [Role::Prefill, Role::Decode].into_iter().flat_map(|role| self.alive(role)) {
            let before = self.blocks_at_start[&worker.id];
            eventually(&format!("KV blocks of {} back to {before}", worker.id), || {
                let metrics = worker.try_metrics()?;
                match blocks_in_use(&metrics) {
                    now if now == before => Ok(()),
                    now => Err(format!("{now} blocks are in use")),
                }
            });
        }
    }

    /// Ctrl-C: it ends with exit code 0 and leaves nothing behind.
    pub(crate) fn stop(mut self) {
        self.assert_blocks_return();
        self.process.signal(Signal::INT, Sent::ToGroup);
        self.assert_ends();
    }

    /// A test has ended it in a way of its own.
    pub(crate) fn forget(mut self) {
        self.is_stopped = true;
    }

    /// After a signal that ends it in order: exit code 0, and nothing left behind.
    pub(crate) fn assert_ends(&mut self) {
        let status = self.process.wait(STOP_DEADLINE);
        assert_eq!(status.code(), Some(0), "`baton up` ended with {status}");
        self.process.assert_nothing_left();
        self.is_stopped = true;
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.is_stopped, "a test ends its deployment with stop()");
        }
    }
}

fn workers_of(client: &Client) -> Vec<Worker> {
    let answer = client.get("/v1/workers").ok();
    let entries = answer["workers"].as_array().unwrap_or_else(|| panic!("no list of workers: {answer}"));
    entries.iter().map(Worker::from_json).collect()
}
