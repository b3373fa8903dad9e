//! What is read from engine and transfer node when somebody asks for metrics.

use std::{fmt, sync::Arc, time::SystemTime};

use baton_engine::{AdapterUses, BlockCounts, Engine, LoraAdapter};
use baton_grammar::{GrammarCounts, Grammars};
use baton_kv_events::EventStats;
use baton_kv_transfer::{FabricDescription, RailStats, TransferNode, TransferStats};
use baton_process::Metrics;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{Adapters, pairs::Pairs, speculative};

/// Reads load and counters on each scrape, so that nothing has to be kept up to date.
#[derive(Debug)]
struct WorkerCollector {
    engine: Engine,
    node: TransferNode,
    fabric: FabricDescription,
    /// A prefill worker's.
    pairs: Option<Arc<Pairs>>,
    observed: Observed,
    model_name: String,
}

/// What else there is to read.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) grammars: Option<Grammars>,
    /// When KV events are published.
    pub(crate) events: Option<EventStats>,
    pub(crate) adapters: Arc<Adapters>,
}

/// Registers the collector for a worker that serves `model_name`.
pub(crate) fn register(
    metrics: &Metrics,
    engine: Engine,
    node: TransferNode,
    pairs: Option<Arc<Pairs>>,
    observed: Observed,
    model_name: &str,
) {
    let fabric = node.fabric();
    let model_name = model_name.to_owned();
    let collector = WorkerCollector { engine, node, fabric, pairs, observed, model_name };
    metrics.register(|registry| registry.register_collector(Box::new(collector)));
}

impl Collector for WorkerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_engine(&mut encoder)?;
        self.encode_blocks(&mut encoder)?;
        encode_transfers(&mut encoder, &self.node.stats())?;
        encode_rails(&mut encoder, &self.node.rails())?;
        if let Some(pairs) = &self.pairs {
            encode_pairs(&mut encoder, pairs)?;
        }
        let Observed { grammars, events, adapters } = &self.observed;
        encode_adapters(&mut encoder, adapters)?;
        if let Some(grammars) = grammars {
            encode_grammars(&mut encoder, grammars.counts())?;
        }
        if let Some(events) = events {
            encode_events(&mut encoder, events)?;
        }
        let fabric = [("fabric", self.fabric.name), ("provider", self.fabric.provider.as_str())];
        info(&mut encoder, "baton_fabric", "What carries KV blocks", &fabric)
    }
}

impl WorkerCollector {
    fn encode_engine(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let load = self.engine.load();
        let layout = self.engine.kv_layout();
        let model = [("model_name", self.model_name.as_str())];
        let used = load.blocks.in_use() as f64 / load.blocks.total.max(1) as f64;
        let (waiting, running) = (number(load.waiting), number(load.running));
        gauge(encoder, "vllm:num_requests_waiting", "Requests that wait for room", &model, waiting)?;
        gauge(encoder, "vllm:num_requests_running", "Requests being computed", &model, running)?;
        gauge(encoder, "vllm:kv_cache_usage_perc", "KV blocks that requests use, 1 = all", &model, used)?;
        counter(encoder, "vllm:prompt_tokens", "Prompt tokens computed", &model, load.totals.prompt_tokens)?;
        counter(
            encoder,
            "vllm:generation_tokens",
            "Tokens generated",
            &model,
            load.totals.generation_tokens,
        )?;
        counter(
            encoder,
            "vllm:num_preemptions",
            "Times that a request gave its blocks to others and was computed again",
            &model,
            load.totals.preemptions,
        )?;
        counter(
            encoder,
            "vllm:prefix_cache_queries",
            "Prompt tokens looked for in the prefix cache",
            &model,
            load.totals.prefix_query_tokens,
        )?;
        counter(
            encoder,
            "vllm:prefix_cache_hits",
            "Prompt tokens found in the prefix cache, and not computed",
            &model,
            load.totals.prefix_hit_tokens,
        )?;
        let draft_tokens = self.engine.draft_tokens();
        if draft_tokens > 0 {
            speculative::encode(encoder, &load.totals.speculation, draft_tokens, &self.model_name)?;
        }
        counter(encoder, "baton_engine_steps", "Steps computed", &[], load.totals.steps)?;
        let (block_size, blocks) = (layout.block_tokens.to_string(), load.blocks.total.to_string());
        let config = [
            ("model_name", self.model_name.as_str()),
            ("block_size", &block_size),
            ("num_gpu_blocks", &blocks),
        ];
        // vLLM writes it as a gauge of 1.
        gauge(encoder, "vllm:cache_config_info", "Shape of the KV cache", &config, 1_i64)
    }

    fn encode_blocks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let blocks = self.engine.load().blocks;
        let help = "KV blocks: free, cached for requests that begin the same, owned by a request, or held until nothing remote touches them any more";
        let mut family = encoder.encode_descriptor("baton_kv_blocks", help, None, MetricType::Gauge)?;
        let BlockCounts { free, cached, owned, held, .. } = blocks;
        for (state, count) in [("free", free), ("cached", cached), ("owned", owned), ("held", held)] {
            ConstGauge::new(number(count)).encode(family.encode_family(&[("state", state)])?)?;
        }
        let help = "KV blocks that the prefix cache finds, whether cached only, owned or held";
        gauge(encoder, "baton_prefix_cache_blocks", help, &[], number(blocks.indexed))?;
        let help = "Cached KV blocks that were taken for other contents";
        counter(encoder, "baton_prefix_cache_evictions", help, &[], blocks.evicted_total)?;
        let in_use = number(blocks.in_use());
        gauge(encoder, "baton_kv_blocks_in_use", "KV blocks that are neither free nor cached", &[], in_use)
    }
}

fn encode_rails(encoder: &mut DescriptorEncoder<'_>, rails: &[RailStats]) -> fmt::Result {
    if rails.is_empty() {
        return Ok(());
    }
    let device = |rail: &RailStats| [("device", rail.device.clone())];
    let help = "Bytes that a NIC or interface carried for this worker";
    let mut bytes = encoder.encode_descriptor("baton_rail_bytes", help, None, MetricType::Counter)?;
    for rail in rails {
        ConstCounter::new(rail.bytes).encode(bytes.encode_family(&device(rail))?)?;
    }
    let help = "1 while a NIC or interface is used, 0 once it was closed as it did not work";
    let mut open = encoder.encode_descriptor("baton_rail_open", help, None, MetricType::Gauge)?;
    for rail in rails {
        ConstGauge::new(i64::from(rail.open)).encode(open.encode_family(&device(rail))?)?;
    }
    Ok(())
}

/// vLLM's form: the names are labels, and the value is the time. There is one series at a time, so names that come and go do not
/// add up.
fn encode_adapters(encoder: &mut DescriptorEncoder<'_>, adapters: &Adapters) -> fmt::Result {
    let loaded: Vec<_> = adapters.loaded().all().into_iter().map(|loaded| loaded.adapter).collect();
    let names = |is_in: fn(AdapterUses) -> bool| {
        let names = loaded.iter().filter(|adapter| is_in(adapter.uses())).map(|adapter| adapter.name());
        names.collect::<Vec<_>>().join(",")
    };
    let most = adapters.loaded().most().to_string();
    let (waiting, running) = (names(|uses| uses.waiting > 0), names(|uses| uses.running > 0));
    let labels =
        [("max_lora", &*most), ("waiting_lora_adapters", &*waiting), ("running_lora_adapters", &*running)];
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    gauge(
        encoder,
        "vllm:lora_requests_info",
        "LoRA adapters that requests use; the value is the time",
        &labels,
        now,
    )?;
    gauge(encoder, "baton_lora_adapters", "LoRA adapters that are loaded", &[], number(loaded.len()))?;
    let bytes = loaded.iter().map(LoraAdapter::bytes).sum();
    gauge(encoder, "baton_lora_bytes", "Bytes of their weights", &[], number(bytes))
}

fn encode_grammars(encoder: &mut DescriptorEncoder<'_>, counts: GrammarCounts) -> fmt::Result {
    let GrammarCounts { compiled, reused, kept } = counts;
    counter(encoder, "baton_grammars_compiled", "Grammars compiled, refused ones included", &[], compiled)?;
    counter(
        encoder,
        "baton_grammars_reused",
        "Requests whose grammar had been compiled before",
        &[],
        reused,
    )?;
    gauge(encoder, "baton_grammars_kept", "Compiled grammars kept for the next request", &[], number(kept))
}

fn encode_events(encoder: &mut DescriptorEncoder<'_>, events: &EventStats) -> fmt::Result {
    for (name, help, value) in [
        ("baton_kv_events_batches", "Batches of KV events that were published", events.published()),
        ("baton_kv_events_dropped", "Batches of KV events that were lost for want of room", events.dropped()),
        ("baton_kv_events_replays", "Replays of KV events that were asked for", events.replays()),
    ] {
        counter(encoder, name, help, &[], value)?;
    }
    Ok(())
}

fn encode_pairs(encoder: &mut DescriptorEncoder<'_>, pairs: &Pairs) -> fmt::Result {
    let help = "Decode workers by what came of connecting to them; of refused ones the field that differs";
    let table = pairs.table();
    let table = table.borrow();
    let mut family = encoder.encode_descriptor("baton_transfer_pairs", help, None, MetricType::Gauge)?;
    for ((state, field), count) in table.counts() {
        ConstGauge::new(number(count))
            .encode(family.encode_family(&[("state", state), ("field", field)])?)?;
    }
    Ok(())
}

fn encode_transfers(encoder: &mut DescriptorEncoder<'_>, stats: &TransferStats) -> fmt::Result {
    let TransferStats {
        bytes_sent,
        writes_sent,
        writes_failed,
        overdue_writes,
        bytes_received,
        writes_received,
        incoming_started,
        incoming_completed,
        incoming_failed,
        incoming_aborted,
        outgoing_started,
        outgoing_completed,
        outgoing_failed,
        outgoing_aborted,
        fetches_completed,
        fetches_failed,
        bytes_fetched,
        late_writes,
        writes_repeated,
        lost_paths,
        checksum_failures,
        refusals,
        offers_live,
        incoming_live,
        quarantined_blocks,
        in_flight_writes,
        queued_pushes,
        peers,
    } = *stats;
    for (name, help, value) in [
        ("baton_transfer_bytes_sent", "Payload bytes pushed", bytes_sent),
        ("baton_transfer_writes_sent", "Writes that the fabric carried out", writes_sent),
        ("baton_transfer_writes_failed", "Writes that failed", writes_failed),
        (
            "baton_transfer_writes_repeated",
            "Writes that failed on one path and took another",
            writes_repeated,
        ),
        ("baton_transfer_overdue_writes", "Writes that did not come back in time", overdue_writes),
        ("baton_transfer_bytes_received", "Payload bytes of transfers that arrived whole", bytes_received),
        ("baton_transfer_writes_received", "Writes counted for a live transfer", writes_received),
        ("baton_transfer_incoming_started", "Transfers expected", incoming_started),
        ("baton_transfer_incoming_completed", "Transfers that arrived whole and checked", incoming_completed),
        ("baton_transfer_incoming_failed", "Expected transfers that failed", incoming_failed),
        ("baton_transfer_incoming_aborted", "Expected transfers given up here", incoming_aborted),
        ("baton_transfer_outgoing_started", "Transfers opened for sending", outgoing_started),
        ("baton_transfer_outgoing_completed", "Transfers sent whole", outgoing_completed),
        ("baton_transfer_outgoing_failed", "Opened transfers that failed", outgoing_failed),
        ("baton_transfer_outgoing_aborted", "Opened transfers given up by either side", outgoing_aborted),
        ("baton_transfer_fetches_completed", "Fetches that were read whole and confirmed", fetches_completed),
        ("baton_transfer_fetches_failed", "Fetches that failed", fetches_failed),
        ("baton_transfer_bytes_fetched", "Payload bytes of completed fetches", bytes_fetched),
        ("baton_transfer_late_writes", "Writes of no live transfer, never used", late_writes),
        ("baton_transfer_checksum_failures", "Pieces whose checksum differed", checksum_failures),
        ("baton_transfer_refusals", "Peers refused", refusals),
    ] {
        counter(encoder, name, help, &[], value)?;
    }
    for (name, help, value) in [
        ("baton_transfer_offers_live", "Offers of blocks that peers may read", offers_live),
        ("baton_transfer_incoming_live", "Transfer slots in use, fenced ones included", incoming_live),
        (
            "baton_transfer_quarantined_blocks",
            "Blocks that a peer may still write though their transfer is over",
            quarantined_blocks,
        ),
        ("baton_transfer_in_flight_writes", "Writes posted and not completed", in_flight_writes),
        ("baton_transfer_queued_pushes", "Pushes not wholly posted", queued_pushes),
        ("baton_transfer_peers", "Peers connected, both directions", peers),
        ("baton_transfer_lost_paths", "Paths to peers that failed while others did not", lost_paths),
    ] {
        gauge(encoder, name, help, &[], i64::try_from(value).unwrap_or(i64::MAX))?;
    }
    Ok(())
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

type Labels<'a> = [(&'a str, &'a str)];

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    labels: &Labels<'_>,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    let value = ConstGauge::new(value);
    // An empty family would be written as `name{}`.
    if labels.is_empty() { value.encode(metric) } else { value.encode(metric.encode_family(&labels)?) }
}

pub(crate) fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    labels: &Labels<'_>,
    value: u64,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    let value = ConstCounter::new(value);
    if labels.is_empty() { value.encode(metric) } else { value.encode(metric.encode_family(&labels)?) }
}

fn info(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, labels: &Labels<'_>) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
}
