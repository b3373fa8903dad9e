//! The fixtures, and a driver that runs prompts through a model in any cut.

use std::path::{Path, PathBuf};

use baton_engine::{
    BlockId, BoundModel, DeviceKind, Dtype, Forward, GeneratedToken, Isa, KvMemory, LoadOptions, LoraAdapter,
    Model, SequenceEvent, SequenceHandle, StepSequence, WeightFormat,
};
use safetensors::SafeTensors;

pub(crate) const MODELS: [&str; 7] = [
    "qwen3-bf16-tied-sharded",
    "llama3-f32",
    "qwen2-f16",
    "mistral-bf16-window",
    "qwen3-moe-bf16",
    "qwen3-moe-unnormalised",
    "gpt-oss-mxfp4",
];
pub(crate) const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

/// A prompt with what transformers makes of it; logits are those after the last prompt token.
pub(crate) struct Case {
    pub(crate) prompt: Vec<u32>,
    pub(crate) greedy: Vec<u32>,
    pub(crate) f32_logits: Vec<f32>,
    pub(crate) bf16_logits: Vec<f32>,
    /// f32 arithmetic on weights rounded to bf16.
    pub(crate) bf16_reference: Vec<f32>,
}

pub(crate) fn folder(name: &str) -> PathBuf {
    // Tests run in their package's folder. Not the folder they were built in: build output may be shared by checkouts.
    Path::new("tests/fixtures").join(name)
}

/// The folders of a model's adapters: `lora/MODEL/ADAPTER`.
pub(crate) fn adapter_folders(model: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder("lora").join(model)) else { return Vec::new() };
    let name = |entry: std::fs::DirEntry| format!("lora/{model}/{}", entry.file_name().to_str().unwrap());
    let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// What transformers makes of a model, or PEFT of an adapter.
pub(crate) fn cases(name: &str) -> Vec<Case> {
    let json = std::fs::read(folder(name).join("golden.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let bytes = std::fs::read(folder(name).join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let cases = json["cases"].as_array().unwrap();
    let row = |tensor: &str, index: usize| -> Vec<f32> {
        let data = tensors.tensor(tensor).unwrap().data().to_vec();
        let all: Vec<f32> = data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        all.chunks(all.len() / cases.len()).nth(index).unwrap().to_vec()
    };
    let tokens = |value: &serde_json::Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
    };
    let case = |(index, case): (usize, &serde_json::Value)| Case {
        prompt: tokens(&case["prompt"]),
        greedy: tokens(&case["greedy"]),
        f32_logits: row("f32.logits", index),
        bf16_logits: row("bf16.logits", index),
        bf16_reference: row("bf16.ref", index),
    };
    cases.iter().enumerate().map(case).collect()
}

pub(crate) fn load(name: &str, dtype: Dtype, isa: Isa) -> Model {
    Model::load(&folder(name), &LoadOptions { dtype, isa: Some(isa), ..LoadOptions::default() }).unwrap()
}

/// The adapter in the folder of that name.
pub(crate) fn load_adapter(model: &Model, name: &str) -> LoraAdapter {
    model.load_adapter(name, &folder(name), 2).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// With weights in eight bits.
pub(crate) fn load_int8(name: &str, device: DeviceKind, isa: Isa) -> Model {
    let weights = WeightFormat::Int8;
    let options =
        LoadOptions { device, weights, dtype: Dtype::F32, isa: Some(isa), ..LoadOptions::default() };
    Model::load(&folder(name), &options).unwrap()
}

/// On the plain device that all others are compared with.
pub(crate) fn load_reference(name: &str) -> Model {
    let options = LoadOptions { device: DeviceKind::Reference, dtype: Dtype::F32, ..LoadOptions::default() };
    Model::load(&folder(name), &options).unwrap()
}

/// A bound model with a pool whose blocks are handed out in a scattered order and hold garbage before their first use.
pub(crate) struct Driver {
    pub(crate) forward: BoundModel,
    block_tokens: usize,
    free: Vec<BlockId>,
}

/// One sequence in a [`Driver`]'s pool.
#[derive(Default)]
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    computed: usize,
    block_table: Vec<BlockId>,
    adapter: Option<LoraAdapter>,
}

/// What one step does to one sequence.
pub(crate) struct Share<'a> {
    pub(crate) sequence: &'a mut Sequence,
    /// Tokens of the sequence to compute now.
    pub(crate) tokens: usize,
    /// After how many of these, the last ones, logits are wanted.
    pub(crate) wanted_logits: usize,
    /// Tokens computed after these, and not kept: drafts that are refused.
    pub(crate) refused: &'a [u32],
}

impl Share<'_> {
    fn computed_tokens(&self) -> Vec<u32> {
        let Sequence { tokens, computed, .. } = &*self.sequence;
        [&tokens[*computed..computed + self.tokens], self.refused].concat()
    }

    /// Rows of logits that the step gives for it: with refused tokens also those after them, as nobody knows that before.
    fn wanted_rows(&self) -> usize {
        self.wanted_logits + self.refused.len()
    }
}

impl Sequence {
    pub(crate) fn new(tokens: Vec<u32>) -> Self {
        Self { tokens, ..Self::default() }
    }

    pub(crate) fn with_adapter(mut self, adapter: Option<LoraAdapter>) -> Self {
        self.adapter = adapter;
        self
    }

    /// Tokens whose keys and values are in the pool.
    pub(crate) fn computed(&self) -> usize {
        self.computed
    }
}

impl Driver {
    pub(crate) fn new(model: &Model, block_tokens: usize, threads: usize) -> Self {
        const BLOCK_COUNT_LOG2: u32 = 8;
        let blocks = 1usize << BLOCK_COUNT_LOG2;
        let layout = model.kv_layout(block_tokens);
        let memory = KvMemory::allocate(&layout, blocks);
        let forward = model.bind(memory, &layout, blocks, threads).unwrap();
        // An odd multiplier permutes the ids.
        let free = (0..blocks).map(|i| BlockId(((i * 109 + 31) % blocks) as u32)).collect();
        Self { forward, block_tokens, free }
    }

    /// One step; the logits rows that are wanted, in order.
    pub(crate) fn step(&mut self, shares: &mut [Share<'_>]) -> Vec<Vec<f32>> {
        for share in shares.iter_mut() {
            let end = share.sequence.computed + share.tokens + share.refused.len();
            while share.sequence.block_table.len() * self.block_tokens < end {
                share.sequence.block_table.push(self.free.pop().expect("the test's pool is large enough"));
            }
        }
        let tokens: Vec<_> = shares.iter().map(Share::computed_tokens).collect();
        let batch: Vec<StepSequence<'_>> = shares
            .iter()
            .zip(&tokens)
            .map(|(share, tokens)| StepSequence {
                tokens,
                position: share.sequence.computed,
                block_table: &share.sequence.block_table,
                adapter: share.sequence.adapter.as_ref(),
                wanted_logits: share.wanted_rows(),
            })
            .collect();
        let layers = self.forward.kv_layout().layers;
        let mut reported = Vec::new();
        let vocab = self.forward.vocab_size();
        let logits = self.forward.step(&batch, &mut |layer| reported.push(layer));
        let mut computed = logits.chunks(vocab).map(<[f32]>::to_vec);
        let mut rows = Vec::new();
        for share in &*shares {
            let wanted: Vec<_> = computed.by_ref().take(share.wanted_rows()).collect();
            rows.extend(wanted.into_iter().take(share.wanted_logits));
        }
        assert_eq!(computed.next(), None, "as many rows as are wanted");
        assert_eq!(reported, (0..layers).collect::<Vec<_>>(), "each layer is reported once, in order");
        for share in shares {
            share.sequence.computed += share.tokens;
        }
        rows
    }

    /// Logits after the last token of `prompt`, computed `chunk` tokens a step.
    pub(crate) fn prefill(&mut self, prompt: &[u32], chunk: usize) -> (Sequence, Vec<f32>) {
        self.prefill_with(prompt, chunk, None)
    }

    /// The same with an adapter, or without.
    pub(crate) fn prefill_with(
        &mut self,
        prompt: &[u32],
        chunk: usize,
        adapter: Option<&LoraAdapter>,
    ) -> (Sequence, Vec<f32>) {
        let mut sequence = Sequence::new(prompt.to_vec()).with_adapter(adapter.cloned());
        loop {
            let tokens = chunk.min(prompt.len() - sequence.computed);
            let wanted_logits = usize::from(sequence.computed + tokens == prompt.len());
            let share = Share { sequence: &mut sequence, tokens, wanted_logits, refused: &[] };
            let rows = self.step(&mut [share]);
            if let Some(row) = rows.into_iter().next() {
                return (sequence, row);
            }
        }
    }

    /// Greedy continuation: the tokens, and the logits that each was chosen from.
    pub(crate) fn greedy(
        &mut self,
        prompt: &[u32],
        chunk: usize,
        tokens: usize,
    ) -> (Vec<u32>, Vec<Vec<f32>>) {
        self.greedy_with(prompt, chunk, tokens, None)
    }

    /// The same with an adapter, or without.
    pub(crate) fn greedy_with(
        &mut self,
        prompt: &[u32],
        chunk: usize,
        tokens: usize,
        adapter: Option<&LoraAdapter>,
    ) -> (Vec<u32>, Vec<Vec<f32>>) {
        let (mut sequence, row) = self.prefill_with(prompt, chunk, adapter);
        let mut rows = vec![row];
        while rows.len() < tokens {
            sequence.tokens.push(best(&rows[rows.len() - 1]));
            let share = Share { sequence: &mut sequence, tokens: 1, wanted_logits: 1, refused: &[] };
            rows.append(&mut self.step(&mut [share]));
        }
        self.release(sequence);
        (rows.iter().map(|row| best(row)).collect(), rows)
    }

    /// Gives a sequence's blocks back, with whatever they hold.
    pub(crate) fn release(&mut self, sequence: Sequence) {
        self.free.extend(sequence.block_table);
    }
}

pub(crate) fn best(row: &[f32]) -> u32 {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32
}

/// The tokens with the bits of their log-probabilities, and how much of the prompt was cached.
pub(crate) fn finish(mut handle: SequenceHandle) -> (Vec<(u32, Vec<u32>)>, usize) {
    let bits = |token: GeneratedToken| {
        let logprobs = token.logprobs.expect("asked for");
        let top = logprobs.top.into_iter().flat_map(|(id, logprob)| [id, logprob.to_bits()]);
        (token.id, std::iter::once(logprobs.chosen.to_bits()).chain(top).collect())
    };
    let (mut tokens, mut cached) = (Vec::new(), 0);
    loop {
        match handle.try_recv() {
            None => std::thread::yield_now(),
            Some(SequenceEvent::Prefilled(prefilled)) => cached = prefilled.cached_tokens,
            Some(SequenceEvent::Token(token)) => tokens.push(bits(token)),
            Some(SequenceEvent::Finished(..)) => return (tokens, cached),
            Some(SequenceEvent::Failed(failure)) => panic!("{failure}"),
        }
    }
}
