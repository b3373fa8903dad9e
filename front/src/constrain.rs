//! From what the output must be to the grammar that workers are given.
//!
//! What the client wants is wrapped in what the model writes around it: reasoning before it, and the marks of its format for
//! tool calls. So one parser takes forced and free output apart.

mod calls;
mod parameters;
mod reasoning;

use baton_grammar::{GrammarError, Input, source};
use baton_parsers::{Formats, ThinkMark};
use baton_tokenizer::Tokenizer;

use crate::{
    App,
    api_error::ApiError,
    fields::InvalidField,
    request::{GenerateJob, PromptSource},
};

/// What grammars are made of: marks, which are text to some models and control tokens to others.
struct Marks<'a>(&'a Tokenizer);

impl Marks<'_> {
    /// A rule's right-hand side: this mark.
    fn rule(&self, mark: &str) -> String {
        match self.control(mark) {
            Some(id) => source::token(id),
            None => source::literal(mark),
        }
    }

    /// The control token that a mark is.
    fn control(&self, mark: &str) -> Option<u32> {
        self.0.added_token(mark).filter(|&id| self.0.is_special(id))
    }
}

/// Puts the job's grammar into its sampling parameters, once it is known to be one: a worker would refuse it later, and in
/// words that say less.
pub(crate) async fn constrain(app: &App, job: &mut GenerateJob, mark: ThinkMark) -> Result<(), ApiError> {
    let Some((grammar, param)) = grammar_of(app, job, mark)? else { return Ok(()) };
    if job.sampling.ignore_eos {
        let problem = format!("can't be true with {param}, which ends where the output is complete");
        return Err(InvalidField::new("ignore_eos", problem).into());
    }
    let outcome = match &app.grammars {
        Ok(grammars) => grammars.compile(&grammar).await.map(drop),
        Err(error) => Err(error.clone()),
    };
    if let Err(error) = outcome {
        return Err(refused(app, job, &error, &param).await);
    }
    job.sampling.grammar = grammar;
    Ok(())
}

/// The grammar, and the field that asked for it.
fn grammar_of(
    app: &App,
    job: &GenerateJob,
    mark: ThinkMark,
) -> Result<Option<(String, String)>, InvalidField> {
    let marks = Marks(&app.tokenizer);
    let is_chat = matches!(job.prompts[..], [PromptSource::Chat(_)]);
    let formats = if is_chat { app.formats } else { Formats::default() };
    let calls =
        job.tools.forced().map(|functions| calls::rules(&marks, formats, functions, job.tools.is_parallel));
    if let Some(calls) = calls.transpose()? {
        if let Some(format) = &job.format {
            let problem = format!("can't be combined with {}: a call has a format of its own", format.param);
            return Err(InvalidField::new("tool_choice", problem));
        }
        let start = reasoning::start(&marks, formats, mark, "calls");
        return Ok(Some((format!("{start}{calls}"), "tools".to_owned())));
    }
    let Some(format) = &job.format else { return Ok(None) };
    if !is_chat {
        return Ok(Some((source::whole(&format.rule), format.param.clone())));
    }
    // With tools the model may call instead of answering.
    let may_call = job.tools.is_on() && formats.tools.is_some();
    let body = if may_call { "(answer | calls)" } else { "answer" };
    let mut grammar = reasoning::start(&marks, formats, mark, body);
    grammar += &reasoning::answer(&marks, formats, &format.rule);
    if may_call {
        grammar += &calls::rules(&marks, formats, &job.tools.functions, job.tools.is_parallel)?;
    }
    Ok(Some((grammar, format.param.clone())))
}

/// In terms of what the client wrote: the grammar is made of more than that.
async fn refused(app: &App, job: &GenerateJob, error: &GrammarError, param: &str) -> ApiError {
    if error.is_temporary() {
        return ApiError::busy(error.to_string());
    }
    if let (GrammarError::Invalid(_), Ok(grammars)) = (error, &app.grammars) {
        for (param, input) in inputs(job) {
            if let Some(refusal) = grammars.explain(input).await {
                return InvalidField::within(&param, refusal).into();
            }
        }
    }
    InvalidField::new(param, error.to_string()).into()
}

/// All that may be refused, and where it was written.
fn inputs(job: &GenerateJob) -> Vec<(String, Input)> {
    let format = job.format.iter().filter_map(|format| Some((format.param.clone(), format.input.clone()?)));
    let tools = job.tools.functions.iter().enumerate().map(|(at, function)| {
        (
            format!("tools[{at}].function.parameters"),
            Input::Schema(calls::object(&function.parameters), calls::style(function)),
        )
    });
    format.chain(tools).collect()
}
