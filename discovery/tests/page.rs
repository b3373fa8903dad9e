//! Pages of model servers, and what is no page.
#![allow(missing_docs, reason = "a test")]

mod common;

use baton_discovery::load::{Load, Page, PageError, PrefixCounts, narrow_query};
use common::pages::Server;
use proptest::prelude::*;

fn read(text: &str) -> Result<Load, PageError> {
    let mut page = Page::default();
    page.push(text.as_bytes())?;
    page.finish().map(|(load, _)| load)
}

fn prefix(queried_tokens: u64, hit_tokens: u64) -> Option<PrefixCounts> {
    Some(PrefixCounts { queried_tokens, hit_tokens })
}

#[test]
fn vllm_under_its_names_of_then_and_now() {
    let server = Server::default();
    for text in [server.vllm(), server.old_vllm()] {
        let load = read(&text).unwrap();
        assert_eq!((load.waiting, load.running, load.kv_usage), (3, 7, 0.25));
        assert_eq!(
            (load.block_tokens, load.blocks(), load.kv_capacity_tokens),
            (Some(16), Some(1000), Some(16_000))
        );
        assert_eq!(load.kv_used_tokens(), Some(4_000));
        assert_eq!(load.prefix, prefix(5000, 1234));
        assert_eq!((load.adapters, load.most_model_tokens), (None, None));
    }
}

#[test]
fn a_page_with_both_names_is_not_counted_twice() {
    let server = Server::default();
    let old = Server {
        usage: vec![0.99],
        queried: 1,
        hit: 1,
        waiting: vec![],
        running: vec![],
        ..Server::default()
    };
    let load = read(&format!("{}{}", server.vllm(), old.old_vllm())).unwrap();
    assert_eq!((load.kv_usage, load.prefix), (0.25, prefix(5000, 1234)));
}

#[test]
fn ranks_of_one_server_add_up() {
    let server =
        Server { waiting: vec![1, 2], running: vec![10, 20], usage: vec![0.2, 0.6], ..Server::default() };
    let load = read(&server.vllm()).unwrap();
    assert_eq!((load.waiting, load.running), (3, 30));
    assert!((load.kv_usage - 0.4).abs() < 1e-9);
    assert_eq!((load.blocks(), load.kv_capacity_tokens), (Some(2000), Some(32_000)));
}

#[test]
fn sglang_with_tensor_parallel_ranks_that_repeat_each_other() {
    let server =
        Server { waiting: vec![1, 2], running: vec![10, 20], usage: vec![0.2, 0.6], ..Server::default() };
    let load = read(&server.sglang()).unwrap();
    assert_eq!((load.waiting, load.running), (3, 30));
    assert!((load.kv_usage - 0.4).abs() < 1e-9);
    assert_eq!(
        (load.kv_capacity_tokens, load.block_tokens, load.blocks()),
        (Some(32_000), Some(16), Some(2000))
    );
    assert_eq!((load.most_model_tokens, load.prefix), (Some(131_072), prefix(5000, 1234)));
}

#[test]
fn sglang_of_before_says_its_shape_in_labels() {
    let text = "sglang:num_running_reqs 1\nsglang:num_queue_reqs 2\nsglang:token_usage 0.5\nsglang:cache_config_info{num_pages=\"100\",page_size=\"64\"} 1\n";
    let load = read(text).unwrap();
    assert_eq!((load.block_tokens, load.blocks(), load.kv_used_tokens()), (Some(64), Some(100), Some(3200)));
}

#[test]
fn queues_of_disaggregated_sglang_count_as_waiting() {
    let text = "sglang:num_running_reqs{tp_rank=\"0\"} 1\nsglang:num_queue_reqs{tp_rank=\"0\"} 2\nsglang:token_usage 0.5
sglang:num_decode_prealloc_queue_reqs{tp_rank=\"0\"} 3\nsglang:num_decode_transfer_queue_reqs{tp_rank=\"0\"} 4\nsglang:num_prefill_inflight_queue_reqs{tp_rank=\"0\"} 50\n";
    let load = read(text).unwrap();
    assert_eq!(load.waiting, 9);
    assert!((load.kv_usage - 0.5).abs() < 1e-9);
}

#[test]
fn the_newest_set_of_adapters_counts_wherever_it_stands() {
    let line = |running: &str, waiting: &str, time: f64| {
        format!(
            "vllm:lora_requests_info{{max_lora=\"4\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\"}} {time:e}\n"
        )
    };
    let lines =
        [line("", "", 1.7637e9), line("a,we\\\"ird", "b", 1.7637e9 + 3.5), line("a", "", 1.7637e9 + 2.0)];
    let load = read(&format!("{}{}", Server::default().vllm(), lines.concat())).unwrap();
    let adapters = load.adapters.unwrap();
    let names = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(&adapters.running), ["a", "we\"ird"]);
    assert_eq!((names(&adapters.waiting), adapters.most), (vec!["b".to_owned()], 4));
}

#[test]
fn baton_workers_use_the_names_of_vllm() {
    // As prometheus-client writes it: counters with _total, no engine label, EOF.
    let text = "# HELP vllm:num_requests_waiting Requests that wait for room.\n# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"m\"} 1\nvllm:num_requests_running{model_name=\"m\"} 2\nvllm:kv_cache_usage_perc{model_name=\"m\"} 0.125\nvllm:prefix_cache_queries_total{model_name=\"m\"} 8\nvllm:prefix_cache_hits_total{model_name=\"m\"} 4\nvllm:cache_config_info{model_name=\"m\",block_size=\"32\",num_gpu_blocks=\"64\"} 1\nbaton_kv_blocks{state=\"free\"} 3\n# EOF\n";
    let load = read(text).unwrap();
    assert_eq!(
        (load.waiting, load.running, load.kv_used_tokens(), load.prefix),
        (1, 2, Some(256), prefix(8, 4))
    );
}

#[test]
fn what_is_no_page_of_a_model_server_says_why() {
    let page = Server::default().vllm();
    let without =
        |name: &str| page.lines().filter(|line| !line.starts_with(name)).collect::<Vec<_>>().join("\n");
    for (text, word) in [
        (String::new(), "lacks"),
        ("<html>hello</html>\n".to_owned(), "lacks"),
        (without("vllm:num_requests_waiting{"), "waiting"),
        (without("vllm:num_requests_running"), "running"),
        (without("vllm:kv_cache_usage_perc"), "KV usage"),
        (format!("{page}vllm:num_requests_waiting NaN\n"), "is NaN"),
        (format!("{page}vllm:num_requests_waiting -1\n"), "is -1"),
        (format!("{page}vllm:num_requests_running +Inf\n"), "is inf"),
        (format!("{page}vllm:num_requests_running{{engine=\"0\" 3\n"), "malformed"),
        (format!("{page}vllm:num_requests_running {}", "9".repeat(70_000)), "65536 bytes"),
    ] {
        let said = read(&text).unwrap_err().to_string();
        assert!(said.contains(word), "{word:?} is missing in {said:?}");
    }
}

#[test]
fn a_server_cannot_make_the_reader_keep_endless_ranks() {
    let mut page = Page::default();
    let mut result = Ok(());
    for rank in 0..10_000 {
        result = result.and_then(|()| {
            page.push(format!("vllm:num_requests_running{{engine=\"{rank}\"}} 1\n").as_bytes())
        });
    }
    assert_eq!(result, Err(PageError::ManySeries));
}

#[test]
fn a_narrow_page_is_compared_with_the_wide_one() {
    let seen = |text: &str| {
        let mut page = Page::default();
        page.push(text.as_bytes()).unwrap();
        page.finish().unwrap().1
    };
    let wide = Server::default().vllm();
    let narrow: Vec<_> = wide.lines().filter(|line| !line.contains("cache_config_info")).collect();
    assert!(seen(&wide).covers(seen(&narrow.join("\n"))));
    assert!(!seen(&narrow.join("\n")).covers(seen(&wide)));
    assert!(narrow_query().contains("name%5B%5D=vllm:num_requests_waiting&"));
}

proptest! {
    #[test]
    fn pieces_may_begin_and_end_anywhere(cuts in proptest::collection::vec(0_usize..6_000, 0..40), is_sglang: bool) {
        let server = Server { histograms: 1, ..Server::default() };
        let text = if is_sglang { server.sglang() } else { server.vllm() };
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let mut page = Page::default();
        let mut start = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            page.push(&text.as_bytes()[start..cut]).unwrap();
            start = cut;
        }
        prop_assert_eq!(page.finish().unwrap().0, read(&text).unwrap());
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0_usize..3_000) {
        let mut text = Server { histograms: 0, ..Server::default() }.vllm().into_bytes();
        let at = at.min(text.len());
        text.splice(at..at, bytes);
        let mut page = Page::default();
        if page.push(&text).is_ok() {
            let _ = page.finish();
        }
    }
}
