//! Bit-identical results whatever the cut of the prompt, the batch, the block size or the number of threads.

use baton_engine::{Dtype, Isa, Model};

use crate::fixture::{DTYPES, Driver, MODELS, Sequence, Share, cases, load};

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
        let prompts = prompts(label);
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

/// All prompts in one batch, joining at different steps, mixed with decoding, against each alone.
#[test]
fn neighbours_in_the_batch_do_not_change_a_bit() {
    const STEPS: usize = 12;
    for_each_model(|label, model| {
        let mut alone = Driver::new(model, 16, 1);
        let mut together = Driver::new(model, 16, 2);
        let runs: Vec<_> = prompts(label).into_iter().map(|p| (alone.greedy(&p, 512, STEPS), p)).collect();
        let mut sequences: Vec<Sequence> = Vec::new();
        let mut seen: Vec<usize> = Vec::new();
        let mut chunk = 3;
        while seen.len() < runs.len() || seen.iter().any(|n| *n < STEPS) {
            if sequences.len() < runs.len() {
                let ((generated, _), prompt) = &runs[sequences.len()];
                let tokens = prompt.iter().chain(&generated[..STEPS - 1]).copied().collect();
                sequences.push(Sequence::new(tokens));
                seen.push(0);
            }
            // Chunk sizes that wander, so that cuts fall everywhere.
            chunk = chunk * 5 % 47 + 1;
            let mut shares = Vec::new();
            let mut members = Vec::new();
            for (index, sequence) in sequences.iter_mut().enumerate().filter(|(i, _)| seen[*i] < STEPS) {
                let computed = sequence.computed();
                let left = runs[index].1.len().saturating_sub(computed);
                let tokens = if left == 0 { 1 } else { left.min(chunk) };
                let wants_logits = computed + tokens >= runs[index].1.len();
                if wants_logits {
                    members.push(index);
                }
                shares.push(Share { sequence, tokens, wants_logits });
            }
            for (index, row) in members.into_iter().zip(together.step(&mut shares)) {
                let ((_, rows), prompt) = &runs[index];
                let step = seen[index];
                assert!(bits(&row) == bits(&rows[step]), "{label}: prompt of {}, token {step}", prompt.len());
                seen[index] += 1;
            }
        }
    });
}

#[test]
fn a_revision_names_the_weights_and_not_their_type_in_memory() {
    let revisions: Vec<_> =
        MODELS.map(|name| load(name, Dtype::F32, Isa::Portable).revision().to_owned()).into();
    assert_eq!(revisions[0], load(MODELS[0], Dtype::Bf16, Isa::detect()).revision());
    assert!(revisions[0] != revisions[1] && revisions[1] != revisions[2]);
}
