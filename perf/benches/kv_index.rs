//! Parts of the index of prefixes: `cargo bench -p baton-perf --bench kv_index`.
//!
//! Small, so that all of it is in the core's caches; `cargo run --release -p baton-perf --example kv_index` has an index of ten million
//! blocks.

use std::hint::black_box;

use baton_kv_index::{Index, IndexLimits, Matches, PromptKeys, Scope, WorkerId, WorkerSpec};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SCOPE: Scope<'_> = Scope { model: "m", adapter: None, salt: None };

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|at| at.wrapping_mul(0x9e37_79b1) >> 15).collect()
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash 100,000 tokens");
    let tokens = tokens(100_000);
    let mut keys = PromptKeys::default();
    group.throughput(Throughput::Elements(tokens.len() as u64));
    for block_tokens in [16, 64, 256] {
        let id = BenchmarkId::from_parameter(format!("blocks of {block_tokens}"));
        group.bench_function(id, |b| b.iter(|| keys.compute(&SCOPE, block_tokens, black_box(&tokens))));
    }
    group.finish();
}

fn query(c: &mut Criterion) {
    let mut group = c.benchmark_group("query 100,000 tokens in blocks of 16");
    let keys = PromptKeys::new(&SCOPE, 16, &tokens(100_000));
    for workers in [1, 10, 300] {
        let mut index = Index::new(IndexLimits { bytes: 64 << 20, guess_seconds: 60 });
        for worker in (0..workers).map(WorkerId) {
            let spec = WorkerSpec { model: "m".to_owned(), block_tokens: 16, same_hashes: None };
            index.add(worker, &spec).expect("there is room");
            let mut first = Some(0);
            while let Some(from) = first {
                first = index.guess(worker, &keys, from);
            }
        }
        let mut matches = Matches::default();
        group.throughput(Throughput::Elements(keys.keys().len() as u64));
        group.bench_function(format!("held by {workers}"), |b| {
            b.iter(|| {
                matches.clear();
                index.query(black_box(&keys), &mut matches);
                assert_eq!(matches.found().len(), workers as usize);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hashing, query);
criterion_main!(benches);
