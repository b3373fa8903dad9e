//! Letting a request in, and placing it.

use std::{sync::Arc, time::Instant};

use baton_kv_index::Scope;
use baton_policy::admission::{self, Refusal};

use super::{Ask, Refused, Route, Router, cache::Prompt, queue::Offered, route::Admitted};
use crate::{
    epp::{self, Waiting},
    traffic::{Arrived, Number},
};

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
        let (offered, admitted, decision) = {
            let mut known = self.lock();
            known.requests += 1;
            let number = known.requests;
            let expected = known.placer.learner().outputs.expected(&ask.tenant, ask.max_tokens);
            let traffic = self.note_arrival(ask, &prompt, expected);
            let decision = known.decide(self, ask, &prompt, &[]).inspect_err(|_| self.epp.unplaced(&who))?;
            let asked = admission::Ask {
                priority: ask.priority,
                weight: ask.weight,
                objective: ask.objective,
                ..admission::Ask::new(number, ask.tenant.clone(), &decision)
            };
            waiting = Waiting::begin(&self.epp, &who, ask.bytes);
            let (offered, place) = self.offer(&mut known, asked);
            (offered, Admitted { prompt, place: place.map(Arc::new), traffic }, decision)
        };
        match offered {
            Offered::Admitted => {
                waiting.ended(epp::Outcome::Dispatched);
                let mut known = self.lock();
                Ok(known.commit(self, ask, who, admitted, decision))
            }
            Offered::Refused(refusal) => Err(self.refuse(refusal, waiting)),
            Offered::Waits(turn) => {
                waiting.queued();
                // The router is there as long as anybody waits in it.
                match turn.await {
                    Ok(Err(refusal)) => Err(self.refuse(refusal, waiting)),
                    Ok(Ok(())) | Err(_) => {
                        waiting.ended(epp::Outcome::Dispatched);
                        self.place(ask, admitted, &[])
                    }
                }
            }
        }
    }

    /// Whatever becomes of a request, it has come. One without a body asks for nothing to be generated.
    fn note_arrival(&self, ask: &Ask<'_>, prompt: &Prompt, expected_tokens: f64) -> Option<Number> {
        let traffic = self.traffic.as_ref().filter(|_| ask.bytes > 0)?;
        let (prompt_tokens, keys) = (ask.prompt_tokens, prompt.finest());
        Some(traffic.arrived(&Arrived { at_ms: self.now(), prompt_tokens, keys, expected_tokens }))
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
        let admitted = failed.admitted.clone();
        drop(failed);
        self.place(ask, admitted, tried)
    }

    fn place(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        admitted: Admitted,
        tried: &[String],
    ) -> Result<Route, Refused> {
        // Dropped after the lock is given back, if there is nobody.
        let kept = admitted.place.clone();
        let who = self.epp.who(ask.asked, &ask.tenant, ask.priority);
        let decided = {
            let mut known = self.lock();
            match known.decide(self, ask, &admitted.prompt, tried) {
                Ok(decision) => Ok(known.commit(self, ask, who, admitted, decision)),
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
