//! The bundled model recalls what the prompt said hundreds of tokens earlier: a wrong or missing KV block would show.

use serde_json::json;

use crate::harness::{Client, Deployment, ModelFolder, Role, Up};

/// Parcel, city, way and courier. The first lines of a log, so that they lie farthest back.
const FACTS: [(u32, &str, &str, &str); 8] = [
    (12, "Lisbon", "train", "Mira"),
    (31, "Oslo", "boat", "Tomas"),
    (44, "Vienna", "van", "Ana"),
    (58, "Porto", "bike", "Ivan"),
    (63, "Rome", "plane", "Nina"),
    (71, "Dublin", "ferry", "Oscar"),
    (85, "Prague", "tram", "Judy"),
    (97, "Athens", "truck", "Karl"),
];
/// The model is small, and its README says how often it errs; luck would give none or one.
const RIGHT_AT_LEAST: usize = 6;

#[test]
fn the_bundled_model_recalls_facts_from_far_back_when_prefill_and_decode_are_apart() {
    let deployment = Deployment::up(&Up::new(&ModelFolder::bundled(), 1, 1));
    let mut log: Vec<String> = FACTS
        .iter()
        .map(|(number, city, way, name)| format!("Parcel {number} goes to {city} by {way} with {name}."))
        .collect();
    log.extend((100..130).map(|number| format!("Parcel {number} goes to Paris by car with Bob.")));
    let log = log.join(" ");

    let answers = FACTS.map(|(number, ..)| ask(deployment.client(), &log, number));
    let right = FACTS.iter().zip(&answers).filter(|((_, city, ..), answer)| answer.contains(city)).count();
    assert!(right >= RIGHT_AT_LEAST, "{right} of {} right: {answers:#?}", FACTS.len());
    let handed_over = deployment.worker(Role::Decode).transfers_completed();
    assert_eq!(handed_over, FACTS.len() as f64, "each answer was written from pushed blocks");
    deployment.stop();
}

fn ask(client: &Client, log: &str, parcel: u32) -> String {
    let question = format!("{log} Where does parcel {parcel} go?");
    let asked =
        json!({"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 32});
    let answer = client.post("/v1/chat/completions", &asked).ok();
    let prompt_tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
    assert!(prompt_tokens > 400, "the facts lie hundreds of tokens back, in {prompt_tokens}");
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
}
