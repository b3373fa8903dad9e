//! All of a message, with the formats that its model writes and its request wants.

use std::sync::Arc;

use crate::{
    Delta, Formats, Function, ReasoningFormat, ThinkMark, ToolFormat,
    harmony::Harmony,
    hermes::Hermes,
    llama3_json::Llama3Json,
    mistral::Mistral,
    qwen3_coder::Qwen3Coder,
    think::{Split, Think},
};

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct OutputOptions {
    /// Formats that are taken apart.
    pub formats: Formats,
    /// Functions of the request.
    pub functions: Arc<[Function]>,
    /// Where the prompt ends.
    pub mark: ThinkMark,
    /// Calls after the first are left out.
    pub one_call: bool,
    /// Reasoning is left out.
    pub hide_reasoning: bool,
}

/// Takes one message apart.
#[derive(Debug)]
pub struct OutputParser {
    think: Option<Think>,
    tools: Tools,
    one_call: bool,
    hide_reasoning: bool,
    calls: usize,
}

#[derive(Debug)]
enum Tools {
    None,
    Hermes(Hermes),
    Qwen3Coder(Qwen3Coder),
    Llama3Json(Llama3Json),
    Mistral(Mistral),
    Harmony(Harmony),
}

impl OutputParser {
    /// For a message that begins.
    pub fn new(options: &OutputOptions) -> Self {
        let Formats { tools, reasoning } = options.formats;
        let is_harmony = options.formats.is_harmony();
        let tools = match tools {
            _ if is_harmony => Tools::Harmony(Harmony::new()),
            None | Some(ToolFormat::Harmony) => Tools::None,
            Some(ToolFormat::Hermes) => Tools::Hermes(Hermes::default()),
            Some(ToolFormat::Qwen3Coder) => Tools::Qwen3Coder(Qwen3Coder::new(options.functions.clone())),
            Some(ToolFormat::Llama3Json) => Tools::Llama3Json(Llama3Json::new(options.functions.clone())),
            Some(ToolFormat::Mistral) => Tools::Mistral(Mistral::default()),
        };
        let thinks = reasoning == Some(ReasoningFormat::Think) && !is_harmony;
        Self {
            think: thinks.then(|| Think::new(options.mark)),
            tools,
            one_call: options.one_call,
            hide_reasoning: options.hide_reasoning,
            calls: 0,
        }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        let split = match &mut self.think {
            Some(think) => think.push(text),
            None => Split { answer: text.to_owned(), ..Split::default() },
        };
        let mut deltas = Vec::new();
        self.split(&split, &mut deltas);
        self.select(deltas)
    }

    /// There is no more text: what was held back.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut deltas = Vec::new();
        if let Some(think) = &mut self.think {
            let split = think.finish();
            self.split(&split, &mut deltas);
        }
        match &mut self.tools {
            Tools::None => {}
            Tools::Hermes(parser) => parser.finish(&mut deltas),
            Tools::Qwen3Coder(parser) => parser.finish(&mut deltas),
            Tools::Llama3Json(parser) => parser.finish(&mut deltas),
            Tools::Mistral(parser) => parser.finish(&mut deltas),
            Tools::Harmony(parser) => parser.finish(&mut deltas),
        }
        self.select(deltas)
    }

    /// Whether a function was called.
    pub fn has_calls(&self) -> bool {
        self.calls > 0
    }

    fn split(&mut self, Split { reasoning, answer }: &Split, out: &mut Vec<Delta>) {
        Delta::reasoning(reasoning, out);
        if answer.is_empty() {
            return;
        }
        match &mut self.tools {
            Tools::None => Delta::content(answer, out),
            Tools::Hermes(parser) => parser.push(answer, out),
            Tools::Qwen3Coder(parser) => parser.push(answer, out),
            Tools::Llama3Json(parser) => parser.push(answer, out),
            Tools::Mistral(parser) => parser.push(answer, out),
            Tools::Harmony(parser) => parser.push(answer, out),
        }
    }

    /// Leaves out what the request does not want.
    fn select(&mut self, mut deltas: Vec<Delta>) -> Vec<Delta> {
        deltas.retain(|delta| match delta {
            Delta::Content(_) => true,
            Delta::Reasoning(_) => !self.hide_reasoning,
            Delta::ToolCall { .. } => {
                self.calls += 1;
                !self.one_call || self.calls == 1
            }
            Delta::Arguments(_) => !self.one_call || self.calls <= 1,
        });
        deltas
    }
}
