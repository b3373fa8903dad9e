//! Writes down each metric under each of its names.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use super::{
    Epp,
    names::{FAMILIES, Family, Name},
    pool::Pool,
    samples::{Sample, Scrape, Value},
};
use crate::router::Router;

pub(super) struct EppCollector {
    epp: Arc<Epp>,
    router: Arc<Router>,
    pool: String,
}

impl fmt::Debug for EppCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EppCollector").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl EppCollector {
    pub(super) fn new(epp: Arc<Epp>, router: Arc<Router>, pool: &str) -> Self {
        Self { epp, router, pool: pool.to_owned() }
    }
}

impl Collector for EppCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pool = Pool::new(&self.pool, self.router.pool());
        let index_blocks = self.router.cache().stats().iter().map(|stats| stats.blocks as u64).sum();
        let families: Vec<_> = {
            let tallies = self.epp.lock();
            let scrape = Scrape { tallies: &tallies, pool: &pool, index_blocks };
            FAMILIES.iter().map(|family| (family, (family.samples)(&scrape))).collect()
        };
        for (family, samples) in families {
            for name in family.names {
                encode_name(&mut encoder, family, name, &samples)?;
            }
        }
        Ok(())
    }
}

fn encode_name(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    name: &Name,
    samples: &[Sample],
) -> fmt::Result {
    let mut shown: BTreeMap<Vec<(&str, &str)>, Value> = BTreeMap::new();
    for sample in samples {
        let labels = name.labels.iter().map(|(shown, label)| (*shown, sample.label(*label))).collect();
        match shown.get_mut(&labels) {
            Some(value) => value.add(sample.value.clone()),
            None => drop(shown.insert(labels, sample.value.clone())),
        }
    }
    let mut metric = encoder.encode_descriptor(name.name, family.help, None, family.kind)?;
    for (labels, value) in shown {
        // An empty family would be written as `name{}`.
        match labels.as_slice() {
            [] => return encode_value(metric, &value),
            labels => encode_value(metric.encode_family(&labels)?, &value)?,
        }
    }
    Ok(())
}

fn encode_value(mut metric: MetricEncoder<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Count(count) => ConstCounter::new(*count).encode(metric),
        Value::Level(level) => ConstGauge::new(*level).encode(metric),
        Value::Spread(spread) => {
            metric.encode_histogram::<NoLabelSet>(spread.sum(), spread.count(), &spread.buckets(), None)
        }
    }
}
