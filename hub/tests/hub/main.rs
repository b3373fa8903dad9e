//! Downloads from a local server that speaks the hub's endpoints.

mod fake_hub;

use std::{fs, path::PathBuf};

use baton_hub::{HubConfig, HubError, HubId, ModelFolder, Progress, pull, resolve};
use fake_hub::{COMMIT, FakeHub, Refusal};

const ID: &str = "org/tiny";

/// A hub with a small model, and an empty cache.
struct Scene {
    hub: FakeHub,
    cache: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self { hub: FakeHub::start().await, cache: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> HubConfig {
        HubConfig {
            endpoint: self.hub.endpoint(),
            cache: self.cache.path().to_owned(),
            token: None,
            offline: false,
        }
    }

    async fn resolve(&self, model: &str) -> Result<ModelFolder, HubError> {
        resolve(model, &self.config(), &mut Progress::silent()).await
    }

    fn repository(&self) -> PathBuf {
        self.cache.path().join("models--org--tiny")
    }

    /// The error's text, for `model`.
    async fn refusal(&self, model: &str) -> String {
        self.resolve(model).await.unwrap_err().to_string()
    }
}

#[tokio::test]
async fn a_model_is_downloaded_into_the_standard_layout() {
    let scene = Scene::new().await;
    let folder = scene.resolve(ID).await.unwrap();
    assert_eq!(folder.name, ID);
    assert_eq!(folder.path, scene.repository().join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(scene.repository().join("refs/main")).unwrap(), COMMIT);
    let mut names: Vec<_> =
        fs::read_dir(&folder.path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    // The hub also has README.md, onnx/model.onnx and consolidated.safetensors.
    assert_eq!(
        names,
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    for name in names {
        let link = fs::read_link(folder.path.join(&name)).unwrap();
        assert_eq!(link, PathBuf::from(format!("../../blobs/{}", scene.hub.etag(&name))), "{name}");
        assert_eq!(fs::read(folder.path.join(&name)).unwrap(), scene.hub.content(&name), "{name}");
    }
}

#[tokio::test]
async fn a_broken_download_is_continued_where_it_broke_off() {
    let scene = Scene::new().await;
    let size = scene.hub.content("model.safetensors").len();
    scene.hub.cut_next_download_after(size / 3);
    let folder = scene.resolve(ID).await.unwrap();
    assert_eq!(
        fs::read(folder.path.join("model.safetensors")).unwrap(),
        scene.hub.content("model.safetensors")
    );
    let ranges = scene.hub.ranges_asked_for("model.safetensors");
    assert_eq!(ranges, [None, Some(format!("bytes={}-", size / 3))]);
}

#[tokio::test]
async fn a_second_process_continues_what_the_first_left() {
    let scene = Scene::new().await;
    let content = scene.hub.content("model.safetensors");
    let blobs = scene.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = format!("{}.incomplete", scene.hub.etag("model.safetensors"));
    fs::write(blobs.join(partial), &content[..1000]).unwrap();
    let folder = scene.resolve(ID).await.unwrap();
    assert_eq!(fs::read(folder.path.join("model.safetensors")).unwrap(), content);
    assert_eq!(scene.hub.ranges_asked_for("model.safetensors"), [Some("bytes=1000-".to_owned())]);
}

#[tokio::test]
async fn a_server_that_cannot_continue_is_asked_for_everything() {
    let scene = Scene::new().await;
    scene.hub.ignore_ranges();
    scene.hub.cut_next_download_after(2000);
    let folder = scene.resolve(ID).await.unwrap();
    assert_eq!(
        fs::read(folder.path.join("model.safetensors")).unwrap(),
        scene.hub.content("model.safetensors")
    );
}

#[tokio::test]
async fn damaged_bytes_are_refused_and_removed() {
    let scene = Scene::new().await;
    let mut wrong = scene.hub.content("model.safetensors").to_vec();
    wrong.truncate(1000);
    wrong[500] ^= 1;
    let blobs = scene.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("{}.incomplete", scene.hub.etag("model.safetensors")));
    fs::write(&partial, wrong).unwrap();
    let error = scene.resolve(ID).await.unwrap_err();
    assert!(
        matches!(&error, HubError::Damaged { file, .. } if file == "model.safetensors"),
        "unexpected: {error}"
    );
    assert!(!partial.exists());
    scene.resolve(ID).await.unwrap();
}

#[tokio::test]
async fn a_cached_model_needs_no_network() {
    let scene = Scene::new().await;
    let downloaded = scene.resolve(ID).await.unwrap();
    scene.hub.forget_requests();
    assert_eq!(scene.resolve(ID).await.unwrap(), downloaded);
    assert_eq!(scene.resolve(&format!("{ID}@{COMMIT}")).await.unwrap().path, downloaded.path);
    let offline = HubConfig { offline: true, ..scene.config() };
    assert_eq!(resolve(ID, &offline, &mut Progress::silent()).await.unwrap(), downloaded);
    assert_eq!(scene.hub.requests(), 0);
}

#[tokio::test]
async fn pulling_again_fetches_no_bytes_that_are_there() {
    let scene = Scene::new().await;
    let first = scene.resolve(ID).await.unwrap();
    scene.hub.forget_requests();
    let id: HubId = ID.parse().unwrap();
    assert_eq!(pull(&id, &scene.config(), &mut Progress::silent()).await.unwrap(), first);
    assert!(scene.hub.ranges_asked_for("model.safetensors").is_empty());
}

#[tokio::test]
async fn offline_without_the_model_says_so() {
    let scene = Scene::new().await;
    let offline = HubConfig { offline: true, ..scene.config() };
    let error = resolve(ID, &offline, &mut Progress::silent()).await.unwrap_err().to_string();
    assert!(error.contains(ID) && error.contains("HF_HUB_OFFLINE"), "{error}");
    assert_eq!(scene.hub.requests(), 0);
}

#[tokio::test]
async fn an_unknown_model_names_the_id_and_the_remedy() {
    let scene = Scene::new().await;
    let error = scene.refusal("org/tinny").await;
    assert!(error.contains("org/tinny") && error.contains("spelling"), "{error}");
    let error = scene.refusal("org/tiny@v9").await;
    assert!(error.contains("no revision \"v9\""), "{error}");
    let error = scene.refusal("no-such-folder").await;
    assert!(error.contains("no such folder") && error.contains("org/name"), "{error}");
}

#[tokio::test]
async fn a_gated_model_asks_for_a_token_and_then_uses_it() {
    let scene = Scene::new().await;
    for refusal in [Refusal::Bare, Refusal::Gated] {
        scene.hub.require_token("secret", refusal);
        let error = scene.refusal(ID).await;
        assert!(error.contains(ID) && error.contains("HF_TOKEN"), "{error}");
    }
    let wrong = HubConfig { token: Some("other".to_owned()), ..scene.config() };
    let error = resolve(ID, &wrong, &mut Progress::silent()).await.unwrap_err().to_string();
    assert!(error.contains("the token (HF_TOKEN) gives no access"), "{error}");
    let right = HubConfig { token: Some("secret".to_owned()), ..scene.config() };
    resolve(ID, &right, &mut Progress::silent()).await.unwrap();
}

#[tokio::test]
async fn nobody_listening_is_told_from_not_found() {
    let scene = Scene::new().await;
    let config = HubConfig { endpoint: "http://127.0.0.1:9".to_owned(), ..scene.config() };
    let error = resolve(ID, &config, &mut Progress::silent()).await.unwrap_err().to_string();
    assert!(error.contains("cannot reach http://127.0.0.1:9"), "{error}");
}

#[tokio::test]
async fn a_folder_is_taken_as_it_is_or_told_what_it_lacks() {
    let scene = Scene::new().await;
    let folder = scene.cache.path().join("my-model");
    fs::create_dir(&folder).unwrap();
    let text = folder.to_str().unwrap();
    for (lacks, file) in [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("safetensors", "a.safetensors"),
    ] {
        let error = scene.refusal(text).await;
        assert!(error.contains("my-model") && error.contains(lacks), "{error}");
        fs::write(folder.join(file), "{}").unwrap();
    }
    let found = scene.resolve(text).await.unwrap();
    assert_eq!((found.path, found.name), (folder.canonicalize().unwrap(), "my-model".to_owned()));
}
