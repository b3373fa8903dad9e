//! What the decoder makes of records: those of vLLM's versions, others' dialects, and bytes that are none.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use baton_kv_index::{
    BatchReader, BatchReport, DecodeError, Index, IndexLimits, Matches, PromptKeys, Scope, WorkerId,
    WorkerSpec,
};
use common::{Event, Value, batch, cleared, removed, stored, with};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

const WORKER: WorkerId = WorkerId(1);
const SCOPE: Scope<'_> = Scope { model: "m", adapter: None, salt: None };
const TOKENS: &[u32] = &[1, 200, 40_000, 100_000, 5, 6];

struct World {
    index: Index,
    reader: BatchReader,
}

impl World {
    fn new() -> Self {
        let mut index = Index::new(IndexLimits { bytes: 16 << 20, guess_seconds: 60 });
        let spec = WorkerSpec { model: "m".to_owned(), block_tokens: 2, same_hashes: None };
        index.add(WORKER, &spec).unwrap();
        Self { index, reader: BatchReader::default() }
    }

    fn payload(&mut self, payload: &[u8]) -> Result<BatchReport, DecodeError> {
        self.reader.apply(&mut self.index, WORKER, payload)
    }

    fn apply(&mut self, events: &[Event], by_name: bool) -> BatchReport {
        self.payload(&batch(events, by_name)).unwrap()
    }

    fn found(&self, scope: &Scope<'_>, tokens: &[u32]) -> [u32; 4] {
        let mut matches = Matches::default();
        self.index.query(&PromptKeys::new(scope, 2, tokens), &mut matches);
        matches.found().first().map_or([0; 4], |found| found.tokens)
    }
}

/// After these events, in both encodings, tokens of the prompt are found in those places.
#[track_caller]
fn check(events: &[Event], scope: &Scope<'_>, expected: [u32; 4]) {
    for by_name in [false, true] {
        let mut world = World::new();
        world.apply(events, by_name);
        assert_eq!(world.found(scope, TOKENS), expected, "by name: {by_name}");
    }
}

fn all(medium: &str) -> Event {
    stored(&[10, u64::MAX, 12], None, TOKENS, 2, medium)
}

#[test]
fn blocks_come_and_go_by_tier() {
    check(&[all("GPU")], &SCOPE, [6, 0, 0, 0]);
    check(&[all("CPU")], &SCOPE, [0, 6, 0, 0]);
    check(&[all("lustre")], &SCOPE, [0, 0, 6, 0]);
    check(&[all("CPU"), all("GPU"), removed(&[u64::MAX, 12], "GPU")], &SCOPE, [2, 4, 0, 0]);
    check(&[all("GPU"), removed(&[u64::MAX], "GPU")], &SCOPE, [2, 0, 0, 0]);
    check(&[all("GPU"), cleared()], &SCOPE, [0; 4]);
    let split =
        [stored(&[10], None, &TOKENS[..2], 2, "GPU"), stored(&[11, 12], Some(10), &TOKENS[2..], 2, "GPU")];
    check(&split, &SCOPE, [6, 0, 0, 0]);
    check(&[with(all("GPU"), "medium", Value::Nil)], &SCOPE, [6, 0, 0, 0]);
}

#[test]
fn hashes_may_be_bytes_and_blocks_may_have_another_size_than_was_said() {
    let hash = |n: u8| Value::Bytes(vec![n; 32]);
    let hashes = Value::Array((0..3).map(hash).collect());
    let first = (all("GPU").0, {
        let mut fields = all("GPU").1;
        fields[0].1 = hashes;
        fields
    });
    let gone = ("BlockRemoved", vec![("block_hashes", Value::Array(vec![hash(1)])), ("medium", Value::Nil)]);
    check(std::slice::from_ref(&first), &SCOPE, [6, 0, 0, 0]);
    check(&[first, gone], &SCOPE, [2, 0, 0, 0]);
    let mut world = World::new();
    world.apply(&[stored(&[1, 2], None, TOKENS, 3, "GPU")], false);
    assert_eq!(world.index.block_sizes().collect::<Vec<_>>(), [3]);
    let mut matches = Matches::default();
    world.index.query(&PromptKeys::new(&SCOPE, 3, TOKENS), &mut matches);
    assert_eq!(matches.found()[0].prefix_tokens(), 6);
}

#[test]
fn adapters_and_salts_separate_prefixes() {
    let poet = Scope { adapter: Some("poet"), ..SCOPE };
    let salted = Scope { salt: Some("s"), ..poet };
    let lora = with(all("GPU"), "lora_name", Value::text("poet"));
    check(std::slice::from_ref(&lora), &poet, [6, 0, 0, 0]);
    check(std::slice::from_ref(&lora), &SCOPE, [0; 4]);
    let keys = |first: &[&str], other: &[&str]| {
        let texts = |texts: &[&str]| Value::Array(texts.iter().map(|text| Value::text(text)).collect());
        Value::Array(vec![texts(first), texts(other), texts(other)])
    };
    let salt = with(lora.clone(), "extra_keys", keys(&["poet", "s"], &["poet"]));
    check(std::slice::from_ref(&salt), &salted, [6, 0, 0, 0]);
    check(&[salt], &poet, [0; 4]);
    check(&[with(lora, "extra_keys", keys(&["poet"], &["poet"]))], &poet, [6, 0, 0, 0]);
    // An image in the second block.
    check(&[with(all("GPU"), "extra_keys", keys(&[], &["image"]))], &SCOPE, [2, 0, 0, 0]);
    check(&[with(all("GPU"), "extra_keys", Value::Array(vec![Value::Nil; 3]))], &SCOPE, [6, 0, 0, 0]);
}

#[test]
fn of_several_groups_of_layers_one_counts_and_windows_do_not() {
    // By position, what stands before must be there.
    let extra = |event: Event| with(event, "extra_keys", Value::Nil);
    let group = |event: Event, group: u64| with(event, "group_idx", Value::Uint(group));
    let kind = |event: Event, kind: &str| with(event, "kv_cache_spec_kind", Value::text(kind));
    let full = kind(group(extra(all("GPU")), 1), "full_attention");
    let window = kind(group(extra(all("GPU")), 0), "sliding_window");
    check(std::slice::from_ref(&window), &SCOPE, [0; 4]);
    check(&[window.clone(), full.clone()], &SCOPE, [6, 0, 0, 0]);
    check(&[full.clone(), group(removed(&[10, u64::MAX, 12], "GPU"), 0)], &SCOPE, [6, 0, 0, 0]);
    check(&[full, group(removed(&[12], "GPU"), 1)], &SCOPE, [4, 0, 0, 0]);
}

#[test]
fn what_is_not_known_is_passed_over() {
    // By position, what is new comes last.
    let known = ["extra_keys", "group_idx", "kv_cache_spec_kind"].iter();
    let newer = known.fold(all("GPU"), |event, name| with(event, name, Value::Nil));
    let newer = with(newer, "novelty", Value::Array(vec![Value::Nil, Value::Uint(1 << 40)]));
    for by_name in [false, true] {
        let mut world = World::new();
        let report = world.apply(&[("BlockMigrated", vec![("x", Value::Uint(3))]), newer.clone()], by_name);
        assert_eq!((report.blocks, report.skipped), (3, 1));
        // A block without all of its tokens cannot be keyed.
        let report = world.apply(&[stored(&[1, 2], None, TOKENS, 2, "GPU")], by_name);
        assert_eq!((report.blocks, report.skipped), (0, 1));
        let report = world.apply(&[stored(&[1], None, &[], 0, "GPU")], by_name);
        assert_eq!((report.blocks, report.skipped), (0, 1));
    }
}

#[test]
fn an_announced_length_that_is_not_there_is_refused() {
    let mut world = World::new();
    for payload in [
        vec![0x93, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0xc6, 0xff, 0xff, 0xff, 0xff],
        vec![],
        b"\x93\x00\x91\x94\xabBlockStored\xdd\xff\xff\xff\xff".to_vec(),
        b"\x93\x00\x91\x94\xabBlockStored\x91\x01\xc0\xdd\x7f\xff\xff\xff\x01".to_vec(),
    ] {
        assert!(world.payload(&payload).is_err(), "{payload:x?}");
    }
    // Nested as deep as it is long.
    let deep = [vec![0x93, 0x00], vec![0x91; 1 << 20]].concat();
    assert!(world.payload(&deep).is_err());
}

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: each call goes to the system's allocator as it is; the count is beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|all| all.set(all.get() + layout.size() as u64));
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and all memory is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Some bytes changed, put in, or taken out.
fn mutate(rng: &mut SmallRng, bytes: &mut Vec<u8>) {
    const TELLING: [u8; 12] = [0x00, 0x7f, 0x80, 0x8f, 0x9f, 0xc0, 0xc6, 0xcf, 0xdb, 0xdd, 0xdf, 0xff];
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..bytes.len().max(1));
        let byte = if rng.random() { rng.random() } else { TELLING[rng.random_range(0..TELLING.len())] };
        match rng.random_range(0..4) {
            0 if at < bytes.len() => drop(bytes.remove(at)),
            1 => bytes.insert(at.min(bytes.len()), byte),
            2 => bytes.truncate(at),
            _ if at < bytes.len() => bytes[at] = byte,
            _ => {}
        }
    }
}

#[test]
fn any_bytes_are_read_or_refused_within_bounds() {
    let lora = with(
        with(all("CPU"), "lora_name", Value::text("poet")),
        "extra_keys",
        Value::Array(vec![Value::Nil; 3]),
    );
    let seeds = [false, true]
        .map(|by_name| batch(&[all("GPU"), removed(&[12], "GPU"), lora.clone(), cleared()], by_name));
    let mut rng = SmallRng::seed_from_u64(5);
    let (mut world, mut accepted) = (World::new(), 0);
    for round in 0..40_000 {
        let mut payload = seeds[round % 2].clone();
        mutate(&mut rng, &mut payload);
        let before = ALLOCATED.get();
        accepted += usize::from(world.payload(&payload).is_ok());
        let allocated = ALLOCATED.get() - before;
        // The index grows at times.
        assert!(allocated < 100_000 + 100 * payload.len() as u64, "{allocated} bytes for {payload:x?}");
    }
    assert!((1000..39_000).contains(&accepted), "{accepted} of 40,000 were accepted");
}
