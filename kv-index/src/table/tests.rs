use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use super::*;

/// Every entry is found, and nothing else is there.
#[track_caller]
fn check(table: &Table, expected: &BTreeMap<u64, u64>) {
    let all: Vec<(u64, u64)> = (0..table.parts())
        .flat_map(|part| table.entries(part))
        .map(|entry| (entry.key, entry.value))
        .collect();
    assert_eq!(all, expected.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>());
    assert_eq!(table.len(), expected.len());
    for (key, value) in expected {
        assert_eq!(table.get(*key), Some(*value), "{key:x}");
    }
}

/// Keys from a few crowded places as well as from everywhere, so that runs are long and reach the ends.
fn key(rng: &mut SmallRng) -> u64 {
    match rng.random_range(0..4) {
        0 => (u64::MAX << 5) | rng.random_range(0..32),
        1 => rng.random_range(1..40),
        2 => (1 << 63) - 20 + rng.random_range(0..40),
        _ => rng.random_range(1..=u64::MAX),
    }
}

#[test]
fn it_does_what_an_ordered_map_does() {
    for seed in 0..30 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut table, mut expected) = (Table::new(1 + seed as u32 % 4, Spares::default()), BTreeMap::new());
        for step in 0..3000 {
            let key = key(&mut rng);
            // Grows for a while, then shrinks.
            if rng.random_bool(if step / 500 % 2 == 0 { 0.8 } else { 0.3 }) {
                let place = table.place(key);
                *table.value_mut(place) = step;
                expected.insert(key, step);
            } else {
                let key = expected.range(key..).next().map_or(key, |(key, _)| *key);
                assert_eq!(table.get(key), expected.remove(&key));
                if let Some(place) = table.find(key) {
                    table.remove(place);
                }
                assert_eq!(table.find(key), None);
            }
            if step % 700 == 699 {
                let part = rng.random_range(0..table.parts());
                let within: Vec<u64> = table.entries(part).map(|entry| entry.key).collect();
                table.retain(part, |key, value| {
                    *value += 1;
                    !key.is_multiple_of(3)
                });
                for key in within {
                    *expected.get_mut(&key).unwrap() += 1;
                    if key.is_multiple_of(3) {
                        expected.remove(&key);
                    }
                }
            }
            if step % 50 == 0 {
                check(&table, &expected);
            }
        }
        check(&table, &expected);
    }
}

#[test]
fn an_entry_takes_as_little_as_promised() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut table = Table::new(6, Spares::default());
    // Besides, a page that is only begun at its end.
    let each = |table: &Table| (table.bytes() - (2 << 20)) as f64 / table.len() as f64;
    for count in 1..=1_500_000 {
        table.place(rng.random_range(1..=u64::MAX));
        if count > 500_000 && count % 10_000 == 0 {
            assert!((17.0..33.0).contains(&each(&table)), "{} bytes for each of {count}", each(&table));
        }
    }
    for part in 0..table.parts() {
        table.retain(part, |key, _| key % 4 == 1);
    }
    table.retained();
    // It shrinks with the changes that come.
    for _ in 0..200_000 {
        let place = table.place(7);
        table.remove(place);
    }
    assert!(each(&table) < 41.0, "{} bytes for each of {} that are left", each(&table), table.len());
}

/// What happens while a pass comes to no end.
#[test]
fn parts_may_be_emptier_than_others_for_long() {
    let (mut rng, mut table) = (SmallRng::seed_from_u64(2), Table::new(4, Spares::default()));
    for _ in 0..200_000 {
        table.place(rng.random_range(1..=u64::MAX));
    }
    for part in 0..12 {
        table.retain(part, |_, _| false);
    }
    for _ in 0..150_000 {
        table.place(rng.random_range(1..=u64::MAX));
    }
    for place in (0..table.pages.len() * PAGE * LINE).step_by(97) {
        let Entry { key, .. } = table.entry(place);
        let home = table.homes.of(key);
        assert!(
            key == 0 || place / LINE - home <= 2 * FAR,
            "{key:x} is {} lines from home",
            place / LINE - home
        );
    }
}

#[test]
fn it_grows_into_pages_that_are_ready_and_without_them() {
    let (mut rng, spares) = (SmallRng::seed_from_u64(3), Spares::default());
    let (mut with, mut without) = (Table::new(4, spares.clone()), Table::new(4, Spares::default()));
    let mut expected = BTreeMap::new();
    for step in 0..400_000 {
        let key = rng.random_range(1..=u64::MAX);
        spares.fill();
        let before = (with.bytes(), spares.bytes());
        for table in [&mut with, &mut without] {
            let place = table.place(key);
            *table.value_mut(place) = step;
        }
        // None are ready before the first was asked for.
        let grown = with.bytes() - before.0;
        assert!(grown == before.1 - spares.bytes() || before == (0, 0), "{grown} bytes after {before:?}");
        expected.insert(key, step);
    }
    assert_eq!((with.bytes(), without.spares.bytes()), (without.bytes(), 0));
    assert!(with.bytes() > Spares::MOST * (2 << 20));
    check(&with, &expected);
    check(&without, &expected);
}
