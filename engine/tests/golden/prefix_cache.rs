//! A real model's tokens and log-probabilities, with the prefix cache and without, to the last bit.

use baton_engine::{
    Dtype, Engine, EngineConfig, GeneratedToken, Isa, Model, SamplingParams, SequenceEvent, SequenceHandle,
    SequenceRequest,
};

use crate::fixture::{Driver, MODELS, cases, load};

fn engine(model: &Model, prefix_cache: bool) -> Engine {
    let config = EngineConfig { prefix_cache, max_step_tokens: 48, ..EngineConfig::default() };
    Engine::start(Box::new(Driver::new(model, 16, 2).forward), vec![], config)
}

fn submit(engine: &Engine, prompt: &[u32]) -> SequenceHandle {
    let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::greedy(12) };
    let request = SequenceRequest {
        id: "test".to_owned(),
        prompt: prompt.to_vec(),
        sampling,
        deadline: None,
        adapter: None,
        cache_salt: None,
    };
    engine.submit(request).unwrap()
}

/// The tokens with the bits of their log-probabilities, and how much of the prompt was cached.
fn finish(mut handle: SequenceHandle) -> (Vec<(u32, Vec<u32>)>, usize) {
    let bits = |token: GeneratedToken| {
        let logprobs = token.logprobs.expect("asked for");
        let top = logprobs.top.into_iter().flat_map(|(id, logprob)| [id, logprob.to_bits()]);
        (token.id, std::iter::once(logprobs.chosen.to_bits()).chain(top).collect())
    };
    let (mut tokens, mut cached) = (Vec::new(), 0);
    loop {
        match handle.try_recv() {
            None => std::thread::yield_now(),
            Some(SequenceEvent::Prefilled(prefilled)) => cached = prefilled.cached_tokens,
            Some(SequenceEvent::Token(token)) => tokens.push(bits(token)),
            Some(SequenceEvent::Finished(..)) => return (tokens, cached),
            Some(SequenceEvent::Failed(failure)) => panic!("{failure}"),
        }
    }
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
