//! A real model's tokens and log-probabilities, with the prefix cache and without, to the last bit.

use baton_engine::{
    Dtype, Engine, EngineConfig, Isa, Model, SamplingParams, SequenceHandle, SequenceRequest,
};

use crate::fixture::{Driver, MODELS, cases, finish, load};

fn engine(model: &Model, prefix_cache: bool) -> Engine {
    let config = EngineConfig { prefix_cache, max_step_tokens: 48, ..EngineConfig::default() };
    Engine::start(Box::new(Driver::new(model, 16, 2).forward), vec![], config)
}

fn submit(engine: &Engine, prompt: &[u32]) -> SequenceHandle {
    let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::greedy(12) };
    engine.submit(SequenceRequest::new("test", prompt.to_vec(), sampling)).unwrap()
}

#[test]
fn hits_do_not_change_a_bit() {
    for name in MODELS {
        let model = load(name, Dtype::Bf16, Isa::detect());
        let (plain, caching) = (engine(&model, false), engine(&model, true));
        let mut prompts: Vec<_> = cases(name).into_iter().map(|case| case.prompt).collect();
        // Beginnings of the longest, and other ends to it.
        let longest = prompts.iter().max_by_key(|prompt| prompt.len()).unwrap().clone();
        prompts.extend([16, 17, 40].map(|len| longest[..longest.len().min(len)].to_vec()));
        prompts.push([&longest[..longest.len() / 2], &longest[..5]].concat());
        let mut hits = 0;
        for round in 0..3 {
            // In the last round all at once, in one batch.
            let handles: Vec<_> =
                prompts.iter().filter(|_| round == 2).map(|prompt| submit(&caching, prompt)).collect();
            let mut handles = handles.into_iter();
            for prompt in &prompts {
                let (expected, none) = finish(submit(&plain, prompt));
                assert_eq!((expected.len(), none), (12, 0));
                let (tokens, cached) = finish(handles.next().unwrap_or_else(|| submit(&caching, prompt)));
                assert!(tokens == expected, "{name}: prompt of {}, {cached} cached", prompt.len());
                hits += cached;
            }
        }
        assert!(hits > 100, "{name}: {hits} cached tokens");
    }
}
