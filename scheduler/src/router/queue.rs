//! Waiting to be let in.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use baton_policy::admission::{Ask as AdmissionAsk, Refusal, Verdict};
use tokio::sync::oneshot;

use super::{Known, Router};
use crate::error::NotNow;

/// Those who wait, by the number that admission knows them by.
pub(super) type Waiters = HashMap<u64, oneshot::Sender<Result<(), Refusal>>>;

/// A place among those who are let in, or wait to be. Given back when dropped.
pub(super) struct Place {
    router: Arc<Router>,
    number: u64,
}

/// What became of an offer.
pub(super) enum Offered {
    Admitted,
    Waits(oneshot::Receiver<Result<(), Refusal>>),
    Refused(Refusal),
}

impl Router {
    /// Offers a request to admission.
    pub(super) fn offer(self: &Arc<Self>, known: &mut Known, ask: AdmissionAsk) -> (Offered, Option<Place>) {
        let number = ask.id;
        let (verdict, shed) = known.placer.admission.offer(ask, self.now());
        if let Some((shed, refusal)) = shed {
            known.tell(shed, Err(refusal));
        }
        let place = || Some(Place { router: self.clone(), number });
        match verdict {
            Verdict::Admitted => (Offered::Admitted, place()),
            Verdict::Queued => {
                let (sender, receiver) = oneshot::channel();
                known.waiters.insert(number, sender);
                (Offered::Waits(receiver), place())
            }
            Verdict::Refused(refusal) => (Offered::Refused(refusal), None),
        }
    }

    /// Lets in who may come in now.
    pub(super) fn let_in(&self, known: &mut Known) {
        let now = self.now();
        while let Some(ask) = known.placer.admission.next(now) {
            known.tell(ask.id, Ok(()));
        }
    }

    /// Those who have waited for too long are told so, and how long prompts wait is looked at again.
    pub(super) fn look_after_queue(&self) {
        let began = Instant::now();
        let now = self.now();
        let mut known = self.lock();
        for (number, refusal) in known.placer.expired(now) {
            known.tell(number, Err(refusal));
        }
        self.let_in(&mut known);
        let admission = &known.placer.admission;
        self.metrics.set_queue(admission.queued(), admission.reserved_tokens());
        drop(known);
        self.epp.cycled(began.elapsed());
    }
}

impl Known {
    fn tell(&mut self, number: u64, verdict: Result<(), Refusal>) {
        if let Some(waiter) = self.waiters.remove(&number) {
            // Who has gone gives the place back.
            let _ = waiter.send(verdict);
        }
    }
}

/// A refusal in the front's terms.
pub(crate) fn not_now(refusal: &Refusal) -> NotNow {
    let seconds = (refusal.retry_after_ms / 1e3).ceil().max(1.0);
    NotNow {
        reason: refusal.reason.to_string(),
        is_nobody: refusal.reason.status() == 503,
        retry_after: Duration::from_secs_f64(seconds),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.router.lock();
        known.waiters.remove(&self.number);
        known.placer.admission.finished(self.number, self.router.now());
        self.router.let_in(&mut known);
    }
}
