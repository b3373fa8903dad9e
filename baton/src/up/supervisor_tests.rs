//! The supervisor over shell scripts that play a front, a sidecar and a worker.

use std::{fs, path::Path};

use baton_process::LogArgs;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{super::plan::Arg, *};

/// Notes its start, listens, and notes its end when it is told to stop.
const OBEDIENT: &str = "echo \"$0 starts $*\" >> $DIARY; trap 'echo \"$0 stops\" >> $DIARY; exit 0' TERM; \
     echo $LISTENING; while sleep 0.02; do :; done";
const STUBBORN: &str =
    "echo \"$0 starts\" >> $DIARY; trap '' TERM; echo $LISTENING; while sleep 0.02; do :; done";
const BROKEN: &str = "echo '{\"failed\":\"no room for the model\"}'; exit 1";
const CRASHING: &str = "kill -9 $$";
/// Dies after its first start, and obeys after its second.
const MORTAL: &str = "if [ -e $DIARY.died ]; then $OBEDIENT; fi; echo \"$0 starts\" >> $DIARY; \
     trap 'exit 0' TERM; echo $LISTENING; until [ -e $DIARY.die ]; do sleep 0.02; done; touch $DIARY.died; kill -9 $$";

/// Scripts, their diary, and somebody who says that they are ready.
struct Stage {
    folder: tempfile::TempDir,
    ready_at: SocketAddr,
    processes: Vec<ProcessPlan>,
    settings: Supervision,
}

impl Stage {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ready_at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 512];
                let _ = connection.read(&mut request).await;
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        let settings = Supervision {
            program: "/bin/sh".into(),
            common_args: Vec::new(),
            drain_timeout: Duration::from_secs(20),
            exit_patience: Duration::from_secs(20),
            start_timeout: Duration::from_secs(20),
            restart: Some(RestartPolicy { first_wait: Duration::from_millis(1), ..RestartPolicy::default() }),
            dial: Dial::plain(),
        };
        Self { folder: tempfile::tempdir().unwrap(), ready_at, processes: Vec::new(), settings }
    }

    fn diary_path(&self) -> String {
        self.folder.path().join("diary").to_str().unwrap().to_owned()
    }

    fn diary(&self) -> Vec<String> {
        fs::read_to_string(self.diary_path()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Adds a process; `of` is the one whose `grpc` address it needs.
    fn with(mut self, name: &str, kind: Kind, script: &str, of: Option<&str>) -> Self {
        let address = self.ready_at;
        let listening =
            format!(r#"'{{"listening":{{"http":"{address}","admin":"{address}","grpc":"127.0.0.1:7"}}}}'"#);
        let script = script
            .replace("$OBEDIENT", OBEDIENT)
            .replace("$DIARY", &self.diary_path())
            .replace("$LISTENING", &listening);
        let mut args: Vec<_> = ["-c", &script, name].map(|word| Arg::Text(word.into())).to_vec();
        args.extend(
            of.map(|process| Arg::AddressesOf { processes: vec![process.to_owned()], listener: "grpc" }),
        );
        self.processes.push(ProcessPlan { name: name.to_owned(), kind, args });
        self
    }

    /// Front and sidecar that do what they are told.
    async fn usual() -> Self {
        Self::new().await.with("front", Kind::Front, OBEDIENT, None).with(
            "sidecar",
            Kind::Sidecar,
            OBEDIENT,
            Some("front"),
        )
    }

    /// Runs it; `play` is called when it is ready, with what asks it to stop.
    async fn run(&self, play: impl AsyncFnOnce(mpsc::Sender<()>)) -> Result<Outcome, Failure> {
        let plan = Plan { processes: self.processes.clone() };
        let supervisor = Supervisor::new(plan, self.settings.clone(), Console::new(&LogArgs::default()));
        let (stop, mut requests) = mpsc::channel(4);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let ran = supervisor.run(&mut requests, |_| ready.send(()).unwrap());
        let played = async {
            if is_ready.await.is_ok() {
                play(stop).await;
            }
        };
        tokio::join!(ran, played).0
    }

    async fn wait_for(&self, line: &str) {
        while !self.diary().iter().any(|entry| entry.starts_with(line)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn stop_once(stop: mpsc::Sender<()>) {
    stop.send(()).await.unwrap();
}

#[tokio::test]
async fn everything_starts_where_addresses_are_known_and_stops_front_first() {
    // The worker comes first in the plan; it still starts last.
    let stage = Stage::new()
        .await
        .with("worker", Kind::DecodeWorker, OBEDIENT, Some("sidecar"))
        .with("sidecar", Kind::Sidecar, OBEDIENT, Some("front"))
        .with("front", Kind::Front, OBEDIENT, None);
    let outcome = stage.run(stop_once).await.unwrap();
    assert_eq!(outcome, Outcome::Drained);
    assert_eq!(
        stage.diary(),
        [
            "front starts ",
            "sidecar starts 127.0.0.1:7",
            "worker starts 127.0.0.1:7",
            "front stops",
            "sidecar stops",
            "worker stops"
        ]
    );
}

#[tokio::test]
async fn a_failure_at_the_start_is_told_and_stops_the_others() {
    for (script, reason) in [(BROKEN, "no room for the model"), (CRASHING, "was killed by signal 9")] {
        let stage = Stage::usual().await.with("worker", Kind::DecodeWorker, script, Some("sidecar"));
        let failure = stage.run(async |_| panic!("never ready")).await.unwrap_err();
        assert_eq!(failure.to_string(), format!("worker: {reason}"));
        assert_eq!(stage.diary()[2..], ["front stops", "sidecar stops"]);
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_a_failure() {
    let mut stage = Stage::usual().await;
    stage.settings.program = "/no/such/program".into();
    let failure = stage.run(async |_| panic!("never ready")).await.unwrap_err();
    assert!(failure.to_string().starts_with("front: could not be started: "), "{failure}");
}

#[tokio::test]
async fn who_is_never_ready_is_named_when_time_is_up() {
    let mut stage = Stage::usual().await;
    stage.ready_at = SocketAddr::from(([127, 0, 0, 1], 9));
    stage.settings.start_timeout = Duration::from_secs(1);
    let stage = stage.with("worker", Kind::DecodeWorker, OBEDIENT, Some("sidecar"));
    let failure = stage.run(async |_| panic!("never ready")).await.unwrap_err();
    assert!(failure.to_string().starts_with("not ready after 1 s: worker: "), "{failure}");
}

#[tokio::test]
async fn a_process_that_dies_while_serving_is_started_again() {
    let stage = Stage::usual().await.with("worker", Kind::DecodeWorker, MORTAL, Some("sidecar"));
    let outcome = stage
        .run(async |stop| {
            stage.wait_for("worker starts").await;
            fs::write(format!("{}.die", stage.diary_path()), "").unwrap();
            stage.wait_for("worker starts 127.0.0.1:7").await;
            stop_once(stop).await;
        })
        .await;
    assert_eq!(outcome.unwrap(), Outcome::Drained);
    assert_eq!(stage.diary().last().unwrap(), "worker stops");
}

#[tokio::test]
async fn a_process_that_dies_again_and_again_ends_the_service() {
    let dies = format!("if [ -e $DIARY.died ]; then exit 3; fi; {MORTAL}");
    let stage = Stage::usual().await.with("worker", Kind::DecodeWorker, &dies, Some("sidecar"));
    fs::write(format!("{}.die", stage.diary_path()), "").unwrap();
    let failure = stage.run(async |_| {}).await.unwrap_err();
    assert!(failure.to_string().starts_with("worker died again and again"), "{failure}");
    assert_eq!(stage.diary().last().unwrap(), "sidecar stops");
}

#[tokio::test]
async fn without_restarts_the_dead_stay_dead() {
    let mut stage = Stage::usual().await.with("worker", Kind::DecodeWorker, MORTAL, Some("sidecar"));
    stage.settings.restart = None;
    let outcome = stage
        .run(async |stop| {
            fs::write(format!("{}.die", stage.diary_path()), "").unwrap();
            while !Path::new(&format!("{}.died", stage.diary_path())).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop_once(stop).await;
        })
        .await;
    assert_eq!(outcome.unwrap(), Outcome::Drained);
    assert_eq!(stage.diary().iter().filter(|line| line.starts_with("worker starts")).count(), 1);
}

#[tokio::test]
async fn who_does_not_stop_in_time_is_killed() {
    let mut stage = Stage::usual().await.with("worker", Kind::DecodeWorker, STUBBORN, Some("sidecar"));
    stage.settings.drain_timeout = Duration::from_millis(300);
    stage.settings.exit_patience = Duration::from_millis(300);
    assert_eq!(stage.run(stop_once).await.unwrap(), Outcome::Drained);
    assert_eq!(stage.diary().last().unwrap(), "sidecar stops");
}

#[tokio::test]
async fn a_second_request_to_stop_does_not_wait() {
    let stage = Stage::new().await.with("front", Kind::Front, STUBBORN, None);
    let outcome = stage
        .run(async |stop| {
            stop.send(()).await.unwrap();
            stop.send(()).await.unwrap();
        })
        .await;
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
}

#[test]
fn a_process_listens_again_where_it_did() {
    let first = SocketAddr::from(([127, 0, 0, 1], 0));
    let args = vec![Arg::Listen { listener: "grpc", first }];
    let sidecar = ProcessPlan { name: "sidecar".to_owned(), kind: Kind::Sidecar, args };
    let mut addresses = Addresses::default();
    assert_eq!(sidecar.command_line(&addresses).unwrap(), ["127.0.0.1:0"]);
    addresses.insert("sidecar", [("grpc".to_owned(), SocketAddr::from(([127, 0, 0, 1], 4711)))].into());
    assert_eq!(sidecar.command_line(&addresses).unwrap(), ["127.0.0.1:4711"]);
}
