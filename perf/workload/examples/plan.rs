//! Shows what a workload's options plan, and how fast its prompts are made:
//!
//! ```text
//! cargo run --release -p baton-workload --example plan -- --trace trace.jsonl --vocab-size 32000
//! ```

#![expect(clippy::print_stdout, reason = "a report is for standard output")]

use std::time::Instant;

use baton_workload::{Content, ContentArgs, Plan, WorkloadArgs};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Show what a workload's options plan, and how fast its prompts are made")]
struct Cli {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    content: ContentArgs,
}

/// Prompts that are made to see how fast.
const PROMPTS: usize = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cli = Cli::parse();
    let workload = cli.workload.workload()?;
    let content = cli.content.content(workload.seed)?;
    let begin = Instant::now();
    let plan = workload.plan(&content)?;
    println!("SHA-256         {}, planned in {:.3} s", plan.sha256(), begin.elapsed().as_secs_f64());
    println!("{}", plan.stats());
    speed(&plan, &content)
}

fn speed(plan: &Plan, content: &Content) -> Result<(), Box<dyn std::error::Error>> {
    let requests = &plan.requests()[..plan.requests().len().min(PROMPTS)];
    let tokens: u64 = requests.iter().map(|request| request.prompt.tokens()).sum();
    let begin = Instant::now();
    let bytes: usize =
        requests.iter().map(|request| content.text.text(plan, &request.prompt, |_| None::<&str>).len()).sum();
    report("texts", tokens, begin);
    println!("                {:.2} bytes a token", bytes as f64 / tokens as f64);
    if let Some(ids) = &content.ids {
        let begin = Instant::now();
        let made = requests.iter().map(|request| ids.prompt(plan, &request.prompt, |_| None::<&[u32]>));
        let made = made.map(|ids| ids.map(|ids| ids.len() as u64)).sum::<Result<u64, _>>()?;
        report("token ids", made, begin);
    }
    if let Some(tokenizer) = &content.tokenizer {
        let check = content.text.check(plan, tokenizer, 100);
        println!("counted         {check:?}");
    }
    Ok(())
}

fn report(what: &str, tokens: u64, begin: Instant) {
    let millions = tokens as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("{what:<15} {tokens} tokens, {millions:.0} million a second");
}
