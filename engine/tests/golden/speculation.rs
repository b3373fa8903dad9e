//! A real model's tokens and log-probabilities, with drafts and without, to the last bit: all families, greedy and sampled, alone
//! and in a batch.

use baton_engine::{
    DraftModel, Dtype, Engine, EngineConfig, EngineTotals, Isa, Model, NgramLookup, Propose, SamplingParams,
    SequenceHandle, SequenceRequest, Shutdown, Speculation,
};

use crate::fixture::{Driver, MODELS, cases, finish, load};

fn engine(model: &Model, proposer: Option<Box<dyn Propose>>) -> Engine {
    let config = EngineConfig { max_step_tokens: 48, ..EngineConfig::default() };
    let speculation = proposer.map(|proposer| Speculation { proposer, draft_tokens: 5, is_adaptive: false });
    let forward = Box::new(Driver::new(model, 16, 2).forward);
    Engine::start_speculating(forward, vec![], config, None, speculation)
}

fn draft_model(model: &Model) -> Box<dyn Propose> {
    Box::new(DraftModel::new(Box::new(Driver::new(model, 16, 2).forward), 20))
}

fn submit(engine: &Engine, prompt: &[u32], temperature: f32) -> SequenceHandle {
    let greedy = SamplingParams::greedy(14);
    let sampling =
        SamplingParams { temperature, seed: 11, logprobs: Some(5), repetition_penalty: 1.1, ..greedy };
    engine.submit(SequenceRequest::new("test", prompt.to_vec(), sampling)).unwrap()
}

fn ended(engine: &Engine) -> EngineTotals {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(engine.shutdown(Shutdown::Drain));
    engine.load().totals
}

/// Prompts that say things twice.
fn prompts(name: &str) -> Vec<Vec<u32>> {
    let prompts = cases(name).into_iter().map(|case| case.prompt).filter(|prompt| prompt.len() <= 100);
    prompts.map(|prompt| [prompt.as_slice(), &prompt[..prompt.len() / 2 + 1]].concat()).collect()
}

#[test]
fn drafts_do_not_change_a_bit() {
    for name in MODELS {
        let model = load(name, Dtype::Bf16, Isa::detect());
        let plain = engine(&model, None);
        let requests: Vec<_> =
            prompts(name).into_iter().flat_map(|prompt| [(prompt.clone(), 0.0), (prompt, 0.8)]).collect();
        let expected: Vec<_> = requests.iter().map(|(p, t)| finish(submit(&plain, p, *t)).0).collect();
        for (how, proposer) in [
            ("n-grams", Box::new(NgramLookup::new(1, 3)) as Box<dyn Propose>),
            ("itself", draft_model(&model)),
        ] {
            let drafting = engine(&model, Some(proposer));
            for (at_once, (request, expected)) in [false, true]
                .iter()
                .flat_map(|at_once| std::iter::repeat(at_once).zip(requests.iter().zip(&expected)))
            {
                let others: Vec<_> = requests
                    .iter()
                    .filter(|_| *at_once)
                    .map(|(prompt, temperature)| submit(&drafting, prompt, *temperature))
                    .collect();
                let (tokens, _) = finish(submit(&drafting, &request.0, request.1));
                assert!(tokens == *expected, "{name}, drafts by {how}: prompt of {}", request.0.len());
                drop(others);
            }
            let speculation = ended(&drafting).speculation;
            assert!(speculation.accepted_tokens > 0, "{name}, drafts by {how}: {speculation:?}");
            assert!(speculation.accepted_tokens < speculation.draft_tokens, "{name}, drafts by {how}");
        }
    }
}
