//! A file that changes in the ways that files do.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;

struct Bed {
    folder: TempDir,
    watcher: FileWatcher,
    source: Source,
}

fn list(names: &[&str]) -> String {
    let entries = names
        .iter()
        .enumerate()
        .map(|(at, name)| format!("  - {{name: {name}, address: '10.0.0.{}:80'}}\n", at + 1));
    if names.is_empty() {
        "endpoints: []\n".to_owned()
    } else {
        format!("endpoints:\n{}", entries.collect::<String>())
    }
}

async fn bed(names: &[&str]) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("list"), list(names)).unwrap();
    open(folder).await
}

async fn open(folder: TempDir) -> Bed {
    let (watcher, source) =
        FileWatcher::open(folder.path().join("list"), &baton_process::Metrics::new()).await.unwrap();
    Bed { folder, watcher, source }
}

impl Bed {
    fn path(&self) -> PathBuf {
        self.folder.path().join("list")
    }

    fn names(&self) -> Vec<String> {
        self.source.snapshot().endpoints().iter().map(|endpoint| endpoint.id.to_string()).collect()
    }
}

#[tokio::test]
async fn a_process_does_not_start_with_a_missing_or_wrong_list() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = baton_process::Metrics::new();
    let path = folder.path().join("list");
    let error = FileWatcher::open(&path, &metrics).await.unwrap_err();
    assert!(matches!(error, FileError::Read { .. }) && error.to_string().contains("list"), "{error}");
    fs::write(&path, "endpoints:\n  - name: a\n").unwrap();
    let error = FileWatcher::open(&path, &metrics).await.unwrap_err();
    assert!(matches!(error, FileError::Parse { .. }) && error.to_string().contains("address"), "{error}");
}

#[tokio::test]
async fn a_change_of_the_same_length_and_time_is_seen() {
    let mut bed = bed(&["a"]).await;
    let time = fs::metadata(bed.path()).unwrap().modified().unwrap();
    fs::write(bed.path(), list(&["b"])).unwrap();
    fs::File::options().write(true).open(bed.path()).unwrap().set_modified(time).unwrap();
    bed.watcher.look().await;
    assert_eq!(bed.names(), ["b"]);
    assert_eq!(bed.watcher.metrics.reloads.get(), 1);
}

#[tokio::test]
async fn a_broken_version_keeps_the_old_one_and_ages_until_it_is_mended() {
    let mut bed = bed(&["a"]).await;
    fs::write(bed.path(), "endpoints: [{name: a, adress: '1.1.1.1:1'}]").unwrap();
    bed.watcher.look().await;
    let broken_at = Instant::now();
    bed.watcher.look().await;
    assert_eq!(bed.names(), ["a"]);
    assert_eq!(bed.watcher.metrics.failures.get(), 1, "counted once, not at each look");
    let later = broken_at + Duration::from_secs(60);
    assert!(bed.source.age(later).unwrap() >= Duration::from_secs(60), "a broken file confirms nothing");
    fs::write(bed.path(), list(&["b", "c"])).unwrap();
    bed.watcher.look().await;
    assert_eq!(bed.names(), ["b", "c"]);
}

#[tokio::test]
async fn a_missing_file_keeps_the_old_set_and_an_empty_list_does_not() {
    let mut bed = bed(&["a"]).await;
    fs::remove_file(bed.path()).unwrap();
    bed.watcher.look().await;
    bed.watcher.look().await;
    assert_eq!(bed.names(), ["a"]);
    assert_eq!(bed.watcher.metrics.failures.get(), 1);
    fs::write(bed.path(), list(&[])).unwrap();
    bed.watcher.look().await;
    assert!(bed.names().is_empty() && bed.source.snapshot().is_known());
}

#[tokio::test]
async fn a_config_map_that_swaps_its_folder_is_read_again() {
    // list -> ..data/list, ..data -> ..v1, as the kubelet lays it out; an update renames a new link over ..data.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, names) in [("..v1", ["a"]), ("..v2", ["b"])] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("list"), list(&names)).unwrap();
    }
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/list", at("list")).unwrap();
    let mut bed = open(folder).await;
    assert_eq!(bed.names(), ["a"]);
    let at = |name: &str| bed.folder.path().join(name);
    symlink("..v2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..v1")).unwrap();
    bed.watcher.look().await;
    assert_eq!(bed.names(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_being_written_is_not_taken_for_a_short_one() {
    let mut bed = bed(&["x"]).await;
    let parts = [list(&["a"]), list(&["a", "b"]), list(&["a", "b", "c"])];
    assert!(
        parts[2].starts_with(&parts[1]) && parts[1].starts_with(&parts[0]),
        "each is a right list by itself"
    );
    let path = bed.path();
    fs::write(&path, &parts[0]).unwrap();
    let writer = async {
        // Between reads.
        time::sleep(SETTLE / 2).await;
        for part in &parts[1..] {
            fs::write(&path, part).unwrap();
            time::sleep(SETTLE).await;
        }
    };
    tokio::join!(bed.watcher.look(), writer);
    assert_eq!(bed.names(), ["a", "b", "c"]);
    assert_eq!(bed.watcher.metrics.reloads.get(), 1, "the short ones were never published");
}

#[tokio::test]
async fn the_running_watcher_tells_readers() {
    let Bed { folder, watcher, mut source } = bed(&["a"]).await;
    assert_eq!(source.changed().await.unwrap().endpoints().len(), 1);
    let until = CancellationToken::new();
    let running = watcher.run(until.clone());
    let reader = async {
        fs::write(folder.path().join("list"), list(&["a", "b"])).unwrap();
        let set = source.changed().await.unwrap();
        until.cancel();
        set.endpoints().len()
    };
    let ((), count) = tokio::join!(running, reader);
    assert_eq!(count, 2);
}
