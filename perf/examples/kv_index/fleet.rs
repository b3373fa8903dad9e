//! A made-up fleet: prompts that share beginnings, and the events of the workers that cache them.

use baton_kv_index::WorkerId;

/// vLLM's arrays, as its workers send them.
#[derive(Default)]
pub(crate) struct Packer {
    bytes: Vec<u8>,
}

impl Packer {
    fn tagged(&mut self, tag: u8, rest: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(rest);
    }

    fn uint(&mut self, value: u64) {
        match value {
            0..0x80 => self.bytes.push(value as u8),
            0x80..0x100 => self.tagged(0xcc, &[value as u8]),
            0x100..0x1_0000 => self.tagged(0xcd, &(value as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => self.tagged(0xce, &(value as u32).to_be_bytes()),
            _ => self.tagged(0xcf, &value.to_be_bytes()),
        }
    }

    fn array(&mut self, len: usize) {
        self.tagged(0xdd, &(len as u32).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes.push(0xa0 | text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Begins a batch of so many events.
    pub(crate) fn batch(events: usize) -> Self {
        let mut packer = Self::default();
        packer.bytes.push(0x93);
        packer.tagged(0xcb, &0_f64.to_be_bytes());
        packer.array(events);
        packer
    }

    pub(crate) fn stored(&mut self, hashes: &[u64], parent: Option<u64>, tokens: &[u32], block_tokens: u32) {
        self.bytes.push(0x98);
        self.text("BlockStored");
        self.array(hashes.len());
        hashes.iter().for_each(|hash| self.uint(*hash));
        match parent {
            Some(parent) => self.uint(parent),
            None => self.bytes.push(0xc0),
        }
        self.array(tokens.len());
        tokens.iter().for_each(|token| self.uint(u64::from(*token)));
        self.uint(u64::from(block_tokens));
        self.bytes.push(0xc0);
        self.text("GPU");
        self.bytes.push(0xc0);
    }

    pub(crate) fn removed(&mut self, hashes: &[u64]) {
        self.bytes.push(0x93);
        self.text("BlockRemoved");
        self.array(hashes.len());
        hashes.iter().for_each(|hash| self.uint(*hash));
        self.text("GPU");
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.uint(0);
        self.bytes
    }
}

/// A cheap generator of numbers, the same from the same seed.
#[derive(Clone)]
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let product = u128::from(self.0) * 0xd6e8_feb8_6659_fd93_u128;
        (product as u64) ^ ((product >> 64) as u64)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// Like those of text in a vocabulary of 151,936: small numbers are much more frequent.
    pub(crate) fn token(&mut self) -> u32 {
        let draw = self.next();
        match draw & 7 {
            0 => ((draw >> 8) % 128) as u32,
            1..=5 => ((draw >> 8) % 32_768) as u32,
            _ => ((draw >> 8) % 151_936) as u32,
        }
    }
}

/// A prompt: the beginning that it shares with others, then its own tokens.
#[derive(Clone, Copy)]
pub(crate) struct Prompt {
    pub(crate) shared: u64,
    pub(crate) shared_tokens: usize,
    pub(crate) own: u64,
    pub(crate) tokens: usize,
}

impl Prompt {
    pub(crate) fn write(&self, tokens: &mut Vec<u32>) {
        tokens.clear();
        let mut draws = Draws::new(self.shared);
        tokens.extend((0..self.shared_tokens).map(|_| draws.token()));
        let mut draws = Draws::new(self.own);
        tokens.extend((self.shared_tokens..self.tokens).map(|_| draws.token()));
    }
}

/// What an engine would call the blocks: numbers without meaning, `seed` being the worker's own or the same for all.
pub(crate) fn hashes(prompt: &Prompt, block_tokens: usize, seed: u64) -> Vec<u64> {
    let shared = Draws::new(prompt.shared ^ seed << 20);
    let own = Draws::new(prompt.own ^ seed << 20);
    let first_own = prompt.shared_tokens / block_tokens;
    let (mut shared, mut own) = (shared, own);
    (0..prompt.tokens / block_tokens)
        .map(|block| if block < first_own { shared.next() } else { own.next() })
        .collect()
}

/// The batch with which a worker says that it has a whole prompt.
pub(crate) fn stored(prompt: &Prompt, block_tokens: usize, seed: u64, tokens: &mut Vec<u32>) -> Vec<u8> {
    prompt.write(tokens);
    let hashes = hashes(prompt, block_tokens, seed);
    let mut batch = Packer::batch(1);
    batch.stored(&hashes, None, &tokens[..hashes.len() * block_tokens], block_tokens as u32);
    batch.finish()
}

pub(crate) fn worker(number: u64) -> WorkerId {
    WorkerId(number as u32)
}
