//! The hash that an ETag names, computed over a file.

use std::{fs::File, io::Read as _, path::Path};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Hash of `path`'s content in the manner of `etag`: 64 digits are a SHA-256, 40 are git's SHA-1 of a blob.
/// `None` when the ETag is neither: a mirror's own invention says nothing about the content.
pub(crate) fn hash_like(etag: &str, path: &Path) -> std::io::Result<Option<String>> {
    if !etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    match etag.len() {
        64 => feed(Sha256::new(), &mut file).map(Some),
        40 => {
            let length = file.metadata()?.len();
            feed(Sha1::new_with_prefix(format!("blob {length}\0")), &mut file).map(Some)
        }
        _ => Ok(None),
    }
}

fn feed(mut hash: impl Digest, file: &mut File) -> std::io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_the_length_of_the_etag_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "hello\n").unwrap();
        let hash = |etag: &str| hash_like(etag, &path).unwrap();
        // `printf 'hello\n' | git hash-object --stdin` and `| sha256sum`
        assert_eq!(hash(&"0".repeat(40)).unwrap(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(
            hash(&"0".repeat(64)).unwrap(),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
        assert_eq!(hash("abc"), None);
    }
}
