//! This process's end of the orders.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

use super::world::{Setup, until};
use super::{Order, PeerStats, Reply};

/// Nothing in these tests takes so long; a hang becomes a failure that names the order.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer process. Killed when dropped.
pub struct Peer {
    child: Mutex<Child>,
    pid: i32,
    stdin: tokio::sync::Mutex<ChildStdin>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>,
    next: AtomicU64,
}

impl Peer {
    pub async fn start(setup: &Setup) -> Self {
        Self::start_with(setup, &[]).await
    }

    /// One with an environment of its own.
    pub async fn start_with(setup: &Setup, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .envs(environment.iter().copied())
            .args(["--ignored", "--exact", "peer_process", "--nocapture"])
            .env("BATON_KV_TEST_PEER", serde_json::to_string(setup).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = child.id().unwrap() as i32;
        let stdin = tokio::sync::Mutex::new(child.stdin.take().unwrap());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>> = Arc::default();
        let (ready, started) = oneshot::channel();
        waiting.lock().unwrap().insert(u64::MAX, ready);
        let answers = waiting.clone();
        tokio::spawn(async move {
            let mut lines = stdout.lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some(json) = line.strip_prefix('@') else { continue };
                let (tag, reply): (u64, Reply) = serde_json::from_str(json).unwrap();
                if let Some(waiter) = answers.lock().unwrap().remove(&tag) {
                    let _ = waiter.send(reply);
                }
            }
            answers.lock().unwrap().clear();
        });
        tokio::time::timeout(PATIENCE, started)
            .await
            .expect("the peer starts in time")
            .expect("the peer starts");
        Self { child: Mutex::new(child), pid, stdin, waiting, next: AtomicU64::new(0) }
    }

    /// Gives an order without waiting for the answer.
    pub async fn post(&self, order: &Order) -> oneshot::Receiver<Reply> {
        let tag = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.waiting.lock().unwrap().insert(tag, reply);
        let line = format!("{}\n", serde_json::to_string(&(tag, order)).unwrap());
        self.stdin.lock().await.write_all(line.as_bytes()).await.unwrap();
        answer
    }

    pub async fn ask(&self, order: Order) -> Reply {
        let answer = self.post(&order).await;
        let answered = tokio::time::timeout(PATIENCE, answer).await;
        answered
            .unwrap_or_else(|_| panic!("no answer to {order:?}"))
            .unwrap_or_else(|_| panic!("the peer died on {order:?}"))
    }

    /// An order that must succeed.
    pub async fn must(&self, order: Order) -> Reply {
        match self.ask(order.clone()).await {
            Reply::Error(error) => panic!("{order:?} failed: {error}"),
            reply => reply,
        }
    }

    /// An order that must fail; the error's text.
    pub async fn fails(&self, order: Order) -> String {
        match self.ask(order.clone()).await {
            Reply::Error(error) => error,
            reply => panic!("{order:?} should have failed, gave {reply:?}"),
        }
    }

    /// The ticket that an order gives.
    pub async fn ticket(&self, order: Order) -> Vec<u8> {
        match self.must(order).await {
            Reply::Ticket(ticket) => ticket,
            other => panic!("{other:?} is no ticket"),
        }
    }

    pub async fn expect(&self, id: u64, blocks: &[u32], expires: Duration) -> Vec<u8> {
        self.expect_tokens(id, blocks, blocks.len() as u32, expires).await
    }

    pub async fn expect_tokens(&self, id: u64, blocks: &[u32], tokens: u32, expires: Duration) -> Vec<u8> {
        let (blocks, expires_ms) = (blocks.to_vec(), expires.as_millis() as u64);
        let order = Order::Expect { id, blocks, tokens, expires_ms };
        self.ticket(order).await
    }

    /// Opens, pushes layer by layer and finishes.
    pub async fn send_whole(&self, id: u64, ticket: Vec<u8>, layers: u32, blocks: &[(u32, u32)]) {
        self.must(Order::Open { id, ticket }).await;
        for layer in 0..layers {
            self.must(Order::Push { id, layers: (layer, layer + 1), blocks: blocks.to_vec() }).await;
        }
        self.must(Order::Finish { id }).await;
    }

    /// Where it is dialled, and as whom.
    pub async fn describe(&self) -> (String, Vec<u8>) {
        match self.must(Order::Describe).await {
            Reply::Description(endpoint, node_id) => (endpoint, node_id),
            other => panic!("{other:?} is no description"),
        }
    }

    pub async fn stats(&self) -> PeerStats {
        match self.must(Order::Stats).await {
            Reply::Stats(stats) => stats,
            other => panic!("{other:?} are no stats"),
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Returns when every thread of the peer stands still.
    pub async fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
        let stands = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"));
        until(|| {
            let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap().flatten();
            let mut stats =
                threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
            stats.all(stands).then_some(())
        })
        .await;
    }

    /// Kills it, and returns when the system has taken back all that it held.
    pub async fn end(&self) {
        self.kill();
        until(|| self.child.lock().unwrap().try_wait().unwrap()).await;
    }

    pub fn kill(&self) {
        let _ = self.child.lock().unwrap().start_kill();
    }
}

impl Drop for Peer {
    /// libfabric's shm provider names its region after the process, and a killed one leaves it behind.
    fn drop(&mut self) {
        self.kill();
        let prefix = format!("{}:", self.pid);
        let left = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        for file in left.filter(|file| file.file_name().to_string_lossy().starts_with(&prefix)) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}
