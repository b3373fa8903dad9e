//! What every command that measures is told, and made ready of that.

use std::sync::Arc;

use baton_workload::{Content, ContentArgs, Workload, WorkloadArgs};
use tokio_util::sync::CancellationToken;

use super::{CommandError, EndpointArgs, MeasureArgs, OutputArgs, interrupt};
use crate::{Bench, Form, Target, TokenEnds, modes::Measure};

/// What is sent, what is measured, and where results go.
#[derive(clap::Args, Clone, Debug)]
pub struct CommonArgs {
    #[command(flatten)]
    pub(super) workload: WorkloadArgs,
    #[command(flatten)]
    content: ContentArgs,
    #[command(flatten)]
    pub(super) measure: MeasureArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Ready to measure servers that are spoken to in one way.
pub(super) struct Prepared<'a> {
    args: &'a CommonArgs,
    endpoint: &'a EndpointArgs,
    pub(super) workload: Workload,
    form: Form,
    made: Arc<Content>,
    interrupt: CancellationToken,
}

impl CommonArgs {
    /// From here on Ctrl-C ends what is measured.
    pub(super) fn prepare<'a>(
        &'a self,
        endpoint: &'a EndpointArgs,
        workload: Workload,
    ) -> Result<Prepared<'a>, CommandError> {
        let form = endpoint.form().map_err(CommandError::Other)?;
        let made = Arc::new(self.content.content(workload.seed)?);
        let interrupt = interrupt::on_ctrl_c()?;
        Ok(Prepared { args: self, endpoint, workload, form, made, interrupt })
    }
}

impl Prepared<'_> {
    /// Finds `target` ready.
    pub(super) fn open(&self, target: &Target) -> Result<(Bench, Measure), CommandError> {
        let (name, made) = (target.to_string(), self.made.clone());
        let measure = self.args.measure.measure(name, self.form, made, &self.interrupt);
        let tokenizer = self.made.tokenizer.clone();
        let token_ends = tokenizer.map(|tokenizer| tokenizer as Arc<dyn TokenEnds>);
        Ok((Bench::open(self.endpoint.setup(target.clone(), token_ends))?, measure))
    }
}
