//! What was measured is found again.

use baton_policy::dice::Dice;
use baton_simulator::profile::Transfer;
use baton_tuner::fit::{self, DecodeRecord, FitError, PrefillRecord, TransferRecord};

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

fn prompts(noise: f64) -> Vec<PrefillRecord> {
    let mut dice = Dice::new(1);
    let mut records = Vec::new();
    for new_tokens in [16_u64, 64, 200, 500, 900, 2_000, 5_000] {
        for cached_tokens in [0_u64, 1_000, 8_000] {
            let steps = new_tokens.div_ceil(512) as f64;
            let pairs = new_tokens as f64 * (cached_tokens as f64 + new_tokens as f64 / 2.0);
            let ms = 3.0 * steps + 0.05 * new_tokens as f64 + 2e-6 * pairs;
            let factor = 1.0 + noise * (2.0 * dice.unit() - 1.0);
            records.push(PrefillRecord { new_tokens, cached_tokens, seconds: ms * factor / 1e3 });
        }
    }
    records
}

#[test]
fn coefficients_are_found_exactly_where_there_is_no_noise() {
    let (times, residuals) = fit::prefill(&prompts(0.0), 512).expect("good records");
    let [piece] = times.pieces() else { panic!("{times:?} has one piece") };
    near(piece.fixed_ms, 3.0, 1e-6);
    near(piece.per_token_ms, 0.05, 1e-6);
    near(piece.per_pair_ms, 2e-6, 1e-6);
    assert!(residuals.records == 21 && residuals.worst < 1e-6, "{residuals:?}");
}

#[test]
fn noise_is_told_as_what_is_left() {
    let (times, residuals) = fit::prefill(&prompts(0.1), 512).expect("good records");
    near(times.step_ms(512, 512.0 * 256.0), 3.0 + 25.6 + 0.262, 0.08);
    assert!((0.02..0.08).contains(&residuals.mean) && residuals.worst < 0.2, "{residuals:?}");
    assert!(residuals.mean <= residuals.p90 && residuals.p90 <= residuals.worst);
}

#[test]
fn steps_that_turn_at_a_batch_get_two_pieces() {
    let ms =
        |sequences: u32, context: u64| 10.0_f64.max(f64::from(sequences) * 0.625) + 1e-4 * context as f64;
    let mut records = Vec::new();
    for sequences in [1_u32, 2, 4, 8, 12, 16, 24, 32, 48, 64] {
        for each in [100_u64, 1_000] {
            let context_tokens = each * u64::from(sequences);
            records.push(DecodeRecord {
                sequences,
                context_tokens,
                seconds: ms(sequences, context_tokens) / 1e3,
            });
        }
    }
    let (times, residuals) = fit::decode(&records).expect("good records");
    assert_eq!(times.pieces().len(), 2, "{times:?}");
    assert!(residuals.worst < 1e-3, "{residuals:?}");
    near(times.step_ms(40, 4_000), ms(40, 4_000), 1e-3);
    near(times.step_ms(3, 3_000), ms(3, 3_000), 1e-3);
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
    let records: Vec<DecodeRecord> = (1..30_u32)
        .map(|sequences| DecodeRecord {
            sequences,
            context_tokens: u64::from(sequences) * 500,
            seconds: 0.02 * (1.0 + 0.05 * dice.unit()),
        })
        .collect();
    let (times, _) = fit::decode(&records).expect("good records");
    assert!(
        times.pieces().iter().all(|piece| piece.per_sequence_ms >= 0.0 && piece.per_context_token_ms >= 0.0)
    );
    near(times.step_ms(10, 5_000), 20.5, 0.05);
}

#[test]
fn too_little_is_refused() {
    let record = |seconds| PrefillRecord { new_tokens: 100, cached_tokens: 0, seconds };
    assert!(matches!(fit::prefill(&[record(0.1); 9], 512), Err(FitError::TooFew { .. })));
    let mut records = prompts(0.0);
    records[4].seconds = 0.0;
    assert_eq!(
        fit::prefill(&records, 512).expect_err("no time").to_string(),
        "prompts: record 5 says it took 0 s; a time is more than 0 and finite"
    );
    let same = |bytes| TransferRecord { bytes, pieces: 1, seconds: 0.1 };
    assert_eq!(
        fit::transfer(&[same(10), same(100), same(1_000), same(10_000)], LIKE).expect_err("no bandwidth"),
        FitError::NoBandwidth
    );
}
