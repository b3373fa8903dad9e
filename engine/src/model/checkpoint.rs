//! Weight files: memory-mapped safetensors, one or many.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype as Stored, SafeTensorError, SafeTensors};
use serde_json::Value;

use super::LoadError;

/// All tensors of a model folder, by name. The files stay mapped while it lives.
pub(crate) struct Checkpoint {
    files: Vec<Mmap>,
    tensors: HashMap<String, Located>,
}

struct Located {
    file: usize,
    start: usize,
    end: usize,
    stored: Stored,
    shape: Vec<usize>,
}

/// A tensor's elements where they lie in the file, row-major; the type of an element is known at run time.
#[derive(Clone, Copy)]
pub(crate) struct Tensor<'a> {
    bytes: &'a [u8],
    stored: Stored,
}

/// A header entry as the fingerprint wants it.
pub(super) struct Header<'a> {
    pub(super) name: &'a str,
    pub(super) stored: String,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
}

impl Checkpoint {
    /// Maps `model.safetensors`, or every shard that `model.safetensors.index.json` names.
    pub(crate) fn open(folder: &Path) -> Result<Self, LoadError> {
        let mut checkpoint = Self { files: Vec::new(), tensors: HashMap::new() };
        for file in weight_files(folder)? {
            checkpoint.add(&folder.join(file))?;
        }
        Ok(checkpoint)
    }

    /// Maps one file.
    pub(crate) fn open_file(path: &Path) -> Result<Self, LoadError> {
        let mut checkpoint = Self { files: Vec::new(), tensors: HashMap::new() };
        checkpoint.add(path)?;
        Ok(checkpoint)
    }

    /// Names of all tensors, in any order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of the tensor `name`, if there is one.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|located| &*located.shape)
    }

    fn add(&mut self, path: &Path) -> Result<(), LoadError> {
        let io = |source| LoadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and private; that nobody shortens the file while a model loads is required
        // of the operator as by every program that maps its input. No safe way maps a file.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (header_bytes, metadata) =
            SafeTensors::read_metadata(&map).map_err(|e| refusal(path, &map, &e))?;
        let base = 8 + header_bytes;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let located = Located {
                file: self.files.len(),
                start: base + start,
                end: base + end,
                stored: info.dtype,
                shape: info.shape.clone(),
            };
            self.tensors.insert(name, located);
        }
        self.files.push(map);
        Ok(())
    }

    /// The tensor `name`, whose shape must be `expected`.
    pub(crate) fn tensor(&self, name: &str, expected: &[usize]) -> Result<Tensor<'_>, LoadError> {
        let located = self.locate(name, expected)?;
        match located.stored {
            Stored::BF16 | Stored::F16 | Stored::F32 => {
                Ok(Tensor { bytes: self.bytes(located), stored: located.stored })
            }
            other => Err(wrong_type(name, other, "BF16, F16, F32")),
        }
    }

    /// The bytes of the tensor `name`, whose elements must be bytes and whose shape `expected`.
    pub(crate) fn bytes_of(&self, name: &str, expected: &[usize]) -> Result<&[u8], LoadError> {
        let located = self.locate(name, expected)?;
        match located.stored {
            Stored::U8 => Ok(self.bytes(located)),
            other => Err(wrong_type(name, other, "U8")),
        }
    }

    fn locate(&self, name: &str, expected: &[usize]) -> Result<&Located, LoadError> {
        let located = self.tensors.get(name).ok_or_else(|| LoadError::MissingTensor(name.to_owned()))?;
        if located.shape == expected {
            return Ok(located);
        }
        Err(LoadError::WrongShape {
            name: name.to_owned(),
            expected: expected.to_vec(),
            found: located.shape.clone(),
        })
    }

    /// Stored types, each with the number of tensors, for a log line.
    pub(super) fn count_stored_as_f16(&self) -> usize {
        self.tensors.values().filter(|t| t.stored == Stored::F16).count()
    }

    /// All header entries in the order of their names.
    pub(super) fn headers(&self) -> Vec<Header<'_>> {
        let mut headers: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, t)| Header {
                name,
                stored: format!("{:?}", t.stored),
                shape: &t.shape,
                bytes: self.bytes(t),
            })
            .collect();
        headers.sort_by(|a, b| a.name.cmp(b.name));
        headers
    }

    fn bytes(&self, located: &Located) -> &[u8] {
        &self.files[located.file][located.start..located.end]
    }
}

fn wrong_type(name: &str, found: Stored, supported: &'static str) -> LoadError {
    LoadError::UnsupportedTensorType { name: name.to_owned(), found: format!("{found:?}"), supported }
}

impl<'a> Tensor<'a> {
    /// Elements that are stored as f32.
    pub(crate) fn of_f32(bytes: &'a [u8]) -> Self {
        Self { bytes, stored: Stored::F32 }
    }

    /// Elements `start..start + out.len()` as f32.
    pub(crate) fn read_f32(&self, start: usize, out: &mut [f32]) {
        match self.stored {
            Stored::BF16 => self.read(start, out, |b| bf16::from_le_bytes(b).to_f32()),
            Stored::F16 => self.read(start, out, |b| f16::from_le_bytes(b).to_f32()),
            _ => self.read(start, out, f32::from_le_bytes),
        }
    }

    /// Elements `start..start + out.len()` as bf16, rounded to nearest even where they are stored wider.
    pub(crate) fn read_bf16(&self, start: usize, out: &mut [bf16]) {
        match self.stored {
            Stored::BF16 => self.read(start, out, bf16::from_le_bytes),
            Stored::F16 => self.read(start, out, |b| bf16::from_f32(f16::from_le_bytes(b).to_f32())),
            _ => self.read(start, out, |b| bf16::from_f32(f32::from_le_bytes(b))),
        }
    }

    fn read<T, const N: usize>(&self, start: usize, out: &mut [T], convert: impl Fn([u8; N]) -> T) {
        let bytes = &self.bytes[start * N..(start + out.len()) * N];
        for (to, from) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *to = convert(*from);
        }
    }
}

/// Names of the weight files of `folder`.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let index_path = folder.join("model.safetensors.index.json");
    if !index_path.exists() {
        let single = PathBuf::from("model.safetensors");
        return if folder.join(&single).exists() {
            Ok(vec![single])
        } else {
            Err(LoadError::FileMissing {
                folder: folder.to_owned(),
                file: "model.safetensors (or model.safetensors.index.json)".to_owned(),
            })
        };
    }
    let index = super::load::read_json(&index_path)?;
    let map = index["weight_map"].as_object();
    let mut files: Vec<_> = map.into_iter().flatten().filter_map(|(_, file)| file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    for file in &files {
        // A shard is a plain name in the same folder; an index that points elsewhere is not followed.
        if file.contains(['/', '\\']) || !folder.join(file).exists() {
            return Err(LoadError::FileMissing { folder: folder.to_owned(), file: (*file).to_owned() });
        }
    }
    Ok(files.into_iter().map(PathBuf::from).collect())
}

/// Tells a file that was cut from one that is damaged.
fn refusal(path: &Path, bytes: &[u8], error: &SafeTensorError) -> LoadError {
    let found_bytes = bytes.len() as u64;
    match expected_bytes(bytes) {
        Some(expected_bytes) if expected_bytes > found_bytes => {
            LoadError::Truncated { path: path.to_owned(), expected_bytes, found_bytes }
        }
        _ => LoadError::DamagedHeader { path: path.to_owned(), problem: error.to_string() },
    }
}

/// Size that the file should have, by its own header: eight bytes of header length, the header, the last tensor's end.
fn expected_bytes(bytes: &[u8]) -> Option<u64> {
    const LONGEST_HEADER_BYTES: u64 = 100_000_000;
    let header_bytes = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    if header_bytes > LONGEST_HEADER_BYTES {
        return None;
    }
    let data_start = 8 + header_bytes;
    let Some(header) = bytes.get(8..data_start as usize) else { return Some(data_start) };
    let header: Value = serde_json::from_slice(header).ok()?;
    let ends = header.as_object()?.values().filter_map(|t| t["data_offsets"][1].as_u64());
    ends.max()?.checked_add(data_start)
}
