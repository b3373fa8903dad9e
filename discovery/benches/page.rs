//! Reading a page: `cargo bench -p baton-discovery`. Beside it, in the same run, the time to copy the page once, and to read it the
//! obvious way: every line into a name, a map of labels and a number.
#![allow(missing_docs, reason = "criterion's macros have none")]

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../tests/common/pages.rs"]
mod pages;

use std::{collections::HashMap, hint::black_box};

use baton_discovery::load::Page;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pages::Server;

fn obvious(text: &str) -> usize {
    let mut series: HashMap<&str, f64> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((head, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let labels: HashMap<&str, String> =
            labels.map(|(name, value)| (name, value.replace('"', ""))).collect();
        black_box(&labels);
        *series.entry(name).or_default() += value.parse().unwrap_or(0.0);
    }
    series.len()
}

fn pages(criterion: &mut Criterion) {
    for (name, server) in [
        ("small", Server { histograms: 0, ..Server::default() }),
        ("large", Server { histograms: 90, ..Server::default() }),
    ] {
        let text = server.vllm();
        let mut group = criterion.benchmark_group(format!("{name}, {} KB", text.len() / 1000));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("load", |bencher| {
            bencher.iter(|| {
                let mut page = Page::default();
                // As it comes from a socket.
                for piece in text.as_bytes().chunks(16 << 10) {
                    page.push(black_box(piece)).expect("a page");
                }
                page.finish().expect("a load")
            });
        });
        group.bench_function("copy", |bencher| bencher.iter(|| black_box(text.as_bytes()).to_vec()));
        group.bench_function("every line", |bencher| bencher.iter(|| obvious(black_box(&text))));
        group.finish();
    }
}

criterion_group!(benches, pages);
criterion_main!(benches);
