//! Bit-identical results whatever the cut of the prompt, the batch, the block size or the number of threads.

use baton_engine::{Dtype, Isa, LoraAdapter, Model};

use crate::fixture::{DTYPES, Driver, MODELS, Sequence, Share, adapter_folders, cases, load, load_adapter};

fn for_each_model(mut check: impl FnMut(&str, &Model)) {
    for name in MODELS {
        for dtype in DTYPES {
            for isa in Isa::available() {
                check(&format!("{name} {dtype} {isa}"), &load(name, dtype, isa));
            }
        }
    }
}

fn prompts(name: &str) -> Vec<Vec<u32>> {
    cases(name.split(' ').next().unwrap()).into_iter().map(|case| case.prompt).collect()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn chunks_threads_and_block_sizes_do_not_change_a_bit() {
    for_each_model(|label, model| {
        let mut prompts = prompts(label);
        if model.isa() != Isa::detect() {
            // The longest takes most of the time, and the fastest kernels are those that are used.
            prompts.retain(|prompt| prompt.len() <= 100);
        }
        let whole = |prompt| bits(&Driver::new(model, 16, 1).prefill(prompt, 512).1);
        let expected: Vec<_> = prompts.iter().map(|p| whole(p)).collect();
        for (threads, block_tokens, chunk) in [
            (1, 16, 16),
            (2, 16, 7),
            (3, 16, 1),
            (2, 16, 512),
            (3, 16, 64),
            (2, 8, 33),
            (1, 32, 100),
            (3, 5, 13),
        ] {
            // One pool for all prompts: later ones get blocks that hold other sequences' leftovers.
            let mut driver = Driver::new(model, block_tokens, threads);
            for (prompt, expected) in prompts.iter().zip(&expected) {
                let (sequence, row) = driver.prefill(prompt, chunk);
                driver.release(sequence);
                let len = prompt.len();
                assert!(
                    bits(&row) == *expected,
                    "{label}: prompt of {len}, chunks of {chunk}, blocks of {block_tokens}, {threads} threads"
                );
            }
        }
    });
}

/// Logits of a prompt and of the greedy tokens after it, computed alone.
struct Alone {
    adapter: Option<LoraAdapter>,
    prompt: Vec<u32>,
    /// The prompt, then the tokens that follow it.
    tokens: Vec<u32>,
    /// After the prompt, then after each token.
    rows: Vec<Vec<u32>>,
}

const DECODED: usize = 6;
/// Drafts that are refused.
const WRONG: [u32; 3] = [1, 2, 3];

/// Every prompt with every adapter, and without. Each has a driver to itself, so that those without never saw an adapter.
fn alone(model: &Model, prompts: &[Vec<u32>], adapters: Vec<LoraAdapter>) -> Vec<Alone> {
    let with = |adapter: Option<LoraAdapter>| {
        let mut driver = Driver::new(model, 16, 1);
        let one = |prompt: &Vec<u32>| {
            let (generated, rows) = driver.greedy_with(prompt, 512, DECODED, adapter.as_ref());
            let tokens = prompt.iter().chain(&generated[..DECODED - 1]).copied().collect();
            let rows = rows.iter().map(|row| bits(row)).collect();
            Alone { adapter: adapter.clone(), prompt: prompt.clone(), tokens, rows }
        };
        prompts.iter().map(one).collect::<Vec<_>>()
    };
    std::iter::once(None).chain(adapters.into_iter().map(Some)).flat_map(with).collect()
}

/// Random numbers of a seed.
struct Random(u64);

impl Random {
    /// Below `end`.
    fn below(&mut self, end: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % end
    }
}

/// One random schedule: which prompts, how often, in which order, joining when, computed in which pieces beside whom, on how
/// many threads, in blocks of which size. Every logits row must be the one computed alone.
fn run_schedule(label: &str, model: &Model, runs: &[Alone], seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let block_tokens = [5, 8, 16, 32][random.below(4)];
    let mut driver = Driver::new(model, block_tokens, 1 + random.below(4));
    let mut waiting: Vec<usize> = (0..2 + random.below(7)).map(|_| random.below(runs.len())).collect();
    let mut running: Vec<(usize, Sequence)> = Vec::new();
    while !running.is_empty() || !waiting.is_empty() {
        while !waiting.is_empty() && (running.is_empty() || random.below(2) == 0) {
            let run = waiting.swap_remove(0);
            let place = random.below(running.len() + 1);
            let sequence = Sequence::new(runs[run].tokens.clone()).with_adapter(runs[run].adapter.clone());
            running.insert(place, (run, sequence));
        }
        let mut shares = Vec::new();
        let mut expected = Vec::new();
        let longest = 1 + [0, 3, 17, 80][random.below(4)];
        for (run, sequence) in &mut running {
            if random.below(8) == 0 {
                continue; // not in this step
            }
            let (computed, prompt) = (sequence.computed(), runs[*run].prompt.len());
            let left = prompt.saturating_sub(computed);
            // Who generates may have drafts: some right, and behind them some wrong.
            let most = if left == 0 { (sequence.tokens.len() - computed).min(5) } else { left.min(longest) };
            let tokens = 1 + random.below(most);
            let generates = computed + tokens >= prompt;
            let wanted_logits = if left == 0 { tokens } else { usize::from(generates) };
            let first = (computed + tokens).saturating_sub(prompt) + 1 - wanted_logits.max(1);
            expected.extend((first..first + wanted_logits).map(|token| (*run, token)));
            let refused = if generates { &WRONG[..random.below(4)] } else { &[] };
            shares.push(Share { sequence, tokens, wanted_logits, refused });
        }
        if shares.is_empty() {
            continue;
        }
        for ((run, token), row) in expected.into_iter().zip(driver.step(&mut shares)) {
            let prompt = runs[run].prompt.len();
            assert!(
                bits(&row) == runs[run].rows[token],
                "{label}, seed {seed}: prompt of {prompt}, token {token}, {:?}",
                runs[run].adapter
            );
        }
        for (_, sequence) in running.extract_if(.., |(_, s)| s.computed() == s.tokens.len()) {
            driver.release(sequence);
        }
    }
}

#[test]
fn random_schedules_do_not_change_a_bit() {
    for_each_model(|label, model| {
        // The fastest kernels are those that are used; each of the others gets a few.
        let schedules = if model.isa() == Isa::detect() { 40 } else { 8 };
        let prompts: Vec<_> = prompts(label).into_iter().filter(|prompt| prompt.len() <= 100).collect();
        let name = label.split(' ').next().unwrap();
        let adapters = adapter_folders(name).iter().map(|adapter| load_adapter(model, adapter)).collect();
        let runs = alone(model, &prompts, adapters);
        (1..=schedules).for_each(|seed| run_schedule(label, model, &runs, seed));
    });
}

#[test]
fn a_revision_names_the_weights_and_not_their_type_in_memory() {
    let revision = |name| load(name, Dtype::F32, Isa::Portable).revision().to_owned();
    let revisions: std::collections::HashSet<_> = MODELS.map(revision).into();
    assert!(revisions.contains(load(MODELS[0], Dtype::Bf16, Isa::detect()).revision()));
    assert_eq!(revisions.len(), MODELS.len());
}
