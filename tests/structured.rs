//! Structured output over real processes. The bundled model was never trained on JSON, and at a high temperature it babbles:
//! whatever fits is the grammar's doing.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Client, Deployment, Event, ModelFolder, Role, Up};

const COMPLETIONS: &str = "/v1/completions";

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "parcel": {"type": "integer", "minimum": 1, "maximum": 99},
            "city": {"enum": ["Lisbon", "Oslo", "São \"Paulo\""]},
            "stops": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2},
        },
        "required": ["parcel", "city", "stops"],
        "additionalProperties": false,
    })
}

#[track_caller]
fn assert_fits(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {text}"));
    assert_eq!(object.keys().collect::<Vec<_>>(), ["parcel", "city", "stops"], "{text}");
    assert!((1..=99).contains(&value["parcel"].as_i64().expect("an integer")), "{text}");
    assert!(
        ["Lisbon", "Oslo", "São \"Paulo\""].contains(&value["city"].as_str().expect("a string")),
        "{text}"
    );
    let stops = value["stops"].as_array().expect("an array");
    let is_short = |stop: &Value| stop.as_str().is_some_and(|stop| stop.chars().count() <= 6);
    assert!(stops.len() <= 2 && stops.iter().all(is_short), "{text}");
}

fn request(seed: u64, temperature: f64) -> Value {
    json!({
        "prompt": "Parcel 7 goes to Lisbon by train with Mira.", "max_tokens": 400, "seed": seed, "temperature": temperature,
        "response_format": {"type": "json_schema", "json_schema": {"name": "trip", "schema": schema(), "strict": true}},
    })
}

fn answers(client: &Client) -> Vec<String> {
    let seeds = (0..6).map(|seed| (seed, if seed % 3 == 0 { 0.0 } else { 1.7 }));
    seeds
        .map(|(seed, temperature)| {
            let answer = client.post(COMPLETIONS, &request(seed, temperature)).ok();
            let choice = &answer["choices"][0];
            assert_eq!(choice["finish_reason"], "stop", "{answer}");
            let text = choice["text"].as_str().expect("a text").to_owned();
            assert_fits(&text);
            text
        })
        .collect()
}

#[test]
fn a_schema_is_kept_to_on_each_route_and_the_answers_are_the_same() {
    let apart = Deployment::up(&Up::new(&ModelFolder::bundled(), 1, 1));
    let told = answers(apart.client());
    assert_eq!(apart.fallbacks(), 0.0);
    assert_eq!(told, answers(apart.client()), "the same request has the same answer");
    apart.stop();
    let together = Deployment::up(&Up::new(&ModelFolder::bundled(), 0, 1));
    assert_eq!(told, answers(together.client()));
    together.stop();
}

#[test]
fn streams_choices_and_stops_keep_to_the_format() {
    let deployment = Deployment::up(&Up::new(&ModelFolder::bundled(), 1, 1));
    let client = deployment.client();

    let mut streamed = request(4, 1.7);
    let whole = client.post(COMPLETIONS, &streamed).ok()["choices"][0]["text"].clone();
    streamed["stream"] = json!(true);
    let events = client.stream(COMPLETIONS, &streamed).filter_map(|event| match event {
        Event::Data(data) => data["choices"][0]["text"].as_str().map(str::to_owned),
        Event::Done => None,
    });
    assert_eq!(events.collect::<String>(), whole.as_str().expect("a text"));

    // Several choices at once, each with a state of its own.
    let mut several = request(1, 1.7);
    several["n"] = json!(8);
    let answer = client.post(COMPLETIONS, &several).ok();
    let texts: Vec<&str> =
        answer["choices"].as_array().expect("choices").iter().filter_map(|c| c["text"].as_str()).collect();
    texts.iter().for_each(|text| assert_fits(text));
    assert!(texts.len() == 8 && texts.iter().any(|text| text != &texts[0]), "{texts:?}");

    // Cut short: a beginning of what would have come.
    let mut short = request(4, 1.7);
    short["max_tokens"] = json!(5);
    let cut = client.post(COMPLETIONS, &short).ok()["choices"][0].clone();
    assert_eq!(cut["finish_reason"], "length");
    assert!(whole.as_str().is_some_and(|whole| whole.starts_with(cut["text"].as_str().expect("a text"))));
    let mut stopped = request(4, 1.7);
    stopped["stop"] = json!("city");
    let cut = client.post(COMPLETIONS, &stopped).ok()["choices"][0].clone();
    assert_eq!((&cut["finish_reason"], &cut["stop_reason"]), (&json!("stop"), &json!("city")));

    let ask = |field: &str, value: Value| {
        let body = json!({"prompt": "Parcel", "max_tokens": 200, "temperature": 1.5, field: value});
        client.post(COMPLETIONS, &body).ok()["choices"][0]["text"].as_str().expect("a text").to_owned()
    };
    assert!(["yes", "no"].contains(&&*ask("structured_outputs", json!({"choice": ["yes", "no"]}))));
    assert!(["yes", "no"].contains(&&*ask("guided_choice", json!(["yes", "no"]))));
    let number = ask("guided_regex", json!("[1-9][0-9]{2}"));
    assert!(number.len() == 3 && number.parse::<u16>().is_ok(), "{number}");
    let sum = ask("structured_outputs", json!({"grammar": "start: N (\"+\" N)~2\nN: /[0-9]/"}));
    assert!(sum.len() == 5 && sum.chars().nth(1) == Some('+'), "{sum}");
    deployment.stop();
}

#[test]
fn a_request_that_fell_back_keeps_to_its_format() {
    let deployment = Deployment::up(&Up::new(&ModelFolder::bundled(), 1, 1).without_restarts());
    let told = answers(deployment.client());
    deployment.worker(Role::Prefill).signal(Signal::KILL);
    assert_eq!(told, answers(deployment.client()), "prefilled where it decodes");
    deployment.stop();
}
