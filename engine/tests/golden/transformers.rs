//! Against transformers.

use baton_engine::{DeviceKind, Dtype, Isa};

use crate::fixture::{Case, Driver, MODELS, cases, load, load_int8, load_reference};

/// |a - b| / |b|, Euclidean norms over the row.
pub(crate) fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b))) / norm(&mut b.iter().map(|b| f64::from(*b)))
}

fn for_each_case(dtype: Dtype, mut check: impl FnMut(&str, &mut Driver, &Case)) {
    for name in MODELS {
        for isa in Isa::available() {
            let mut driver = Driver::new(&load(name, dtype, isa), 16, 2);
            for case in cases(name) {
                check(&format!("{name} {isa} prompt of {}", case.prompt.len()), &mut driver, &case);
            }
        }
    }
}

#[test]
fn f32_logits_and_64_greedy_tokens_are_those_of_transformers() {
    for_each_case(Dtype::F32, |label, driver, case| {
        let (tokens, rows) = driver.greedy(&case.prompt, 512, case.greedy.len());
        let error = relative_error(&rows[0], &case.f32_logits);
        // 1e-3 is what was asked for; what was found is 2e-6, the noise of f32 sums in another order.
        assert!(error < 1e-5, "{label}: relative error {error}");
        // The bound that was asked for is loose; f32 noise is far below it.
        assert_eq!(tokens, case.greedy, "{label}");
    });
}

/// So what the other devices are compared with is itself right.
#[test]
fn the_reference_device_gives_the_logits_of_transformers() {
    for name in MODELS {
        let mut driver = Driver::new(&load_reference(name), 16, 1);
        for case in cases(name) {
            let (tokens, rows) = driver.greedy(&case.prompt, 77, 4);
            let error = relative_error(&rows[0], &case.f32_logits);
            assert!(error < 1e-5, "{name} prompt of {}: relative error {error}", case.prompt.len());
            assert_eq!(tokens, case.greedy[..4], "{name} prompt of {}", case.prompt.len());
        }
    }
}

/// bf16 rounds each activation to 8 bits, so its logits carry an error of about 1 % that depends on the order of sums.
/// The yardstick is transformers itself: both are compared with f32 arithmetic on the same rounded weights, and ours,
/// whose residual stream stays f32, must not be further off on average than transformers' bf16, nor twice as far in any case.
#[test]
fn bf16_logits_are_no_further_from_exact_than_transformers_in_bf16() {
    let (mut ours_sum, mut theirs_sum) = (0.0, 0.0);
    for_each_case(Dtype::Bf16, |label, driver, case| {
        let (sequence, row) = driver.prefill(&case.prompt, 512);
        driver.release(sequence);
        let ours = relative_error(&row, &case.bf16_reference);
        let theirs = relative_error(&case.bf16_logits, &case.bf16_reference);
        assert!(ours < 2.0 * theirs, "{label}: relative error {ours}, transformers in bf16 {theirs}");
        (ours_sum, theirs_sum) = (ours_sum + ours, theirs_sum + theirs);
    });
    assert!(ours_sum < theirs_sum, "mean error: ours {ours_sum}, transformers in bf16 {theirs_sum} (sums)");
}

/// Eight bits have steps of 1/127 of a group's largest, so each product is off by about 1 %; these models of random weights make
/// some percent of it. The reference device computes from the same rounded weights, with exact activations. Families with
/// experts are left out: a router without training has near ties, and another expert gives other logits.
#[test]
fn int8_logits_are_near_the_exact_ones() {
    let (mut sums, mut cases_seen) = ([0.0f64; 2], 0.0);
    for name in MODELS.into_iter().filter(|name| !name.contains("moe") && !name.contains("gpt-oss")) {
        let mut reference = Driver::new(&load_int8(name, DeviceKind::Reference, Isa::Portable), 16, 1);
        for isa in Isa::available() {
            let mut driver = Driver::new(&load_int8(name, DeviceKind::Cpu, isa), 16, 2);
            for case in cases(name).into_iter().filter(|case| case.prompt.len() < 40) {
                let label = format!("{name} {isa} prompt of {}", case.prompt.len());
                let row = |driver: &mut Driver| {
                    let (sequence, row) = driver.prefill(&case.prompt, 512);
                    driver.release(sequence);
                    row
                };
                let (ours, theirs) = (row(&mut driver), row(&mut reference));
                let errors = [relative_error(&ours, &case.f32_logits), relative_error(&ours, &theirs)];
                assert!(errors[0] < 0.12 && errors[1] < 0.08, "{label}: {errors:?}");
                sums = [sums[0] + errors[0], sums[1] + errors[1]];
                cases_seen += 1.0;
            }
        }
    }
    let means = sums.map(|sum| sum / cases_seen);
    assert!(means[0] < 0.05 && means[1] < 0.04, "mean errors to exact and to rounded weights: {means:?}");
}
