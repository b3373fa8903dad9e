//! Parts of kv-transfer: `cargo bench -p baton-perf --bench kv_transfer`.
//!
//! What a write costs besides its bytes: planning it, counting its arrival, the slot table's work for a transfer. And what a chunk
//! costs for its bytes: gathering and scattering, beside a plain copy of as many.

use std::hint::black_box;

use baton_kv_transfer::parts::{Arrivals, Chunk, Planning, tally};
use baton_kv_transfer::{KvDtype, KvGeometry, KvLayout, KvOrder, KvPlacement, TensorParallel};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const LAYERS: u32 = 16;
const CHUNK_BYTES: u64 = 1 << 20;

/// 8 heads of 128 bf16 elements: 4 KiB for a token.
fn geometry(blocks: u32, block_tokens: u32, order: KvOrder) -> KvGeometry {
    let layout = KvLayout {
        layers: LAYERS,
        kv_heads: 8,
        head_dim: 128,
        block_tokens,
        dtype: KvDtype::Bf16,
        placement: KvPlacement::Joined,
        order,
        tensor_parallel: TensorParallel::SINGLE,
    };
    KvGeometry { layout, blocks }
}

/// Numbers below `count`, in an order without neighbours but those of runs of `run`.
fn table(count: u32, run: u32) -> Vec<u32> {
    let runs = count / run;
    // A step that shares no factor with a power of two.
    let order = (0..runs).map(|i| i.wrapping_mul(0x9e37_79b1) & (runs - 1));
    order.flat_map(|first| (0..run).map(move |i| first * run + i)).collect()
}

fn planning(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan and walk 16 layers");
    let blocks = 8192;
    for (name, run, theirs) in [
        ("single blocks", 1, geometry(blocks, 16, KvOrder::Hnd)),
        ("runs of 8", 8, geometry(blocks, 16, KvOrder::Hnd)),
        ("blocks of 16 into blocks of 64 tokens", 1, geometry(blocks / 4, 64, KvOrder::Nhd)),
    ] {
        let ours = geometry(blocks, 16, if run == 1 { theirs.layout.order } else { KvOrder::Hnd });
        let source = table(blocks, run);
        let destination: Vec<u32> = (0..theirs.blocks).collect();
        let planning = Planning::new((ours, &source), (theirs, &destination)).expect("they convert");
        group.throughput(Throughput::Elements(planning.writes(1 << 20) as u64));
        group.bench_function(name, |b| b.iter(|| planning.writes(black_box(1 << 20))));
    }
    group.finish();
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("a chunk");
    for (name, order) in [("same order", KvOrder::Hnd), ("another order", KvOrder::Nhd)] {
        let chunk = Chunk::new(geometry(256, 4, KvOrder::Hnd), geometry(256, 4, order), CHUNK_BYTES)
            .expect("memory")
            .expect("a block of 16 KiB has room");
        chunk.gather();
        group.throughput(Throughput::Bytes(chunk.bytes()));
        group.bench_function(BenchmarkId::new("gather", name), |b| b.iter(|| chunk.gather()));
        group.bench_function(BenchmarkId::new("scatter", name), |b| {
            b.iter(|| chunk.scatter().expect("it was gathered"));
        });
        let from = vec![1_u8; chunk.bytes() as usize];
        let mut to = vec![0_u8; from.len()];
        group.bench_function(BenchmarkId::new("memcpy", name), |b| {
            b.iter(|| to.copy_from_slice(black_box(&from)));
        });
    }
    group.finish();
}

fn arrivals(c: &mut Criterion) {
    let mut group = c.benchmark_group("arrivals");
    let writes = 4096;
    group.throughput(Throughput::Elements(writes.into()));
    group.bench_function("tally", |b| b.iter(|| tally(black_box(writes))));
    let (transfers, each) = (1000, u32::from(LAYERS as u16));
    group.throughput(Throughput::Elements((transfers * each).into()));
    group.bench_function("1000 transfers of 16 writes", |b| {
        let table = || Arrivals::new(geometry(1024, 16, KvOrder::Hnd), 1024).expect("alike");
        b.iter_batched_ref(
            table,
            |table| assert_eq!(table.receive(transfers, each), 1000),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(parts, planning, chunks, arrivals);
criterion_main!(parts);
