//! Tokens a second of an engine with drafts, beside the same without, in turns.
//!
//! `cargo run --release -p baton-engine --example speculation_bench -- MODEL_DIR [--draft DRAFT_MODEL_DIR] [--depth 4]
//! [--batch 1,8] [--tokens 64] [--repeat 5] [--threads N] [--fixed]`
//!
//! Asks about a log of parcels, whose facts the answer has to say again. Prints the median of the repeats for each way, its ratio
//! to plain decoding in the same run, and how many tokens a draft gave. `--fixed`: always as many drafts, even where they do
//! not pay. Of a model's answers only the time counts; they go on through its end-of-sequence tokens.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

use std::{collections::HashMap, path::Path};

use anyhow::{Context as _, bail};
use baton_engine::{
    BoundModel, DraftModel, Engine, EngineConfig, EngineTotals, KvMemory, LoadOptions, Model, NgramLookup,
    Propose, SamplingParams, SequenceEvent, SequenceRequest, Speculation, physical_cores,
};
use baton_tokenizer::Tokenizer;

const BLOCK_TOKENS: usize = 16;

/// A way to decode.
struct Way {
    name: &'static str,
    engine: Engine,
    /// Tokens a second.
    rates: Vec<f64>,
    before: EngineTotals,
}

struct Settings {
    depth: usize,
    tokens: u32,
    repeat: usize,
    threads: usize,
    is_adaptive: bool,
}

fn main() -> anyhow::Result<()> {
    let (folder, options) = arguments()?;
    let number = |name: &str, default: usize| options.get(name).map_or(Ok(default), |v| v.parse::<usize>());
    let settings = Settings {
        depth: number("depth", 4)?,
        tokens: u32::try_from(number("tokens", 64)?)?,
        repeat: number("repeat", 5)?,
        threads: number("threads", physical_cores())?,
        is_adaptive: !options.contains_key("fixed"),
    };
    let batches = options.get("batch").map_or("1,8", String::as_str).split(',').map(str::parse::<usize>);
    let model = load(&folder, &settings)?;
    let draft = options.get("draft").map(|folder| load(folder, &settings)).transpose()?;
    let tokenizer = Tokenizer::load(Path::new(&folder))?;
    println!("| batch | decoding | tokens/s | to plain | tokens with a draft | of all tokens |");
    println!("|---|---|---|---|---|---|");
    for batch in batches {
        let batch = batch?;
        let prompts: Vec<Vec<u32>> = (0..batch)
            .map(|i| tokenizer.encode(&log_and_question(i), true).map_err(anyhow::Error::msg))
            .collect::<Result<_, _>>()?;
        let mut ways = vec![Way::start("plain", &model, None, &settings)?];
        ways.push(Way::start("n-grams", &model, Some(Box::new(NgramLookup::new(2, 5))), &settings)?);
        if let Some(draft) = &draft {
            let proposer = DraftModel::new(Box::new(bind(draft, &settings)?), 128);
            ways.push(Way::start("draft model", &model, Some(Box::new(proposer)), &settings)?);
        }
        // The first round warms up, and teaches those that adapt.
        for round in 0..=settings.repeat {
            for way in &mut ways {
                way.measure(&prompts, &settings, round == 0)?;
            }
        }
        let plain = ways[0].median();
        for way in &ways {
            println!(
                "| {batch} | {} | {:.0} | {:.2} | {} |",
                way.name,
                way.median(),
                way.median() / plain,
                way.drafts()
            );
        }
    }
    Ok(())
}

impl Way {
    fn start(
        name: &'static str,
        model: &Model,
        proposer: Option<Box<dyn Propose>>,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let Settings { depth, is_adaptive, .. } = *settings;
        let speculation = proposer.map(|proposer| Speculation { proposer, draft_tokens: depth, is_adaptive });
        let forward = Box::new(bind(model, settings)?);
        let config = EngineConfig::default();
        let engine = Engine::start_speculating(forward, vec![], config, None, speculation);
        Ok(Self { name, engine, rates: Vec::new(), before: EngineTotals::default() })
    }

    /// Decodes all prompts at once; the time counts from the first token of each.
    fn measure(&mut self, prompts: &[Vec<u32>], settings: &Settings, is_warm_up: bool) -> anyhow::Result<()> {
        let request = |prompt: &Vec<u32>| {
            let sampling = SamplingParams { ignore_eos: true, ..SamplingParams::greedy(settings.tokens) };
            SequenceRequest::new("bench", prompt.clone(), sampling)
        };
        let handles: Result<Vec<_>, _> = prompts.iter().map(|p| self.engine.submit(request(p))).collect();
        let (mut tokens, mut longest) = (0, 0);
        for mut handle in handles? {
            loop {
                match handle.try_recv() {
                    None => std::thread::sleep(std::time::Duration::from_micros(200)),
                    Some(SequenceEvent::Prefilled(_)) => {}
                    Some(SequenceEvent::Token(_)) => tokens += 1,
                    Some(SequenceEvent::Failed(failure)) => bail!(failure),
                    Some(SequenceEvent::Finished(_, timing)) => {
                        longest = longest.max(timing.decode_us);
                        break;
                    }
                }
            }
        }
        if is_warm_up {
            self.before = self.engine.load().totals;
        } else {
            self.rates.push((tokens - prompts.len()) as f64 / (longest as f64 / 1e6));
        }
        Ok(())
    }

    fn median(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Tokens that a draft gave, with the one that is not drafted, and what part of all tokens came that way.
    fn drafts(&self) -> String {
        let (before, now) = (self.before, self.engine.load().totals);
        let drafts = now.speculation.drafts - before.speculation.drafts;
        let accepted = now.speculation.accepted_tokens - before.speculation.accepted_tokens;
        if drafts == 0 {
            return "- | 0".to_owned();
        }
        let all = now.generation_tokens - before.generation_tokens;
        let tokens = (drafts + accepted) as f64;
        format!("{:.2} | {:.2}", tokens / drafts as f64, tokens / all as f64)
    }
}

/// Facts of which the answer has to repeat one.
fn log_and_question(number: usize) -> String {
    let cities = ["Lisbon", "Oslo", "Turin", "Ghent", "Porto"];
    let facts: Vec<String> = (0..12)
        .map(|i| {
            let city = cities[(i + number) % cities.len()];
            format!("Parcel {} goes to {city} by train with Mira.", 3 * i + number % 3)
        })
        .collect();
    format!(
        "<|im_start|>user\n{} Where does parcel {} go, and how?<|im_end|>\n<|im_start|>assistant\n",
        facts.join(" "),
        3 * (number % 12) + number % 3
    )
}

fn load(folder: &str, settings: &Settings) -> anyhow::Result<Model> {
    let options = LoadOptions { threads: settings.threads, ..LoadOptions::default() };
    Ok(Model::load(Path::new(folder), &options)?)
}

fn bind(model: &Model, settings: &Settings) -> anyhow::Result<BoundModel> {
    const BLOCKS: usize = 2048;
    let layout = model.kv_layout(BLOCK_TOKENS);
    Ok(model.bind(KvMemory::allocate(&layout, BLOCKS), &layout, BLOCKS, settings.threads)?)
}

fn arguments() -> anyhow::Result<(String, HashMap<String, String>)> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().context("name a model folder")?;
    let mut options = HashMap::new();
    while let Some(name) = args.next() {
        let Some(name) = name.strip_prefix("--") else { bail!("what is {name}?") };
        let value = if name == "fixed" { Some(String::new()) } else { args.next() };
        options.insert(name.to_owned(), value.with_context(|| format!("--{name} needs a value"))?);
    }
    Ok((folder, options))
}
