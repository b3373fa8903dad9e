//! Running the targets on stable Rust: the corpus, and mutations of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{TARGETS, Target, Verdict};
use crate::engine::allocations::bytes_of_this_thread;

const LONGEST_BYTES: usize = 4096;
/// Numbers at which decoders break.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xffff, 1 << 31, 0x7fff_ffff, u32::MAX as u64, i64::MAX as u64, u64::MAX];

/// The corpus and as many mutations as the target is allowed, or as many as fit into `BATON_FUZZ_SECONDS`.
pub(super) fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let corpus = corpus(target);
    for (file, bytes) in &corpus {
        run(target, bytes, file);
    }
    let bytes: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("BATON_FUZZ_SEED") {
        mutant(target, &bytes, seed);
        return;
    }
    let long = number("BATON_FUZZ_SECONDS").map(Duration::from_secs);
    let start = Instant::now();
    let first = if long.is_some() { rand::random::<u32>().into() } else { 0 };
    let goes_on = |round| long.map_or(round < target.rounds, |limit| start.elapsed() < limit);
    let mut verdicts = [0u64; 2];
    let mut round = 0;
    while goes_on(round) {
        verdicts[usize::from(mutant(target, &bytes, first + round) == Verdict::Accepted)] += 1;
        round += 1;
    }
    assert!(
        verdicts.iter().all(|&count| count > 0),
        "mutations reach both ends of the decoder: {verdicts:?}"
    );
}

/// What is committed, and what today's encoders make.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("a corpus").map(|file| file.unwrap().path()).collect();
    files.sort();
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let committed = files.iter().map(|file| (name(file), std::fs::read(file).unwrap()));
    let seeds = (target.seeds)().into_iter().map(|(name, bytes)| (format!("seed {name}"), bytes));
    seeds.chain(committed).collect()
}

/// Runs one input; on a panic, or when it allocates too much, says which input it was.
fn run(target: &Target, bytes: &[u8], which: &str) -> Verdict {
    let before = bytes_of_this_thread();
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let allocated = bytes_of_this_thread() - before;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let (base, each) = target.allocates;
    let (name, allowed) = (target.name, base + each * bytes.len() as u64);
    match ended {
        Ok(verdict) => {
            assert!(allocated <= allowed, "{name}, {which}: {allocated} bytes allocated for {hex}");
            verdict
        }
        Err(_) => panic!("{name}, {which}: fails on {hex}"),
    }
}

fn mutant(target: &Target, corpus: &[Vec<u8>], seed: u64) -> Verdict {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut bytes = corpus.choose(&mut random).expect("a corpus").clone();
    for _ in 0..random.random_range(1..5) {
        mutate(&mut bytes, corpus, &mut random);
    }
    bytes.truncate(LONGEST_BYTES);
    run(target, &bytes, &format!("BATON_FUZZ_SEED={seed}"))
}

fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut SmallRng) {
    let at = random.random_range(0..=bytes.len());
    let end = random.random_range(at..=bytes.len().min(at + 16));
    match random.random_range(0..7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = random.random(),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        4 => {
            let other = corpus.choose(random).expect("a corpus");
            let from = random.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        5 => {
            let number = *EDGES.choose(random).expect("an edge");
            let width = random.random_range(1..=8).min(bytes.len() - at);
            bytes.splice(at..at + width, number.to_le_bytes()[..width].iter().copied());
        }
        // A protobuf number in place of a byte: fields keep their tags.
        _ => {
            let mut varint = Vec::new();
            let number = EDGES.choose(random).expect("an edge").wrapping_add(random.random_range(0..3));
            prost::encoding::encode_varint(number, &mut varint);
            bytes.splice(at..(at + 1).min(bytes.len()), varint);
        }
    }
}

#[test]
fn every_seed_is_accepted_and_every_target_has_a_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for target in TARGETS {
        let folder = folder.join(target.name);
        let writes = std::env::var_os("BATON_FUZZ_WRITE_SEEDS").is_some();
        for (name, bytes) in (target.seeds)() {
            if writes {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join(name), &bytes).unwrap();
            }
            assert_eq!(run(target, &bytes, name), Verdict::Accepted, "{} {name}", target.name);
        }
        assert!(std::fs::read_dir(&folder).unwrap().count() >= (target.seeds)().len(), "{}", target.name);
    }
}
