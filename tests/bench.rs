//! `baton bench` and `baton tune`: a run against a real deployment tells what happened there, and its file can be read again.

use serde_json::Value;

use crate::harness::{Deployment, ModelFolder, Process, Shape, Up, words};

fn baton(args: &[&str]) -> String {
    let finished = Process::run(&words(args));
    assert!(finished.status.success(), "baton {args:?}: {}{}", finished.stdout, finished.stderr);
    finished.stdout
}

fn read(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("JSON")
}

#[test]
fn a_run_counts_what_a_deployment_gave_and_where_its_time_went() {
    let model = ModelFolder::made_up(Shape::TINY);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let deployment = Deployment::up(&Up::new(&model, 1, 1));
    let (run, again) = (file("run.json"), file("again.json"));
    let measure = |output: &str| {
        let load =
            ["--concurrency", "3", "-n", "12", "--input-tokens", "uniform:20-60", "--output-tokens", "9"];
        let server = ["--url", deployment.client().base(), "--endpoint", "completions", "--tokenizer"];
        baton(
            &[&["bench", "run"], &server[..], &[&model.arg()], &load, &["--seed", "5", "-o", output]]
                .concat(),
        )
    };
    let table = measure(&run);
    assert!(table.contains("TTFT"), "{table}");
    measure(&again);

    let (document, repeated) = (read(&run), read(&again));
    assert_eq!(document["run"]["plan_sha256"], repeated["run"]["plan_sha256"], "the same seed");
    assert_eq!(document["summary"]["requests"]["complete"], 12, "{}", document["summary"]);
    let records = document["records"].as_array().expect("records");
    for record in records {
        assert_eq!(record["output"]["tokens"], 9, "{record}");
        let counted_by = record["output"]["source"].as_str().unwrap_or_default();
        assert!(["continuous_usage", "usage"].contains(&counted_by), "{record}");
        assert!((20..=60).contains(&record["input"]["tokens"].as_u64().unwrap_or(0)), "{record}");
        assert_eq!(record["phases"]["prefill_worker"], "prefill-0", "{record}");
        assert_eq!(record["phases"]["decode_worker"], "decode-0", "{record}");
        let phase =
            |name: &str| record["phases"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {record}"));
        assert!((1..=phase("decode_us")).contains(&phase("decode_wait_us")), "{record}");
    }

    let (html, vllm) = (file("report.html"), file("vllm.json"));
    baton(&["bench", "report", &run, &again, "--html", &html, "--vllm", &vllm]);
    assert!(std::fs::read_to_string(&html).expect("a report").contains("<svg"));
    deployment.stop();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let finished =
        Process::run(&words(&["bench", "run", "--url", "http://127.0.0.1:9", "--concurrency", "1"]));
    assert!(!finished.status.success());
    assert!(finished.stderr.contains("http://127.0.0.1:9"), "{}", finished.stderr);
}

#[test]
fn workers_are_measured_and_a_split_is_verified_on_them() {
    let model = ModelFolder::made_up(Shape::TINY);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (profile, json) = (file("worker.json"), file("verified.json"));
    let up = ["--", "--model", &model.arg(), "--max-running", "4", "--compute-percent", "50"];
    let page = baton(&[&["tune", "profile", "-o", &profile, "--rounds", "1"], &up[..]].concat());
    assert!(page.contains("tokens/s in steps of"), "{page}");
    let measured = read(&profile);
    assert_eq!((&measured["source"], &measured["limits"]["running"]), (&"measured".into(), &4.into()));
    assert!(measured["prefill"][0]["per_token_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{measured}");
    assert!(measured["transfer"]["bytes_per_second"].as_f64().is_some_and(|speed| speed > 1e5), "{measured}");

    let what = ["tune", "verify", "--profile", &profile, "--split", "1:1", "--seconds", "2", "--json", &json];
    let load = ["--rate", "1", "--input-tokens", "40", "--output-tokens", "8"];
    // Little of what the workers could do alone on the machine, as requests that would be late are refused.
    let page = baton(&[&what, &load[..], &["--load", "0.1"], &up[..]].concat());
    assert!(page.contains("1P:1D"), "{page}");
    let verified = &read(&json)[0];
    for figure in ["ttft_p50_ms", "ttft_p99_ms", "tpot_ms"] {
        let of = |kind: &str| verified[figure][kind].as_f64().filter(|ms| *ms > 0.0);
        assert!(of("simulated").is_some() && of("live").is_some(), "{figure}: {verified}");
    }
    assert_eq!(verified["failed"], 0, "{verified}");
    let each = verified["each"].as_array().expect("requests");
    assert_eq!(each.len() as u64, verified["requests"].as_u64().expect("a count"));
    for request in each {
        for side in ["simulated", "live"] {
            let of = |what: &str| request[side][what].as_f64();
            let parts = of("queue_ms").zip(of("prefill_ms")).map(|(queue, prefill)| queue + prefill);
            assert!(parts.zip(of("ttft_ms")).is_some_and(|(parts, ttft)| parts <= 1.05 * ttft), "{request}");
            let worker = |what: &str| request[side][what].as_str();
            assert!(worker("prefill_worker").is_some() && worker("decode_worker").is_some(), "{request}");
        }
        assert_eq!(request["prompt_tokens"], 40, "{request}");
    }
    assert!(verified["lasting"].as_f64().is_some_and(|rate| rate > 0.0), "{verified}");

    // The same workers, told to take as long as others would.
    let mut slow = measured;
    slow["decode"] =
        serde_json::json!([{ "fixed_ms": 25.0, "per_sequence_ms": 0.0, "per_context_token_ms": 0.0 }]);
    std::fs::write(&profile, slow.to_string()).expect("a profile");
    let page = baton(&[&what, &load[..], &["--paced"], &up[..5]].concat());
    assert!(page.contains("1P:1D"), "{page}");
    let verified = &read(&json)[0];
    let tpot = verified["tpot_ms"]["live"].as_f64().expect("a time");
    assert!((24.0..50.0).contains(&tpot), "{verified}");
    assert!(verified["steps_p90"].as_f64().is_some_and(|share| share > 0.9), "{verified}");
}

#[test]
fn a_split_is_recommended_and_written_as_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let values = folder.path().join("values.yaml").display().to_string();
    let traffic =
        ["--rate", "5", "--input-tokens", "fixed:3000", "--output-tokens", "fixed:100", "-n", "300"];
    let objective = ["--workers", "3", "--samples", "2", "--slo-ttft-ms", "500", "--slo-tpot-ms", "30"];
    let worker = ["--hardware", "p5", "--served-model", "llama-3.1-8b"];
    let recommend =
        |extra: &[&str]| baton(&[&["tune", "recommend"], &worker[..], &objective, &traffic, extra].concat());
    let page = recommend(&["--values", &values]);
    assert!(page.contains("goodput") || page.contains("requests/s"), "{page}");
    assert_eq!(recommend(&[]), page, "the same seed gives the same page");
    let values = std::fs::read_to_string(&values).expect("values");
    assert!(values.contains("mode:") && values.contains("replicas:"), "{values}");
}
