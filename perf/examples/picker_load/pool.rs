//! A fleet in a file, whose metrics pages are one server's, and the scheduler before it.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use axum::{Router, routing::get};
use tokio::net::TcpListener;

/// Servers that exist in name and load only: no request is sent to them.
pub(crate) struct Pool {
    file: tempfile::NamedTempFile,
}

/// A scheduler process, killed when dropped.
pub(crate) struct Scheduler {
    child: Child,
    /// Its picker's address.
    pub(crate) picker: String,
}

const PAGE: &str = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"m\"} 0.0\n\
    # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"m\"} 4.0\n\
    # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{model_name=\"m\"} 0.3\n\
    # TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"200000\"} 1.0\n";

impl Pool {
    pub(crate) async fn start(workers: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let page = listener.local_addr()?;
        let app = Router::new().fallback(get(async || PAGE));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut text = String::from("endpoints:\n");
        for worker in 0..workers {
            let (high, low) = (worker / 250, worker % 250 + 1);
            let _ = writeln!(
                text,
                "- name: server-{worker}\n  address: 127.0.{high}.{low}:9\n  metrics-address: {page}"
            );
        }
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        Ok(Self { file })
    }
}

impl Scheduler {
    pub(crate) fn start(baton: &Path, model: &Path, pool: &Pool) -> anyhow::Result<Self> {
        let any = "127.0.0.1:0";
        let mut child = Command::new(baton)
            .args(["--log-level", "warn", "scheduler", "--listen", any, "--registry-listen", any])
            .args(["--picker-listen", any, "--max-queued", "100000", "--model"])
            .arg(model)
            .arg("--servers")
            .arg(pool.file.path())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", baton.display()))?;
        let stdout = child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let listening: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("it says {line:?}"))?;
        let picker = listening["listening"]["picker"].as_str().context("no picker")?.to_owned();
        Ok(Self { child, picker })
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
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
