//! From what a person typed to a folder: directory, cache, download, in this order.

use std::path::{Path, PathBuf};

use crate::{
    HubConfig, HubError, HubId, Progress,
    cache::{Repository, missing_file},
    client::{FileInfo, HubClient, Revision},
    download::Downloader,
};

/// A model on this machine's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFolder {
    /// Where `config.json` and the rest are.
    pub path: PathBuf,
    /// What clients call it: the hub id, or the folder's name.
    pub name: String,
}

/// The folder of `model`: a directory as it is, a hub id from the cache or else downloaded.
///
/// # Errors
/// [`HubError`].
///
/// # Cancel safety
/// Cancelled, a download leaves partial files that the next call continues.
pub async fn resolve(
    model: &str,
    config: &HubConfig,
    progress: &mut Progress,
) -> Result<ModelFolder, HubError> {
    match locate(model, config)? {
        Located::Here(folder) => Ok(folder),
        Located::OnHub(id) => pull(&id, config, progress).await,
    }
}

/// Where `model` is, as far as this machine's disk tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// On disk, whole.
    Here(ModelFolder),
    /// To be downloaded.
    OnHub(HubId),
}

/// [`resolve`] without its download: never uses the network.
///
/// # Errors
/// [`HubError`].
pub fn locate(model: &str, config: &HubConfig) -> Result<Located, HubError> {
    let path = Path::new(model);
    if path.is_dir() {
        return local(path).map(Located::Here);
    }
    let id: HubId = model.parse().map_err(|_| HubError::NotAModel { model: model.to_owned() })?;
    Ok(match Repository::new(config, &id).find(&id) {
        Some(path) => Located::Here(ModelFolder { path, name: id.repository() }),
        None => Located::OnHub(id),
    })
}

/// The newest state of `id`'s revision, downloading what is missing of it.
///
/// # Errors
/// [`HubError`].
///
/// # Cancel safety
/// Cancelled, it leaves partial files that the next call continues.
pub async fn pull(id: &HubId, config: &HubConfig, progress: &mut Progress) -> Result<ModelFolder, HubError> {
    if config.offline {
        return Err(HubError::Offline { id: id.to_string(), cache: config.cache.clone() });
    }
    let client = HubClient::new(config, id)?;
    let revision = client.revision().await?;
    let repository = Repository::new(config, id);
    repository.prepare(&revision.sha)?;
    let mut files = Vec::new();
    for name in needed(id, &revision)? {
        files.push(client.file_info(&revision.sha, name).await?);
    }
    let downloader = Downloader { client: &client, repository: &repository, commit: &revision.sha };
    fetch_all(id, &downloader, &files, config, progress).await?;
    repository.set_reference(id, &revision.sha)?;
    Ok(ModelFolder { path: repository.snapshot(&revision.sha), name: id.repository() })
}

fn local(path: &Path) -> Result<ModelFolder, HubError> {
    let path = path.canonicalize().map_err(HubError::io(path))?;
    if let Some(missing) = missing_file(&path) {
        return Err(HubError::NotAModelFolder { path, missing });
    }
    let name =
        path.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(ModelFolder { path, name })
}

async fn fetch_all(
    id: &HubId,
    downloader: &Downloader<'_>,
    files: &[FileInfo],
    config: &HubConfig,
    progress: &mut Progress,
) -> Result<(), HubError> {
    let total: u64 = files.iter().map(|file| file.size).sum();
    let have: u64 = files.iter().map(|file| downloader.have(file)).sum();
    check_space(&config.cache, total.saturating_sub(have))?;
    if have < total {
        progress.start(&id.to_string(), have, total);
    }
    for file in files {
        downloader.fetch(file, progress).await?;
        downloader.repository.link(downloader.commit, &file.name, &file.etag)?;
    }
    if have < total {
        progress.finish();
    }
    Ok(())
}

/// The files to fetch, weights last.
fn needed<'a>(id: &HubId, revision: &'a Revision) -> Result<Vec<&'a str>, HubError> {
    let names = revision.siblings.iter().map(|sibling| sibling.rfilename.as_str());
    let mut names: Vec<&str> = names.filter(|name| is_needed(name)).collect();
    names.sort_by_key(|name| (is_weights(name), *name));
    let missing = [
        ("config.json", names.contains(&"config.json")),
        ("tokenizer.json", names.contains(&"tokenizer.json")),
        ("*.safetensors", names.last().is_some_and(|name| is_weights(name))),
    ];
    match missing.iter().find(|(_, is_there)| !is_there) {
        Some((missing, _)) => Err(HubError::Incomplete { id: id.to_string(), missing }),
        None => Ok(names),
    }
}

fn is_needed(name: &str) -> bool {
    let is_tokenizer = name.starts_with("tokenizer") && name.ends_with(".json");
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    // Some repositories hold the weights twice, the second time in their authors' own arrangement.
    let is_second_copy = name.starts_with("consolidated");
    is_plain
        && (is_tokenizer
            || (is_weights(name) && !is_second_copy)
            || [
                "config.json",
                "generation_config.json",
                "chat_template.jinja",
                "model.safetensors.index.json",
            ]
            .contains(&name))
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn check_space(cache: &Path, needed: u64) -> Result<(), HubError> {
    const MIB: u64 = 1 << 20;
    let Ok(disk) = rustix::fs::statvfs(cache) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if needed <= free {
        return Ok(());
    }
    Err(HubError::DiskFull { path: cache.to_owned(), needed_mib: needed.div_ceil(MIB), free_mib: free / MIB })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_serving_needs_is_fetched() {
        let needed = |name| assert!(is_needed(name), "{name}");
        let unneeded = |name| assert!(!is_needed(name), "{name}");
        ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
            .into_iter()
            .for_each(needed);
        ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
            .into_iter()
            .for_each(needed);
        ["README.md", "pytorch_model.bin", "original/model.safetensors", "onnx/config.json"]
            .into_iter()
            .for_each(unneeded);
        ["consolidated.safetensors", "../model.safetensors", "a b.safetensors"]
            .into_iter()
            .for_each(unneeded);
    }
}
