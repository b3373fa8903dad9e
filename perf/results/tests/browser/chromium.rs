use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// A browser without a window.
pub(crate) struct Chromium {
    program: PathBuf,
}

/// What a page became.
pub(crate) struct Page {
    /// The document after its scripts ran.
    pub(crate) dom: String,
    /// Errors and warnings on the console.
    pub(crate) complaints: Vec<String>,
    /// Addresses that the page asked the network for.
    pub(crate) requests: Vec<String>,
}

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

impl Chromium {
    /// That of `BATON_TEST_CHROMIUM`, or one on the PATH.
    ///
    /// # Errors
    /// There is none; the error says how to get one.
    pub(crate) fn find() -> Result<Self> {
        if let Some(program) = env::var_os("BATON_TEST_CHROMIUM") {
            return Ok(Self { program: program.into() });
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let all = env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
        let Some(program) = all.into_iter().find(|program| program.is_file()) else {
            bail!(
                "this test needs Chromium: run `./dev test`, which installs it, or `apt-get install chromium`, or set BATON_TEST_CHROMIUM to its path"
            );
        };
        Ok(Self { program })
    }

    /// Opens a file, waits until its scripts are done, and tells what it became.
    ///
    /// # Errors
    /// The browser can't be started, or fails.
    pub(crate) fn open(&self, file: &Path) -> Result<Page> {
        let profile = tempfile::tempdir()?;
        let log = profile.path().join("net-log.json");
        let output = Command::new(&self.program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--enable-logging=stderr", "--log-level=0"])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .arg(format!("--log-net-log={}", log.display()))
            .arg("--dump-dom")
            .arg(format!("file://{}", file.display()))
            .output()
            .with_context(|| format!("can't start {}", self.program.display()))?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("{} failed with {}:\n{stderr}", self.program.display(), output.status);
        }
        let console = stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned);
        Ok(Page {
            dom: String::from_utf8_lossy(&output.stdout).into_owned(),
            complaints: console.collect(),
            requests: requests(&fs::read(&log).context("the browser wrote no log of its network")?)?,
        })
    }
}

/// The http addresses in a log of Chromium's network. The browser's own ones (updates and the like) go to Google's hosts, whatever
/// the page is, and are left out.
fn requests(log: &[u8]) -> Result<Vec<String>> {
    let log: Value = serde_json::from_slice(log).context("the browser's network log is not JSON")?;
    let events = log["events"].as_array().context("the network log has no events")?;
    let mut urls: Vec<String> = events
        .iter()
        .filter_map(|event| event["params"]["url"].as_str())
        .filter(|url| url.starts_with("http") && !browser_s_own(url))
        .map(str::to_owned)
        .collect();
    urls.sort();
    urls.dedup();
    Ok(urls)
}

fn browser_s_own(url: &str) -> bool {
    let host = url.split('/').nth(2).unwrap_or_default();
    ["google.com", "googleapis.com", "gstatic.com"]
        .iter()
        .any(|owner| host == *owner || host.ends_with(&format!(".{owner}")))
}
