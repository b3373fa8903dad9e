//! Letting a request in, and placing it.

use std::{sync::Arc, time::Instant};

use baton_kv_index::Scope;
use baton_policy::{
    admission::{self, Refusal},
    estimate::Term,
};

use super::{
    Ask, Refused, Route, Router,
    cache::Prompt,
    queue::{Offered, Place},
};
use crate::epp::{self, Waiting};

impl Router {
    /// Decides where `ask` goes, when it may go.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue back.
    pub(crate) async fn route(self: &Arc<Self>, ask: &Ask<'_>) -> Result<Route, Refused> {
        let began = Instant::now();
        let routed = self.admit_and_place(ask).await;
        self.epp.processed(began.elapsed());
        routed
    }

    async fn admit_and_place(self: &Arc<Self>, ask: &Ask<'_>) -> Result<Route, Refused> {
        let prompt = Arc::new(self.prompt(ask));
        let who = self.epp.who(ask.asked, &ask.tenant, ask.priority);
        let mut waiting;
        let (offered, place, decision) = {
            let mut known = self.lock();
            known.requests += 1;
            let number = known.requests;
            let decision = known.decide(self, ask, &prompt, &[]).inspect_err(|_| self.epp.unplaced(&who))?;
            let expected = known.learner.outputs.expected(&ask.tenant, ask.max_tokens);
            let asked = admission::Ask {
                id: number,
                tenant: ask.tenant.clone(),
                priority: ask.priority,
                weight: ask.weight,
                growth_tokens: ask.prompt_tokens + expected as u64,
                objective: ask.objective,
                predicted_ttft_ms: decision.terms.ttft_ms(),
                predicted_tpot_ms: decision.terms.get(Term::Decode) / expected.max(1.0),
            };
            waiting = Waiting::begin(&self.epp, &who, ask.bytes);
            let (offered, place) = self.offer(&mut known, asked);
            (offered, place.map(Arc::new), decision)
        };
        match offered {
            Offered::Admitted => {
                waiting.ended(epp::Outcome::Dispatched);
                let mut known = self.lock();
                Ok(known.commit(self, ask, who, prompt, place, decision))
            }
            Offered::Refused(refusal) => Err(self.refuse(refusal, waiting)),
            Offered::Waits(turn) => {
                waiting.queued();
                // The router is there as long as anybody waits in it.
                match turn.await {
                    Ok(Err(refusal)) => Err(self.refuse(refusal, waiting)),
                    Ok(Ok(())) | Err(_) => {
                        waiting.ended(epp::Outcome::Dispatched);
                        self.place(ask, prompt, place, &[])
                    }
                }
            }
        }
    }

    fn refuse(&self, refusal: Refusal, waiting: Waiting) -> Refused {
        waiting.ended(refusal.reason.into());
        self.metrics.refused(refusal.reason);
        Refused::NotNow(refusal)
    }

    /// Decides anew, for a request that `failed` could not serve, any more than `tried`.
    pub(crate) fn reroute(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        failed: Route,
        tried: &[String],
    ) -> Result<Route, Refused> {
        let (prompt, place) = (failed.prompt.clone(), failed.place.clone());
        drop(failed);
        self.place(ask, prompt, place, tried)
    }

    fn place(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        prompt: Arc<Prompt>,
        place: Option<Arc<Place>>,
        tried: &[String],
    ) -> Result<Route, Refused> {
        // Dropped after the lock is given back, if there is nobody.
        let kept = place.clone();
        let who = self.epp.who(ask.asked, &ask.tenant, ask.priority);
        let decided = {
            let mut known = self.lock();
            match known.decide(self, ask, &prompt, tried) {
                Ok(decision) => Ok(known.commit(self, ask, who, prompt, place, decision)),
                Err(refused) => {
                    self.epp.unplaced(&who);
                    Err(refused)
                }
            }
        };
        drop(kept);
        decided
    }

    fn prompt(&self, ask: &Ask<'_>) -> Prompt {
        let scope = Scope { model: &self.model, adapter: ask.adapter, salt: ask.cache_salt };
        self.cache.prompt(&scope, ask.prompt, ask.text)
    }
}
