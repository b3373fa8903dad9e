//! Metrics pages in the form that Python's Prometheus client gives them, made up here: families with HELP and TYPE, histograms with many
//! buckets, `_created` series, the process's own figures.

use std::fmt::Write as _;

/// What a made-up server says.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) waiting: Vec<u32>,
    pub(crate) running: Vec<u32>,
    pub(crate) usage: Vec<f64>,
    pub(crate) block_tokens: u32,
    pub(crate) blocks: u32,
    pub(crate) queried: u64,
    pub(crate) hit: u64,
    /// Histograms beside what is needed: they are most of a page.
    pub(crate) histograms: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            waiting: vec![3],
            running: vec![7],
            usage: vec![0.25],
            block_tokens: 16,
            blocks: 1000,
            queried: 5000,
            hit: 1234,
            histograms: 4,
        }
    }
}

const MODEL: &str = "meta-llama/Llama-3.1-70B-Instruct";

fn family(page: &mut String, name: &str, kind: &str) {
    writeln!(
        page,
        "# HELP {name} Made up, in a sentence of ordinary length, as servers do it.\n# TYPE {name} {kind}"
    )
    .unwrap();
}

fn histograms(page: &mut String, prefix: &str, labels: &str, count: usize) {
    for at in 0..count {
        // Names as they are spread in reality, most of them times.
        let stems = [
            "time_to_first_token_seconds",
            "request_queue_time_seconds",
            "e2e_request_latency_seconds",
            "iteration_tokens_total",
            "kv_block_lifetime_seconds",
            "num_steps",
        ];
        let name = format!("{prefix}:{}_{at}", stems[at % stems.len()]);
        family(page, &name, "histogram");
        for bucket in 0..22 {
            let le = f64::from(bucket) * 0.25;
            writeln!(page, "{name}_bucket{{{labels},le=\"{le}\"}} {}.0", bucket * 17).unwrap();
        }
        writeln!(page, "{name}_bucket{{{labels},le=\"+Inf\"}} 400.0\n{name}_count{{{labels}}} 400.0\n{name}_sum{{{labels}}} 123.456").unwrap();
    }
}

fn process(page: &mut String) {
    family(page, "python_gc_objects_collected_total", "counter");
    page.push_str("python_gc_objects_collected_total{generation=\"0\"} 11563.0\n");
    family(page, "process_resident_memory_bytes", "gauge");
    page.push_str("process_resident_memory_bytes 1.231e+09\n");
}

impl Server {
    /// As vLLM 0.10 and later says it.
    pub(crate) fn vllm(&self) -> String {
        self.vllm_named("kv_cache_usage_perc", "prefix_cache")
    }

    /// As vLLM before 0.9 says it.
    pub(crate) fn old_vllm(&self) -> String {
        self.vllm_named("gpu_cache_usage_perc", "gpu_prefix_cache")
    }

    fn vllm_named(&self, usage: &str, prefix: &str) -> String {
        let mut page = String::new();
        process(&mut page);
        for (name, values) in
            [("num_requests_running", &self.running), ("num_requests_waiting", &self.waiting)]
        {
            family(&mut page, &format!("vllm:{name}"), "gauge");
            for (engine, value) in values.iter().enumerate() {
                writeln!(page, "vllm:{name}{{engine=\"{engine}\",model_name=\"{MODEL}\"}} {value}.0")
                    .unwrap();
            }
        }
        page.push_str("vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"capacity\"} 999.0\n");
        family(&mut page, &format!("vllm:{usage}"), "gauge");
        for (engine, value) in self.usage.iter().enumerate() {
            writeln!(page, "vllm:{usage}{{engine=\"{engine}\",model_name=\"{MODEL}\"}} {value}").unwrap();
        }
        for (name, value) in [("queries", self.queried), ("hits", self.hit)] {
            family(&mut page, &format!("vllm:{prefix}_{name}_total"), "counter");
            writeln!(page, "vllm:{prefix}_{name}_total{{engine=\"0\",model_name=\"{MODEL}\"}} {value}.0")
                .unwrap();
            writeln!(page, "vllm:{prefix}_{name}_created{{engine=\"0\",model_name=\"{MODEL}\"}} 1.7637e+09")
                .unwrap();
        }
        for engine in 0..self.running.len() {
            let labels = format!("engine=\"{engine}\",model_name=\"{MODEL}\"");
            histograms(&mut page, "vllm", &labels, self.histograms);
        }
        family(&mut page, "vllm:cache_config_info", "gauge");
        for engine in 0..self.running.len() {
            writeln!(
                page,
                "vllm:cache_config_info{{block_size=\"{}\",cache_dtype=\"auto\",engine=\"{engine}\",gpu_memory_utilization=\"0.9\",num_cpu_blocks=\"None\",num_gpu_blocks=\"{}\",sliding_window=\"None\"}} 1.0",
                self.block_tokens, self.blocks
            )
            .unwrap();
        }
        page
    }

    /// As SGLang since 0.5.11 says it.
    pub(crate) fn sglang(&self) -> String {
        let gauges = |rank: usize| {
            let tokens = self.block_tokens * self.blocks;
            vec![
                ("num_running_reqs", f64::from(self.running[rank])),
                ("num_queue_reqs", f64::from(self.waiting[rank])),
                ("num_grammar_queue_reqs", 0.0),
                ("token_usage", self.usage[rank]),
                ("max_total_num_tokens", f64::from(tokens)),
                ("page_size", f64::from(self.block_tokens)),
                ("num_pages", f64::from(self.blocks)),
                ("context_len", 131_072.0),
                ("cache_hit_rate", 0.3),
            ]
        };
        let mut page = String::new();
        for rank in 0..self.running.len() {
            // With all schedulers reporting, tensor-parallel ranks say the same again.
            for tensor_rank in 0..2 {
                let labels = format!(
                    "dp_rank=\"{rank}\",engine_type=\"unified\",model_name=\"{MODEL}\",pp_rank=\"0\",tp_rank=\"{tensor_rank}\""
                );
                for (name, value) in gauges(rank) {
                    writeln!(page, "sglang:{name}{{{labels}}} {value}").unwrap();
                }
                histograms(&mut page, "sglang", &labels, self.histograms);
            }
        }
        for (stream, tokens) in [("true", self.queried - 1), ("false", 1)] {
            writeln!(
                page,
                "sglang:prompt_tokens_total{{is_streaming=\"{stream}\",model_name=\"{MODEL}\"}} {tokens}.0"
            )
            .unwrap();
        }
        for (source, tokens) in [("device", self.hit - 10), ("host", 10)] {
            writeln!(
                page,
                "sglang:cached_tokens_total{{cache_source=\"{source}\",model_name=\"{MODEL}\"}} {tokens}.0"
            )
            .unwrap();
        }
        page
    }
}
