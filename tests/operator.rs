//! What a person who runs it sees: log lines, help, configuration.

use serde_json::json;

use crate::harness::{
    Ask, Deployment, ModelFolder, Process, Shape, Up, all_at_once, eventually, prompt_of, required_variable,
};

#[test]
fn each_request_is_one_log_line_with_its_timing_split() {
    let model = ModelFolder::made_up(Shape::TINY);
    let mut deployment = Deployment::up(&Up::new(&model, 1, 1));
    let lines_at_start = deployment.process().log_lines(&[]).len();
    for length in [10, 200] {
        Ask::new(&prompt_of(length, 1), 8).answer(deployment.client());
    }
    let lines = eventually("a log line for each request", || {
        match deployment.process().log_lines(&["request"]).len() {
            0 | 1 => Err("too few".to_owned()),
            _ => Ok(deployment.process().log_lines(&[]).split_off(lines_at_start)),
        }
    });
    assert_eq!(lines.len(), 2, "one line a request, and nothing else: {lines:#?}");
    for line in &lines {
        assert!(line.contains("INFO"), "{line}");
        for part in ["queue", "prefill", "transfer", "first_token", "decode"] {
            assert!(line.contains(part), "no {part} in: {line}");
        }
    }
    deployment.client().post("/v1/completions", &json!({"prompt": ""})).error(400);
    deployment.stop();
}

#[test]
fn ordinary_requests_cause_no_warning_and_no_fallback() {
    let model = ModelFolder::made_up(Shape::TINY);
    let mut deployment = Deployment::up(&Up::new(&model, 1, 1));
    // Those that end with their first token are over before their transfer is.
    let lengths = [1, 15, 16, 17, 100, 600].into_iter().cycle().take(48);
    let asks: Vec<Ask> =
        lengths.zip(0..).map(|(length, seed)| Ask::new(&prompt_of(length, seed), 1)).collect();
    for answer in all_at_once(&asks, deployment.client()) {
        assert_eq!(answer.usage.1, 1);
    }
    let longer: Vec<Ask> = asks.into_iter().map(|ask| ask.with("max_tokens", 5)).collect();
    all_at_once(&longer, deployment.client());
    assert_eq!(deployment.fallbacks(), 0.0);
    assert_eq!(deployment.process().log_lines(&["WARN"]), [""; 0]);
    deployment.stop();
}

#[test]
fn print_config_shows_every_setting_and_starts_nothing() {
    let model = ModelFolder::made_up(Shape::TINY);
    let finished = Process::run(&["up", "--model", &model.arg(), "--prefill", "3", "--print-config"]);
    assert!(finished.status.success(), "{}", finished.stderr);
    for setting in ["model", "prefill", "decode", "fabric", "port"] {
        assert!(finished.stdout.contains(setting), "no {setting} in:\n{}", finished.stdout);
    }
    assert!(finished.stdout.contains('3'));
}

#[test]
fn an_unknown_option_is_refused_with_a_hint() {
    let finished = Process::run(&["up", "--prefil", "3"]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("--prefill"), "{}", finished.stderr);
}

#[test]
fn help_explains_every_option_of_every_subcommand() {
    let top = help_of(&[]);
    let commands = commands_in(&top);
    for expected in ["up", "scheduler", "sidecar", "prefill-worker", "decode-worker"] {
        assert!(commands.iter().any(|command| command == expected), "no {expected} in {commands:?}");
    }
    for command in commands.iter().filter(|command| *command != "help") {
        let text = help_of(&[command.as_str()]);
        let options = options_in(&text);
        assert!(!options.is_empty(), "baton {command} --help:\n{text}");
        for (option, explanation) in options {
            assert!(
                explanation.split_whitespace().count() >= 2,
                "baton {command} --help says nothing of {option}"
            );
        }
    }
}

#[test]
fn bench_transfer_measures_every_scenario_beside_memcpy() {
    let small = ["--size", "4", "--rounds", "1", "--latencies", "2", "--pieces", "16,64", "--runs", "1,4"];
    let finished = Process::run(&[&["bench", "transfer"], &small[..]].concat());
    assert!(finished.status.success(), "{}", finished.stderr);
    let rows: Vec<&str> = finished.stdout.lines().filter(|line| line.contains(" KiB |")).collect();
    assert_eq!(rows.len(), 4, "{}", finished.stdout);
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let number = |cell: usize| cells[cell].parse::<f64>().unwrap();
        let (moved, copied, ratio) = (number(3), number(4), number(5));
        assert!(moved > 0.0 && copied > 0.0 && (moved / copied - ratio).abs() < 0.1 * ratio + 0.02, "{row}");
    }
    let refused = Process::run(&["bench", "transfer", "--fabric", "carrier-pigeon"]);
    assert!(!refused.status.success() && refused.stderr.contains("carrier-pigeon"), "{}", refused.stderr);
}

#[test]
fn doctor_says_what_there_is_and_what_follows() {
    let plain =
        Process::run(&["doctor", "--libfabric", "/nowhere/libfabric.so.1", "--ucx", "/nowhere/libucp.so.0"]);
    assert!(plain.status.success(), "{}", plain.stderr);
    for about in ["cores", "NUMA nodes", "huge pages", "locked memory", "RDMA", "GPU", "shm"] {
        assert!(plain.stdout.contains(&format!("\n  {about} ")), "no {about} in:\n{}", plain.stdout);
    }
    assert!(plain.stdout.contains("libfabric              absent: "), "{}", plain.stdout);
    assert!(plain.stdout.contains("/nowhere/libfabric.so.1"), "{}", plain.stdout);
    let lacks_nixl = Process::run(&["doctor", "--nixl", "/nowhere"]).stdout;
    assert!(lacks_nixl.contains("nixl                   absent: "), "{lacks_nixl}");
    assert!(plain.stdout.contains("ucx                    absent: "), "{}", plain.stdout);

    let libfabric = required_variable("BATON_TEST_LIBFABRIC", "the path of libfabric.so.1");
    let ucx = required_variable("BATON_TEST_UCX", "the path of libucp.so.0");
    let full = Process::run(&["doctor", "--libfabric", &libfabric, "--ucx", &ucx]);
    for found in ["libfabric:tcp ", "libfabric:shm ", "usable: ", "passed over: ", "`ucx:tcp`"] {
        assert!(full.stdout.contains(found), "no {found} in:\n{}", full.stdout);
    }

    let nixl = required_variable("BATON_TEST_NIXL", "the site-packages with nixl-cu13");
    let full = Process::run(&["doctor", "--nixl", &nixl]);
    assert!(full.stdout.contains("takes UCX (plugins: "), "{}", full.stdout);
}

fn help_of(command: &[&str]) -> String {
    let finished = Process::run(&[command, &["--help"]].concat());
    assert!(finished.status.success(), "{}", finished.stderr);
    finished.stdout
}

/// Names in the `Commands:` section.
fn commands_in(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let entries = lines.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    entries.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Each option with its explanation, which stands beside it or on the lines below.
fn options_in(help: &str) -> Vec<(String, String)> {
    let mut options: Vec<(String, String)> = Vec::new();
    for line in help.lines().skip_while(|line| !line.ends_with("ptions:")) {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.starts_with('-') && (1..8).contains(&indent) {
            let (option, explanation) = text.split_once("  ").unwrap_or((text, ""));
            options.push((option.to_owned(), explanation.to_owned()));
        } else if let Some((_, explanation)) = options.last_mut().filter(|_| indent >= 8) {
            explanation.push(' ');
            explanation.push_str(text);
        }
    }
    options
}
