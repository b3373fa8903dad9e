//! One request of a tenant, from its headers to its end.

use std::{net::IpAddr, sync::Arc};

use baton_line_log::{LineLog, Slot};

use crate::{
    Clock, Now, Refusal, Tenant,
    audit::{Line, time},
    limit::Limiter,
    metrics::{Ending, TenancyMetrics, Tokens},
};

/// nginx's status for "the client closed the connection".
const CLIENT_GONE: u16 = 499;

/// What is known of a request when its headers are read.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Its id, as in the logs.
    pub request_id: String,
    /// What was called, such as `/v1/chat/completions`.
    pub endpoint: &'static str,
    /// Where it came from, if known; recorded with `--audit-clients`.
    pub client: Option<IpAddr>,
}

/// Where requests that are over are recorded.
pub(crate) struct Recorder {
    pub(crate) log: Option<LineLog>,
    pub(crate) is_strict: bool,
    pub(crate) has_clients: bool,
    pub(crate) has_prompts: bool,
    /// Lines about those whose key is not known.
    pub(crate) strangers: Limiter,
    pub(crate) metrics: TenancyMetrics,
}

/// A request that holds one of its key's places until it is dropped. If nobody said how it ended ([`Call::ends_as`]), its client went
/// away, or a method of it refused the request.
pub struct Call {
    tenant: Tenant,
    recorder: Arc<Recorder>,
    clock: Arc<dyn Clock>,
    slot: Option<Slot>,
    line: Line,
    tokens: Tokens,
    began: Now,
    ending: (u16, String),
}

impl Call {
    pub(crate) fn begin(
        tenant: Tenant,
        about: About,
        recorder: Arc<Recorder>,
        clock: Arc<dyn Clock>,
        now: Now,
    ) -> Result<Self, Refusal> {
        let line = recorder.line(&about, Some(&tenant), now);
        let slot = match recorder.place() {
            Ok(slot) => slot,
            Err(refusal) => {
                // It would not be recorded: that is the reason.
                recorder.count(&refusal);
                tenant.0.usage.count(Ending::Refused, Tokens::default());
                return Err(refusal);
            }
        };
        if let Err(limited) = tenant.0.limiter.begin(now.instant) {
            let refusal = tenant.limit(limited, now);
            recorder.count(&refusal);
            tenant.0.usage.count(Ending::Refused, Tokens::default());
            recorder
                .write(Line { status: refusal.status(), outcome: refusal.code().to_owned(), ..line }, slot);
            return Err(refusal);
        }
        tenant.0.usage.running.inc();
        let ending = (CLIENT_GONE, "cancelled".to_owned());
        Ok(Self { tenant, recorder, clock, slot, line, tokens: Tokens::default(), began: now, ending })
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The model or adapter that was asked for is known now: may this key use it?
    ///
    /// # Errors
    /// A [`Refusal`] with status 403.
    pub fn model(&mut self, model: &str) -> Result<(), Refusal> {
        model.clone_into(&mut self.line.model);
        let checked = self.tenant.check_model(model);
        self.note(checked)
    }

    /// It asks for what only operators may do, about `model`.
    ///
    /// # Errors
    /// A [`Refusal`] with status 403.
    pub fn admin(&mut self, model: &str) -> Result<(), Refusal> {
        model.clone_into(&mut self.line.model);
        self.note(self.tenant.check_admin())
    }

    /// The tokens of its prompt (of all its prompts, each once, as its usage counts them) are known now: takes them of the limit.
    ///
    /// # Errors
    /// A [`Refusal`] with status 429.
    pub fn prompt(&mut self, tokens: u64) -> Result<(), Refusal> {
        let now = self.clock.now();
        let taken = self.tenant.0.limiter.prompt(tokens, now.instant);
        if taken.is_ok() {
            self.tokens.prompt += tokens;
        }
        self.note(taken.map_err(|limited| self.tenant.limit(limited, now)))
    }

    /// Whether [`Call::prompt_text`] is of use: by option, the audit log has prompts.
    pub fn wants_prompt_text(&self) -> bool {
        self.recorder.has_prompts && self.recorder.log.is_some()
    }

    /// The prompt as the model reads it, for the audit log. Nothing happens without that option.
    pub fn prompt_text(&mut self, text: &str) {
        if self.wants_prompt_text() {
            self.line.prompt = Some(text.to_owned());
        }
    }

    /// So many tokens of the prompt were in a cache.
    pub fn cached(&mut self, tokens: u64) {
        self.tokens.cached += tokens;
    }

    /// So many tokens were generated: as they come, or all at once.
    pub fn generated(&mut self, tokens: u64) {
        self.tokens.output += tokens;
        self.tenant.0.limiter.generated(tokens, self.clock.now().instant);
    }

    /// What whoever served it in our place says that it used, all in all: in place of what was counted here.
    pub fn used(&mut self, prompt: u64, cached: u64, output: u64) {
        let now = self.clock.now().instant;
        let counted = self.tokens.prompt + self.tokens.output;
        let used = prompt.saturating_add(output);
        self.tenant.0.limiter.generated(used.saturating_sub(counted), now);
        self.tenant.0.limiter.put_back(counted.saturating_sub(used), now);
        self.tokens = Tokens { prompt, cached, output };
    }

    /// How it ends: `status` is what the client got (499: it has left), `outcome` a short word for why.
    pub fn ends_as(&mut self, status: u16, outcome: &str) {
        self.ending = (status, outcome.to_owned());
    }

    fn note(&mut self, checked: Result<(), Refusal>) -> Result<(), Refusal> {
        if let Err(refusal) = &checked {
            self.recorder.count(refusal);
            self.ending = (refusal.status(), refusal.code().to_owned());
        }
        checked
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let now = self.clock.now();
        let limiter = &self.tenant.0.limiter;
        let (status, outcome) = std::mem::take(&mut self.ending);
        // Refused by whoever came after us, it was never computed.
        if self.tokens.output == 0 && status >= 400 && status != CLIENT_GONE {
            limiter.put_back(std::mem::take(&mut self.tokens.prompt), now.instant);
        }
        limiter.end();
        self.tenant.0.usage.count(Ending::of(status), self.tokens);
        self.tenant.0.usage.running.dec();
        let duration = now.instant.saturating_duration_since(self.began.instant);
        let line = Line {
            prompt_tokens: self.tokens.prompt,
            cached_tokens: self.tokens.cached,
            output_tokens: self.tokens.output,
            status,
            outcome,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            ..std::mem::take(&mut self.line)
        };
        self.recorder.write(line, self.slot.take());
    }
}

impl Recorder {
    /// Someone without a good key was refused.
    pub(crate) fn record_stranger(&self, refusal: &Refusal, about: &About, now: Now) {
        self.count(refusal);
        if self.log.is_none() {
            return;
        }
        if self.strangers.begin(now.instant).is_err() {
            self.metrics.audit.lose("too_many_unknown", 1);
            return;
        }
        self.strangers.end();
        let line = self.line(about, None, now);
        let key = match refusal {
            Refusal::Expired { name, .. } | Refusal::Disabled { name } => name.clone(),
            _ => String::new(),
        };
        self.write(Line { key, status: refusal.status(), outcome: refusal.code().to_owned(), ..line }, None);
    }

    fn line(&self, about: &About, tenant: Option<&Tenant>, now: Now) -> Line {
        Line {
            time: time(now.wall),
            request_id: about.request_id.clone(),
            key: tenant.map_or_else(String::new, |tenant| tenant.name().to_owned()),
            team: tenant.map_or_else(String::new, |tenant| tenant.team().to_owned()),
            endpoint: about.endpoint.to_owned(),
            client: about.client.filter(|_| self.has_clients).map(|client| client.to_string()),
            ..Line::default()
        }
    }

    /// A place in the audit log, where each request must have one.
    fn place(&self) -> Result<Option<Slot>, Refusal> {
        match &self.log {
            Some(log) if self.is_strict => log.queue().keep_place().map(Some).ok_or(Refusal::NoAudit),
            _ => Ok(None),
        }
    }

    fn write(&self, line: Line, slot: Option<Slot>) {
        match (&self.log, slot) {
            (Some(_), Some(slot)) => slot.push(line.into_bytes()),
            (Some(log), None) => log.queue().push(line.into_bytes()),
            (None, _) => {}
        }
    }
}
