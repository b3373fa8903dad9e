//! A scheduler process under load.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

/// A scheduler process, killed when dropped.
pub(crate) struct Scheduler {
    child: Child,
    addresses: BTreeMap<String, String>,
}

impl Scheduler {
    /// `baton scheduler` on free ports, with these options beside; on this core only, if one is named.
    pub(crate) fn start(
        baton: &Path,
        model: &Path,
        options: &[&str],
        core: Option<usize>,
    ) -> anyhow::Result<Self> {
        let any = "127.0.0.1:0";
        let mut command = match core {
            None => Command::new(baton),
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &core.to_string()]).arg(baton);
                command
            }
        };
        let mut child = command
            .args(["--log", "warn", "scheduler", "--listen", any, "--registry-listen", any, "--model"])
            .arg(model)
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", baton.display()))?;
        let stdout = child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let mut said: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("it says {line:?}"))?;
        let addresses = serde_json::from_value(said["listening"].take())?;
        Ok(Self { child, addresses })
    }

    /// Where it listens for `what`.
    pub(crate) fn address(&self, what: &str) -> anyhow::Result<&str> {
        self.addresses.get(what).map(String::as_str).with_context(|| format!("it has no listener {what:?}"))
    }

    /// Seconds of CPU so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks =
            |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("no figure");
        // Linux counts in hundredths of seconds, whatever its own clock.
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }

    /// Megabytes that are resident now.
    pub(crate) fn resident_mb(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
