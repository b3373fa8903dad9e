//! Traces: one for each request over all processes, and none of the collector's troubles is a request's.

use serde_json::json;

use crate::harness::{
    ANY, Ask, Client, Collector, Deployment, Gateway, Metrics, ModelFolder, Received, Shape, Up, eventually,
    prompt_of, start, words, worker_args,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// As a client that is in a trace, which is recorded.
fn traced(client: &Client) -> Client {
    client.saying("traceparent", &format!("00-{TRACE}-{CALLER}-01"))
}

/// The spans of [`TRACE`], once there are as many as that.
fn spans(collector: &Collector, count: usize) -> Vec<Received> {
    eventually(&format!("{count} spans"), || match collector.trace(TRACE) {
        spans if spans.len() >= count => Ok(spans),
        spans => Err(format!("{spans:#?}")),
    })
}

fn find<'a>(spans: &'a [Received], service: &str, name: &str) -> &'a Received {
    let found: Vec<_> = spans.iter().filter(|span| span.service() == service && span.name == name).collect();
    let [span] = found[..] else { panic!("{} of {service} {name} in {spans:#?}", found.len()) };
    span
}

#[test]
fn a_request_is_one_trace_over_all_processes() {
    let model = ModelFolder::made_up(Shape::TINY);
    let collector = Collector::start();
    let up = Up::new(&model, 1, 1)
        .with("--served-model-name", "m")
        .with("--otlp-endpoint", collector.url())
        .with("--otel-resource-attributes", "deployment.environment.name=test");
    let deployment = Deployment::up(&up);
    let client = traced(deployment.client()).saying("tracestate", "vendor=x").saying("x-request-id", "asked");
    Ask::new(&prompt_of(100, 1), 8).with("stream", true).stream(&client).until_done();

    let spans = spans(&collector, 8);
    assert_eq!(spans.len(), 8, "{spans:#?}");
    let front = find(&spans, "baton-scheduler", "text_completion m");
    assert_eq!((&*front.parent, &*front.state), (CALLER, "vendor=x"));
    for (key, value) in [
        ("gen_ai.operation.name", "text_completion"),
        ("gen_ai.request.model", "m"),
        ("gen_ai.request.max_tokens", "8"),
        ("gen_ai.response.finish_reasons", "length"),
        ("gen_ai.usage.input_tokens", "100"),
        ("gen_ai.usage.output_tokens", "8"),
        ("gen_ai.usage.cache_read.input_tokens", "0"),
        ("baton.request_id", "asked"),
        ("baton.prefill_worker", "prefill-0"),
        ("baton.decode_worker", "decode-0"),
    ] {
        assert_eq!(front.attribute(key), value, "{key}: {front:#?}");
    }
    assert_eq!((front.error.as_ref(), front.attribute("error.type")), (None, ""));
    let route = find(&spans, "baton-scheduler", "route");
    assert_eq!(route.attribute("baton.decision"), "prefill-decode");
    assert!(route.attribute("baton.predicted_ttft_ms").parse::<f64>().unwrap() >= 0.0);
    let sidecar = find(&spans, "baton-sidecar", "generate");
    let prefill = find(&spans, "baton-prefill-worker", "prefill");
    let decode = find(&spans, "baton-decode-worker", "decode");
    let parts =
        ["queue", "compute", "transfer"].map(|name| (find(&spans, "baton-prefill-worker", name), prefill));
    let parents = [(route, front), (sidecar, front), (prefill, sidecar), (decode, sidecar)];
    for (child, parent) in parents.into_iter().chain(parts) {
        assert_eq!(child.parent, parent.id, "{child:#?} of {parent:#?}");
        assert!(child.from <= child.to && child.resource["deployment.environment.name"] == "test");
    }
    assert!(front.from <= sidecar.from && sidecar.to <= front.to + 1_000_000_000);
    deployment.stop();
}

#[test]
fn failures_and_clients_that_leave_show_in_the_span() {
    let model = ModelFolder::made_up(Shape { context: 65_536, ..Shape::TINY });
    let collector = Collector::start();
    let deployment = Deployment::up(&Up::new(&model, 1, 1).with("--otlp-endpoint", collector.url()));
    let client = traced(deployment.client());
    client.post("/v1/completions", &json!({ "model": "nobody's", "prompt": "x" })).error(404);
    let failed = spans(&collector, 1);
    let [failed] = &failed[..] else { panic!("{failed:#?}") };
    assert_eq!(
        (failed.attribute("error.type"), failed.attribute("http.response.status_code")),
        ("404", "404")
    );
    assert!(failed.error.as_ref().is_some_and(|error| error.contains("nobody's")), "{failed:#?}");

    let mut stream = Ask::new(&prompt_of(40, 1), 60_000).stream(&client);
    stream.data();
    drop(stream);
    let left = eventually("the span of the one that left", || {
        let spans = collector.trace(TRACE);
        let left = spans.iter().find(|span| span.attribute("error.type") == "cancelled").cloned();
        left.ok_or_else(|| format!("{spans:#?}"))
    });
    assert!(left.error.is_some() && left.parent == CALLER, "{left:#?}");
    eventually("the workers' spans end, too", || {
        let spans = collector.trace(TRACE);
        let of = |service: &str| {
            spans
                .iter()
                .any(|span| span.service() == service && span.attribute("baton.outcome") == "cancelled")
        };
        if of("baton-sidecar") && of("baton-decode-worker") { Ok(()) } else { Err(format!("{spans:#?}")) }
    });
    deployment.stop();
}

#[test]
fn a_ratio_of_0_leaves_the_choice_to_clients() {
    let model = ModelFolder::made_up(Shape::TINY);
    let collector = Collector::start();
    let up = Up::new(&model, 1, 1).with("--otlp-endpoint", collector.url()).with("--trace-sample-ratio", "0");
    let deployment = Deployment::up(&up);
    let client = deployment.client();
    let ask = Ask::new(&prompt_of(40, 1), 4);
    ask.answer(client);
    ask.answer(&client.saying("traceparent", &format!("00-{}-{CALLER}-00", "7".repeat(32))));
    // Sent after the others, each process's would have come before.
    ask.answer(&traced(client));
    spans(&collector, 8);
    let all = collector.spans();
    assert!(all.iter().all(|span| span.trace == TRACE), "{all:#?}");
    deployment.stop();
}

#[test]
fn a_dead_collector_is_nobodys_trouble() {
    let model = ModelFolder::made_up(Shape::TINY);
    let nobody = Collector::start().url();
    let mut deployment = Deployment::up(&Up::new(&model, 1, 1).with("--otlp-endpoint", nobody));
    let ask = Ask::new(&prompt_of(40, 1), 4);
    let lost = |client: &Client| {
        Metrics::parse(&client.get("/metrics").body)
            .sum("baton_trace_spans_total", &[("outcome", "lost")])
            .unwrap_or(0.0)
    };
    let first = ask.answer(deployment.client());
    for batch in 1..=3 {
        let before = lost(deployment.client());
        assert_eq!(ask.answer(deployment.client()), first);
        eventually(&format!("batch {batch} is given up"), || {
            let now = lost(deployment.client());
            if now > before { Ok(()) } else { Err(now.to_string()) }
        });
    }
    let said = deployment.process().log_lines(&["scheduler", "the collector takes no spans"]);
    assert_eq!(said.len(), 1, "{said:#?}");
    deployment.stop();
}

#[test]
fn a_trace_goes_on_through_a_gateway_and_the_picker() {
    let model = ModelFolder::made_up(Shape::TINY);
    let collector = Collector::start();
    let url = collector.url();
    let traces = ["--otlp-endpoint", &*url];
    let line = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
    let (_scheduler, at) = start(&words(&[&line[..], &["--picker-listen", ANY], &traces].concat()));
    let (front, registry, picker) =
        (Client::new(format!("http://{}", at("http"))), at("registry"), at("picker"));
    let line = ["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry];
    let http = ["--http-listen", ANY, "--model", &model.arg()];
    let (_sidecar, at) = start(&words(&[&line[..], &http, &traces].concat()));
    let endpoint = at("http");
    let mut decode = worker_args("decode-worker", "decode", &model, &at("grpc"));
    decode.extend(words(&traces));
    let _decode = start(&decode).0;
    eventually("the decode worker is there", || {
        let found = front.get("/v1/workers").body;
        if found.contains("\"decode\"") { Ok(()) } else { Err(found) }
    });
    let gateway = Gateway::start(&[&picker], &[&endpoint]);
    let ask = json!({ "prompt": prompt_of(40, 1), "max_tokens": 4, "temperature": 0 });
    eventually("an answer", || match traced(&gateway.client).post("/v1/completions", &ask) {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    let picked = eventually("the spans", || {
        let spans = collector.trace(TRACE);
        let pick = spans.iter().find(|span| span.name == "pick" && span.error.is_none());
        let served = pick.and_then(|pick| spans.iter().find(|span| span.parent == pick.id));
        let decoded = spans.iter().any(|span| span.service() == "baton-decode-worker");
        match (pick, served) {
            (Some(pick), Some(served)) if decoded => Ok((pick.clone(), served.clone())),
            _ => Err(format!("{spans:#?}")),
        }
    });
    let (pick, served) = picked;
    assert_eq!((pick.service(), &*pick.parent), ("baton-scheduler", CALLER));
    assert_eq!(pick.attribute("baton.decode_worker"), "decode");
    assert_eq!(served.service(), "baton-sidecar");
}
