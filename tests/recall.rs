//! The bundled model recalls what the prompt said hundreds of tokens earlier: a wrong or missing KV block would show.

use serde_json::json;

use crate::harness::{Deployment, ModelFolder, Role, Up};

#[test]
fn the_bundled_model_recalls_facts_from_far_back_when_prefill_and_decode_are_apart() {
    let deployment = Deployment::up(&Up::new(&ModelFolder::bundled(), 1, 1));
    let facts = [
        (12, "Lisbon", "train", "Mira"),
        (31, "Oslo", "boat", "Tomas"),
        (44, "Vienna", "van", "Ana"),
        (58, "Porto", "bike", "Ivan"),
    ];
    let mut log: Vec<String> = facts
        .iter()
        .map(|(number, city, mode, name)| format!("Parcel {number} goes to {city} by {mode} with {name}."))
        .collect();
    log.extend((100..140).map(|number| format!("Parcel {number} goes to Paris by truck with Bob.")));
    let log = log.join(" ");

    for (number, city, _, _) in facts {
        let question = format!("{log} Where does parcel {number} go?");
        let asked =
            json!({"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 32});
        let answer = deployment.client().post("/v1/chat/completions", &asked).ok();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        assert!(text.contains(city), "parcel {number} goes to {city}, not: {text}");
        let prompt_tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
        assert!(prompt_tokens > 500, "the fact lies hundreds of tokens back, in {prompt_tokens}");
    }
    let handed_over = deployment.worker(Role::Decode).transfers_completed();
    assert_eq!(handed_over, 4.0, "each answer was written from blocks that the prefill worker pushed");
    deployment.stop();
}
