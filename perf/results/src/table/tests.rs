use crate::testing::{everything, measured, steady};
use crate::{Comparison, Document, Load, Slo, table};

#[test]
fn a_run_is_a_table_with_units() {
    let mut run = measured(steady(300));
    run.slo = Slo { ttft_ms: Some(200.0), tpot_ms: Some(10.0), ..Slo::default() };
    let plan = "9f".repeat(32);
    let expected = format!(
        "\
baton 1P:1D · baton-courier · 10 requests/s, constant
http://127.0.0.1:8000/v1/completions · seed 7 · plan {plan}

latency             unit       mean    std    min    p50    p90    p95    p99    max
TTFT                ms        20.00   0.00  20.00  20.00  20.00  20.00  20.00  20.00
  from actual send  ms        20.00   0.00  20.00  20.00  20.00  20.00  20.00  20.00
TPOT                ms        5.000  0.000  5.000  5.000  5.000  5.000  5.000  5.000
ITL                 ms        5.000  0.000  5.000  5.000  5.000  5.000  5.000  5.000
chunk gap           ms        5.000  0.000  5.000  5.000  5.000  5.000  5.000  5.000
stall               ms        5.000  0.000  5.000  5.000  5.000  5.000  5.000  5.000
E2E                 ms        655.0    0.0  655.0  655.0  655.0  655.0  655.0  655.0
  from actual send  ms        655.0    0.0  655.0  655.0  655.0  655.0  655.0  655.0
normalised          ms/token  5.117  0.000  5.117  5.117  5.117  5.117  5.117  5.117
send lag            ms        0.000  0.000  0.000  0.000  0.000  0.000  0.000  0.000
input               tokens    100.0    0.0  100.0  100.0  100.0  100.0  100.0  100.0
output              tokens    128.0    0.0  128.0  128.0  128.0  128.0  128.0  128.0

requests     300: 300 complete
window       30.55 s, from 0.000 s
throughput   9.818 requests/s of 10.00 offered, 981.8 input tokens/s, 1257 output tokens/s
goodput      9.818 requests/s, 100.0 % of requests within TTFT 200 ms, TPOT 10 ms
client       20 % of 1 core, send lag p50 0.040 ms and p99 0.200 ms, 1.0 % of the machine stolen
calibration  with 64 streams, p50 and p99 of the error: TTFT +0.180 and +0.900 ms, ITL +0.002 and +0.320 ms
"
    );
    assert_eq!(table::run(&Document::new(run)), expected);
}

#[test]
fn what_went_wrong_is_told_before_any_figure() {
    let text = table::run(&Document::new(everything()));
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what:?} in\n{text}"));
    assert!(at("INVALID: tried out") < at("TTFT"), "{text}");
    at("6: 2 complete, 2 failed, 1 cancelled, 1 unfinished");
    at("error: 503 no room (1 ×)");
    at("in the server");
    at("warning: 2 complete requests are too few");
}

#[test]
fn a_sweep_has_a_row_for_each_run_by_name_and_load() {
    let of = |name: &str, rate: f64| {
        let mut run = measured(steady(300));
        run.run.name = name.into();
        run.run.load = Load::Open { arrivals: "poisson".into(), requests_per_second: rate };
        run
    };
    let mut invalid = of("baton 1P:1D", 12.0);
    invalid.validity = everything().validity;
    let documents = [of("two workers", 4.0), invalid, of("baton 1P:1D", 4.0)].map(Document::new);
    let text = table::sweep(&documents);
    let starts: Vec<String> =
        text.lines().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(starts[0], "system load requests output");
    assert_eq!(starts[2..5], ["two workers 4/s 9.818", "baton 1P:1D 4/s 9.818", "baton 1P:1D INVALID 12/s"]);
    assert!(text.contains("baton 1P:1D, 12 requests/s, poisson: INVALID: tried out"), "{text}");
}

#[test]
fn a_comparison_says_for_each_metric_what_b_is() -> anyhow::Result<()> {
    let pair = || (Document::new(measured(steady(30))), Document::new(measured(steady(30))));
    let text = table::comparison(&Comparison::new(&[pair(), pair()])?);
    let row = text.lines().find(|line| line.starts_with("E2E p50")).unwrap_or_default();
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        cells,
        ["E2E p50", "ms", "655.0", "655.0", "1.000", "1.000 to 1.000", "0.0 %", "the same, as far as seen"]
    );
    let spoilt = (Document::new(everything()), Document::new(everything()));
    let text = table::comparison(&Comparison::new(&[spoilt.clone(), spoilt])?);
    assert!(text.contains("INVALID: A1: tried out"), "{text}");
    Ok(())
}
