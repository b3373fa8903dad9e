//! What was measured is found again.

use baton_policy::dice::Dice;
use baton_profile::{StepShape, Transfer};
use baton_tuner::fit::{self, FitError, StepRecord, TransferRecord};

const LIKE: Transfer = Transfer {
    latency_ms: 0.0,
    bytes_per_second: 1.0,
    per_piece_us: 0.0,
    pieces_per_block: 32,
    layer_groups: 8,
};

fn near(found: f64, truth: f64, share: f64) {
    assert!((found / truth - 1.0).abs() < share, "{found}, not {truth}");
}

fn prompt(new_tokens: u64, cached_tokens: u64) -> StepRecord {
    let mut shape = StepShape::default();
    shape.prompt(new_tokens, cached_tokens);
    StepRecord { shape, seconds: (3.0 + 0.05 * new_tokens as f64 + 2e-6 * shape.pairs) / 1e3 }
}

fn generation(sequences: u32, each: u64) -> StepRecord {
    let context_tokens = each * u64::from(sequences);
    let ms = 10.0_f64.max(f64::from(sequences) * 0.625) + 1e-4 * context_tokens as f64;
    let shape = StepShape { sequences, context_tokens, ..StepShape::default() };
    StepRecord { shape, seconds: ms / 1e3 }
}

fn prompts() -> Vec<StepRecord> {
    let sizes = [16_u64, 64, 120, 200, 300, 400, 512];
    sizes.iter().flat_map(|&new| [0, 1_000, 8_000].map(|cached| prompt(new, cached))).collect()
}

fn generations() -> Vec<StepRecord> {
    let numbers = [1_u32, 2, 4, 8, 12, 16, 24, 32, 48, 64];
    numbers.iter().flat_map(|&sequences| [100, 1_000].map(|each| generation(sequences, each))).collect()
}

#[test]
fn coefficients_are_found_exactly_where_there_is_no_noise() {
    let times = fit::steps(&[prompts(), generations()].concat()).expect("good records");
    let [piece] = times.prefill.pieces() else { panic!("{times:?} has one piece") };
    near(piece.fixed_ms, 3.0, 1e-6);
    near(piece.per_token_ms, 0.05, 1e-6);
    near(piece.per_pair_ms, 2e-6, 1e-6);
    assert!(times.prefill_residuals.records == 21 && times.prefill_residuals.worst < 1e-6, "{times:?}");
    assert_eq!(times.mixed_residuals, None);
}

#[test]
fn noise_is_told_as_what_is_left() {
    let mut dice = Dice::new(1);
    let mut records = prompts();
    records.iter_mut().for_each(|record| record.seconds *= 1.0 + 0.1 * (2.0 * dice.unit() - 1.0));
    let times = fit::steps(&[records, generations()].concat()).expect("good records");
    near(times.prefill.step_ms(512, 512.0 * 256.0), 3.0 + 25.6 + 0.262, 0.08);
    let residuals = times.prefill_residuals;
    assert!((0.02..0.08).contains(&residuals.mean) && residuals.worst < 0.2, "{residuals:?}");
    assert!(residuals.mean <= residuals.p90 && residuals.p90 <= residuals.worst);
}

#[test]
fn steps_that_turn_at_a_batch_get_two_pieces() {
    let times = fit::steps(&[prompts(), generations()].concat()).expect("good records");
    assert_eq!(times.decode.pieces().len(), 2, "{times:?}");
    assert!(times.decode_residuals.worst < 1e-3, "{times:?}");
    for (sequences, each) in [(40, 100), (3, 1_000)] {
        let expected = generation(sequences, each).seconds * 1e3;
        near(times.decode.step_ms(sequences, u64::from(sequences) * each), expected, 1e-3);
    }
}

/// Those who generate are more rows beside the prompts'; nothing is fitted to such steps, so they tell how far that is so.
#[test]
fn steps_with_both_are_held_against_what_follows_from_the_others() {
    let mixed = |factor: f64| {
        let mixed = [(32, 2), (100, 4), (300, 8)].map(|(new, sequences)| {
            let generation = generation(sequences, 100);
            let mut shape = generation.shape;
            shape.prompt(new, 0);
            let added_ms = 0.05 * new as f64 + 2e-6 * shape.pairs;
            StepRecord { shape, seconds: (generation.seconds + added_ms / 1e3) * factor }
        });
        let times = fit::steps(&[prompts(), generations(), mixed.to_vec()].concat()).expect("good records");
        times.mixed_residuals.expect("there were some")
    };
    let (same, longer) = (mixed(1.0), mixed(1.25));
    assert!(same.records == 3 && same.worst < 1e-3, "{same:?}");
    near(longer.mean, 0.2, 1e-2);
}

#[test]
fn links_have_a_latency_a_bandwidth_and_a_cost_of_pieces() {
    let mut records = Vec::new();
    for bytes in [100_000_u64, 1_000_000, 20_000_000, 300_000_000] {
        for piece_bytes in [16_000_u64, 1_000_000] {
            let pieces = bytes.div_ceil(piece_bytes);
            let seconds = 0.4e-3 + bytes as f64 / 5e9 + pieces as f64 * 3e-6;
            records.push(TransferRecord { bytes, pieces, seconds });
        }
    }
    let (link, residuals) = fit::transfer(&records, LIKE).expect("good records");
    near(link.latency_ms, 0.4, 1e-6);
    near(link.bytes_per_second, 5e9, 1e-6);
    near(link.per_piece_us, 3.0, 1e-6);
    assert_eq!(link.pieces_per_block, 32);
    assert!(residuals.worst < 1e-6);
}

#[test]
fn what_has_no_influence_is_zero_not_negative() {
    let mut dice = Dice::new(7);
    let flat =
        |sequences| StepRecord { seconds: 0.02 * (1.0 + 0.05 * dice.unit()), ..generation(sequences, 500) };
    let records: Vec<StepRecord> = (1..30).map(flat).collect();
    let times = fit::steps(&[prompts(), records].concat()).expect("good records").decode;
    assert!(
        times.pieces().iter().all(|piece| piece.per_sequence_ms >= 0.0 && piece.per_context_token_ms >= 0.0)
    );
    near(times.step_ms(10, 5_000), 20.5, 0.05);
}

#[test]
fn too_little_is_refused() {
    let alike = [vec![prompt(100, 0); 9], generations()].concat();
    assert!(matches!(fit::steps(&alike), Err(FitError::TooFew { .. })));
    let mut records = prompts();
    records[4].seconds = 0.0;
    assert_eq!(
        fit::steps(&records).expect_err("no time").to_string(),
        "steps with prompts: record 5 says it took 0 s; a time is more than 0 and finite"
    );
    let same = |bytes| TransferRecord { bytes, pieces: 1, seconds: 0.1 };
    assert_eq!(
        fit::transfer(&[same(10), same(100), same(1_000), same(10_000)], LIKE).expect_err("no bandwidth"),
        FitError::NoBandwidth
    );
}
