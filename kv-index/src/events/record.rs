//! vLLM's records: positional arrays, as in older versions, or maps of named fields, as in newer ones; both from any worker.

use super::msgpack::{DecodeError, Reader};
use crate::{Tier, key};

/// What a record says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    Stored,
    Removed,
    Cleared,
    /// One that this index does not know, or needs not.
    #[default]
    Other,
}

#[derive(Clone, Copy)]
enum Field {
    Type,
    Hashes,
    Parent,
    Tokens,
    BlockTokens,
    LoraId,
    Medium,
    LoraName,
    ExtraKeys,
    Group,
    SpecKind,
    Other,
}

const STORED: &[Field] = {
    use Field::{BlockTokens, ExtraKeys, Group, Hashes, LoraId, LoraName, Medium, Parent, SpecKind, Tokens};
    &[Hashes, Parent, Tokens, BlockTokens, LoraId, Medium, LoraName, ExtraKeys, Group, SpecKind]
};
const REMOVED: &[Field] = &[Field::Hashes, Field::Medium, Field::Group];

/// One event; its memory is used again for the next.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) hashes: Vec<u64>,
    pub(crate) parent: Option<u64>,
    tokens: Vec<u32>,
    /// One a block.
    pub(crate) contents: Vec<u64>,
    pub(crate) block_tokens: u64,
    pub(crate) tier: Tier,
    /// What besides its tokens each block depends on, as numbers; may be shorter than there are blocks.
    extras: Vec<u64>,
    /// Of which group of layers.
    pub(crate) group: Option<u64>,
    /// Whether its layers see only the last tokens, so that a prefix is never whole.
    is_windowed: bool,
    lora_id: Option<u64>,
    lora_name: Option<String>,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            kind: Kind::Other,
            hashes: Vec::new(),
            parent: None,
            tokens: Vec::new(),
            contents: Vec::new(),
            block_tokens: 0,
            tier: Tier::Gpu,
            extras: Vec::new(),
            group: None,
            is_windowed: false,
            lora_id: None,
            lora_name: None,
        }
    }

    /// Nothing, with the memory that it had.
    fn clear(&mut self) {
        let mut old = std::mem::replace(self, Self::new());
        old.hashes.clear();
        old.tokens.clear();
        old.contents.clear();
        old.extras.clear();
        let Self { hashes, tokens, contents, extras, .. } = old;
        *self = Self { hashes, tokens, contents, extras, ..Self::new() };
    }

    /// The adapter that computed the blocks; old engines only give a number.
    pub(crate) fn adapter(&self) -> Option<String> {
        self.lora_name.clone().or_else(|| self.lora_id.map(|id| format!("lora-id:{id}")))
    }

    /// Whether there are as many tokens as the blocks must have.
    fn is_whole(&self) -> bool {
        let expected = self.block_tokens.checked_mul(self.hashes.len() as u64);
        self.block_tokens > 0
            && self.block_tokens <= u64::from(u32::MAX)
            && expected == Some(self.tokens.len() as u64)
    }

    /// Blocks that it is about.
    pub(crate) fn blocks(&self) -> usize {
        self.hashes.len()
    }

    /// Computes the contents of blocks that were stored, if there are as many tokens as they must have and a prefix is whole in them.
    fn hash(&mut self) {
        if self.kind != Kind::Stored || self.is_windowed || !self.is_whole() {
            return;
        }
        self.contents.extend(self.tokens.chunks_exact(self.block_tokens as usize).map(key::content));
        for (content, extra) in self.contents.iter_mut().zip(&self.extras) {
            *content = key::with_extra(*content, *extra);
        }
    }

    /// Reads the next event.
    pub(crate) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.clear();
        let (is_map, len) = reader.record()?;
        let mut extra_keys = None;
        if is_map {
            for _ in 0..len {
                let field = named(reader.bytes()?.unwrap_or_default());
                self.field(field, reader, &mut extra_keys)?;
            }
        } else if len > 0 {
            self.field(Field::Type, reader, &mut extra_keys)?;
            let fields = match self.kind {
                Kind::Stored => STORED,
                Kind::Removed => REMOVED,
                Kind::Cleared | Kind::Other => &[],
            };
            for at in 0..len - 1 {
                self.field(fields.get(at).copied().unwrap_or(Field::Other), reader, &mut extra_keys)?;
            }
        }
        if let Some(mut at) = extra_keys {
            self.read_extra_keys(&mut at)?;
        }
        self.hash();
        Ok(())
    }

    fn field<'a>(
        &mut self,
        field: Field,
        reader: &mut Reader<'a>,
        extra_keys: &mut Option<Reader<'a>>,
    ) -> Result<(), DecodeError> {
        match field {
            Field::Type => self.kind = kind(reader.bytes()?.unwrap_or_default()),
            Field::Hashes => reader.hashes(&mut self.hashes)?,
            Field::Parent => self.parent = reader.hash()?,
            Field::Tokens => reader.tokens(&mut self.tokens)?,
            Field::BlockTokens => self.block_tokens = reader.uint()?.unwrap_or(0),
            Field::LoraId => self.lora_id = reader.uint()?,
            Field::Medium => self.tier = reader.bytes()?.map_or(Tier::Gpu, tier),
            Field::LoraName => {
                self.lora_name = reader.bytes()?.map(|name| String::from_utf8_lossy(name).into_owned());
            }
            Field::ExtraKeys => {
                // The adapter's name is among them, and may come later.
                *extra_keys = Some(*reader);
                reader.skip()?;
            }
            Field::Group => self.group = reader.uint()?,
            Field::SpecKind => self.is_windowed = reader.bytes()?.is_some_and(is_windowed),
            Field::Other => reader.skip()?,
        }
        Ok(())
    }

    /// For each block nil or a list: texts, and sometimes lists or numbers, which count as the bytes that they are.
    fn read_extra_keys(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let Some(blocks) = reader.array()? else { return Ok(()) };
        for _ in 0..blocks {
            let mut extra = 0;
            for _ in 0..reader.array()?.unwrap_or(0) {
                let (at, mut copy) = (reader.at(), *reader);
                reader.skip()?;
                let item = copy.bytes().ok().flatten().unwrap_or(reader.since(at));
                // That is in the chain's beginning already.
                if self.lora_name.as_ref().is_none_or(|name| name.as_bytes() != item) {
                    extra = key::push_extra(extra, item);
                }
            }
            self.extras.push(extra);
        }
        Ok(())
    }
}

fn kind(name: &[u8]) -> Kind {
    match name {
        b"BlockStored" => Kind::Stored,
        b"BlockRemoved" => Kind::Removed,
        b"AllBlocksCleared" => Kind::Cleared,
        _ => Kind::Other,
    }
}

fn named(name: &[u8]) -> Field {
    match name {
        b"type" => Field::Type,
        b"block_hashes" => Field::Hashes,
        b"parent_block_hash" => Field::Parent,
        b"token_ids" => Field::Tokens,
        b"block_size" => Field::BlockTokens,
        b"lora_id" => Field::LoraId,
        b"medium" => Field::Medium,
        b"lora_name" => Field::LoraName,
        b"extra_keys" => Field::ExtraKeys,
        b"group_idx" => Field::Group,
        b"kv_cache_spec_kind" => Field::SpecKind,
        _ => Field::Other,
    }
}

/// Engines have many words for it. One that is not known is somewhere slow.
fn tier(medium: &[u8]) -> Tier {
    let medium = medium.to_ascii_uppercase();
    let starts = |word: &str| medium.starts_with(word.as_bytes());
    if starts("GPU") || starts("DEVICE") {
        Tier::Gpu
    } else if starts("CPU") || starts("HOST") || starts("DRAM") {
        Tier::Host
    } else {
        Tier::Disk
    }
}

/// Layers with a window or a state instead of a cache have blocks, too, but not those of a whole prefix.
fn is_windowed(kind: &[u8]) -> bool {
    ["sliding", "chunked", "mamba", "cross"].iter().any(|word| kind.starts_with(word.as_bytes()))
}
