//! What may stand in the file.

use super::*;

#[test]
fn what_is_said_is_read_and_the_rest_has_defaults() {
    let text = "endpoints:
  - name: p0
    address: 10.0.0.1:8000
    role: prefill
    engine: sglang
    zone: z
    labels: {gpu: h200}
    metrics-address: 10.0.0.1:9090
    metrics-path: /engine/metrics
    kv-events: tcp://10.0.0.1:5557
    kv-events-replay: tcp://10.0.0.1:5558
    draining: true
  - {name: d0, address: '[fd00::1]:8000'}
";
    let endpoints = parse(text).unwrap();
    let [first, second] = &endpoints[..] else { panic!("{endpoints:?}") };
    assert_eq!((first.role, first.engine, first.state), (Role::Prefill, Engine::Sglang, State::Draining));
    assert_eq!(first.metrics.address.to_string(), "10.0.0.1:9090");
    assert_eq!(&*first.metrics.path, "/engine/metrics");
    assert_eq!(first.labels["gpu"], "h200");
    assert_eq!(first.place.zone.as_deref(), Some("z"));
    let events = first.kv_events.as_ref().unwrap();
    assert_eq!(
        (&*events.events, events.replay.as_deref()),
        ("tcp://10.0.0.1:5557", Some("tcp://10.0.0.1:5558"))
    );
    assert_eq!((second.role, second.engine, second.state), (Role::Both, Engine::Vllm, State::Ready));
    assert_eq!(second.metrics.address, second.address);
    assert_eq!((&*second.metrics.path, &second.kv_events), ("/metrics", &None));
}

#[test]
fn what_is_wrong_is_refused_with_its_line_and_what_to_do() {
    let entry = |line: &str| format!("endpoints:\n  - name: a\n    address: 1.2.3.4:5\n    {line}\n");
    for (text, words) in [
        (entry("rol: decode"), &["line 4", "rol", "role"][..]),
        (entry("role: encode"), &["line 4", "encode", "prefill"]),
        (entry("engine: llama"), &["line 4", "llama", "sglang"]),
        (entry("metrics-path: metrics"), &["line 4", "begins with /"]),
        (entry("kv-events: 10.0.0.1:5557"), &["line 4", "tcp://"]),
        (entry("kv-events-replay: tcp://h:1"), &["line 4", "without kv-events"]),
        ("endpoints:\n  - name: a\n    address: host:80\n".into(), &["line 3", "IP:PORT"]),
        ("endpoints:\n  - name: a\n    address: 0.0.0.0:80\n".into(), &["line 3", "can't be reached"]),
        (
            "endpoints:\n  - {name: a, address: '1.1.1.1:1'}\n  - {name: a, address: '1.1.1.1:2'}\n".into(),
            &["line 3", "twice", "line 2"],
        ),
        (
            "endpoints:\n  - {name: a, address: '1.1.1.1:1'}\n  - {name: b, address: '1.1.1.1:1'}\n".into(),
            &["line 3", "address", "line 2"],
        ),
        ("endpoints:\n  - {name: '', address: '1.1.1.1:1'}\n".into(), &["line 2", "name"]),
        ("servers: []\n".into(), &["line 1", "servers", "endpoints"]),
        (String::new(), &["endpoints"]),
    ] {
        let said = parse(&text).unwrap_err().to_string();
        for word in words {
            assert!(said.contains(word), "{word:?} is missing in {said:?} for\n{text}");
        }
    }
}

#[test]
fn thousands_of_endpoints_are_read() {
    let mut text = "endpoints:\n".to_owned();
    for at in 0..5_000 {
        text += &format!(
            "  - name: server-{at}\n    address: 10.1.{}.{}:8000\n    labels: {{gpu: h200, at: '{at}'}}\n",
            at / 250,
            at % 250 + 1
        );
    }
    assert_eq!(parse(&text).unwrap().len(), 5_000);
}
