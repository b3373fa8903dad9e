//! Who is in the fleet now: workers that joined, their last report, and what this scheduler has sent them.

mod adapters;
mod admit;
mod in_flight;
mod member;
mod membership;
mod pairs;
mod service;
mod steps;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use baton_kv_index::WorkerSpec;
use baton_proto::v1::{
    CacheReport, ModelInfo, PairReport, Role, WorkReport, WorkerInfo, WorkerLoad,
    registry_reply::{DecodeWorker, DecodeWorkers},
};
use baton_tls::Dial;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use adapters::{OrderRefused, Revisions, ServedAdapter};
pub(crate) use admit::ServedModel;
pub(crate) use in_flight::{DecodeShare, PrefillShare};
pub(crate) use member::Member;
pub(crate) use pairs::{Difference, PairState, PairView, Pairs};
pub(crate) use service::RegistryService;
use steps::StepSamples;

use crate::{config::FleetLimits, metrics::SchedulerMetrics, router::Router};

/// The fleet's members.
pub(crate) struct Fleet {
    members: Mutex<Members>,
    /// What prefill workers are told.
    decode_workers: watch::Sender<DecodeWorkers>,
    orders: adapters::Orders,
    /// Is told whatever it decides by.
    router: Arc<Router>,
    served: ServedModel,
    limits: FleetLimits,
    metrics: SchedulerMetrics,
    root: CancellationToken,
    dial: Dial,
}

/// A present member can be given requests. A departed one can't, and its requests fail unless it is back within the
/// grace period: a worker whose stream broke may still be streaming tokens.
#[derive(Default)]
struct Members {
    present: BTreeMap<String, Arc<Member>>,
    departed: BTreeMap<String, Arc<Member>>,
    sessions: u64,
}

/// One stream's claim to be a worker's membership; a later stream of the same worker takes it over.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) member: Arc<Member>,
    pub(crate) number: u64,
}

impl Members {
    fn of_role(&self, role: Role) -> impl Iterator<Item = &Arc<Member>> {
        self.present.values().filter(move |member| member.role() == role)
    }
}

fn decode_worker(member: &Arc<Member>) -> DecodeWorker {
    let fabric = member.info.fabric.clone().unwrap_or_default();
    DecodeWorker {
        worker_id: member.info.worker_id.clone(),
        incarnation: member.info.incarnation,
        control_endpoint: fabric.control_endpoint,
        node_id: fabric.node_id,
    }
}

impl Fleet {
    /// An empty fleet; cancelling `root` gives up every request in flight.
    pub(crate) fn new(
        served: ServedModel,
        limits: FleetLimits,
        router: Arc<Router>,
        metrics: SchedulerMetrics,
        root: CancellationToken,
    ) -> Self {
        Self {
            members: Mutex::default(),
            decode_workers: watch::Sender::default(),
            orders: adapters::Orders::default(),
            router,
            served,
            limits,
            metrics,
            root,
            dial: Dial::plain(),
        }
    }

    /// Returns when requests are given up.
    pub(crate) async fn stopping(&self) {
        self.root.cancelled().await;
    }

    /// How sidecars are called, if not in plain text.
    pub(crate) fn over(mut self, dial: Dial) -> Self {
        self.dial = dial;
        self
    }

    pub(crate) fn limits(&self) -> &FleetLimits {
        &self.limits
    }

    /// Lets a worker in, or says why not.
    pub(crate) fn join(&self, mut info: WorkerInfo) -> Result<Session, String> {
        // They come and go in one life.
        let adapters = info.adapters.take().unwrap_or_default();
        let mut members = self.lock();
        let present = members.present.get(&info.worker_id);
        admit::check_incarnation(&info, present.map(|member| &member.info))?;
        // A worker is not compared with its own former self: it may come back with another model.
        let peer = members.present.values().find(|member| member.info.worker_id != info.worker_id);
        admit::check(&info, &self.served, peer.map(|member| &member.info))?;
        if present.is_none() && members.present.len() >= self.limits.max_workers {
            return Err(format!("the fleet is full: {} workers (--max-workers)", self.limits.max_workers));
        }

        members.sessions += 1;
        let number = members.sessions;
        let former =
            members.present.remove(&info.worker_id).or_else(|| members.departed.remove(&info.worker_id));
        let member = match former {
            Some(former) if former.info == info => former,
            former => {
                if let Some(former) = former {
                    // Ends its stream, which must not take the new one out when it departs.
                    former.begin_session(number);
                    former.lost.cancel();
                }
                Arc::new(Member::new(info, self.root.child_token(), &self.dial)?)
            }
        };
        member.begin_session(number);
        members.present.insert(member.info.worker_id.clone(), member.clone());
        self.router.joined(&member.facts());
        self.set_adapters(&member, adapters);
        self.tell_pairs(&members, &member);
        self.changed(&members);
        Ok(Session { member, number })
    }

    /// Takes the worker out of the fleet, if `session` is still its newest. True if it was.
    pub(crate) fn depart(&self, session: &Session) -> bool {
        let mut members = self.lock();
        if session.member.session() != session.number {
            return false;
        }
        let Some(member) = members.present.remove(&session.member.info.worker_id) else { return false };
        self.router.left(member.id());
        members.departed.insert(member.info.worker_id.clone(), member);
        self.changed(&members);
        true
    }

    /// The grace period of a departed worker is over: gives up its requests, unless it came back.
    pub(crate) fn give_up(&self, session: &Session) {
        let mut members = self.lock();
        if session.member.session() == session.number {
            members.departed.remove(&session.member.info.worker_id);
            self.router.gone(session.member.id(), session.member.info.incarnation);
            if !members.present.contains_key(session.member.id()) {
                self.metrics.forget(session.member.role(), session.member.id());
            }
            session.member.lost.cancel();
        }
    }

    /// A worker that is here.
    pub(crate) fn member(&self, worker_id: &str) -> Option<Arc<Member>> {
        self.lock().present.get(worker_id).cloned()
    }

    /// A worker says how loaded it is.
    fn note_load(&self, member: &Member, load: WorkerLoad, now: Instant) {
        member.report(load, now);
        self.router.reported(member.id(), &load);
    }

    /// A worker says what its steps took.
    fn note_work(&self, member: &Member, report: &WorkReport) {
        member.note_work(report);
        self.router.stepped(member.id(), &report.steps);
    }

    /// A worker says what it has cached. What another stream of the same life told counts until this one says otherwise.
    async fn note_cache(&self, member: &Member, report: CacheReport) {
        if member.tracked().is_none() {
            let spec = WorkerSpec {
                model: self.router.model().to_owned(),
                block_tokens: member.block_tokens(),
                same_hashes: member.info.model.as_ref().map(|model| model.revision.clone()),
            };
            if let Some(tracked) = self.router.cache().track(member.id(), spec).await {
                self.router.tracked(member.id(), member.info.incarnation, tracked.number());
                member.set_tracked(tracked);
            }
        }
        if let Some(tracked) = member.tracked() {
            tracked.told(report.begins, report.batch).await;
        }
    }

    /// All members, for people.
    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        self.lock().present.values().cloned().collect()
    }

    /// Whether a gateway would find somebody.
    pub(crate) fn has_gateway_endpoint(&self) -> bool {
        self.router.has_gateway_endpoint()
    }

    /// Longest context that is served: what the workers here were started with, else what the model was made for.
    pub(crate) fn context_tokens(&self) -> Option<u32> {
        let here = self.any_model().map(|model| model.max_context_tokens);
        here.or(self.served.context_tokens).or(self.served.model_context_tokens)
    }

    /// What the largest decode worker holds, in tokens.
    pub(crate) fn largest_capacity_tokens(&self) -> Option<u64> {
        let members = self.lock();
        let decode = members.present.values().filter(|member| member.role() == Role::Decode);
        decode.map(|member| member.capacity_tokens()).max()
    }

    /// `Ok` if a request would be served; else each thing that is missing.
    pub(crate) fn check_ready(&self, is_aggregated: bool) -> Result<(), Vec<String>> {
        let members = self.lock();
        let has =
            |role| members.present.values().any(|member| member.role() == role && !member.is_draining());
        let mut missing = Vec::new();
        if !has(Role::Decode) {
            missing.push("no decode worker with its sidecar has joined".to_owned());
        }
        if !is_aggregated && !has(Role::Prefill) {
            missing.push("no prefill worker has joined".to_owned());
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// Who the decode workers are, now and from now on.
    fn decode_workers(&self) -> watch::Receiver<DecodeWorkers> {
        self.decode_workers.subscribe()
    }

    /// A prefill worker says what came of its pairs. A pair that can never work is somebody's mistake: it is logged, once.
    fn note_pairs(&self, prefill: &Member, report: PairReport) {
        let pairs = Pairs::from(report);
        let former = prefill.set_pairs(pairs.clone());
        for decode in self.lock().of_role(Role::Decode) {
            self.router.paired(prefill.id(), decode.id(), pairs.has(decode.id(), decode.info.incarnation));
            let of = |pairs: &Pairs| pairs.state(decode.id(), decode.info.incarnation);
            let (before, now) = (of(&former), of(&pairs));
            if let (PairState::Refused(why), true) = (&now, before != now) {
                let (field, prefill_has, decode_has) = (&why.field, &why.prefill, &why.decode);
                let (prefill, decode) = (prefill.id(), decode.id());
                tracing::error!(
                    prefill,
                    decode,
                    field,
                    prefill_has,
                    decode_has,
                    "these workers are never paired"
                );
            }
        }
    }

    /// Each prefill worker that is here with each decode worker that is here.
    pub(crate) fn pairs(&self) -> Vec<PairView> {
        let members = self.lock();
        let pairs_of = |prefill: &Arc<Member>| {
            let (id, pairs) = (prefill.info.worker_id.clone(), prefill.pairs());
            let with = move |decode: &Arc<Member>| PairView {
                prefill: id.clone(),
                decode: decode.info.worker_id.clone(),
                state: pairs.state(decode.id(), decode.info.incarnation),
            };
            members.of_role(Role::Decode).map(with).collect::<Vec<_>>()
        };
        members.of_role(Role::Prefill).flat_map(pairs_of).collect()
    }

    /// Brings the gauges up to date.
    pub(crate) fn count_pairs(&self) {
        let pairs = self.pairs();
        for name in PairState::NAMES {
            self.metrics.set_pairs(name, pairs.iter().filter(|pair| pair.state.name() == name).count());
        }
    }

    /// A call to `member` failed just now.
    pub(crate) fn note_failure(&self, member: &Member, now: Instant) {
        member.note_failure(now);
        self.router.failed(member.id());
    }

    /// Tells the router with whom a worker that has just joined is connected.
    fn tell_pairs(&self, members: &Members, member: &Member) {
        let tell = |prefill: &Member, decode: &Member| {
            let is_connected = prefill.pairs().has(decode.id(), decode.info.incarnation);
            self.router.paired(prefill.id(), decode.id(), is_connected);
        };
        match member.role() {
            Role::Decode => members.of_role(Role::Prefill).for_each(|prefill| tell(prefill, member)),
            _ => members.of_role(Role::Decode).for_each(|decode| tell(member, decode)),
        }
    }

    fn any_model(&self) -> Option<ModelInfo> {
        self.lock().present.values().find_map(|member| member.info.model.clone())
    }

    fn changed(&self, members: &Members) {
        for role in [Role::Prefill, Role::Decode] {
            self.metrics.set_workers(role, members.of_role(role).count());
        }
        let list = DecodeWorkers { workers: members.of_role(Role::Decode).map(decode_worker).collect() };
        self.orders.note_news();
        self.decode_workers.send_if_modified(|present| {
            let is_news = *present != list;
            *present = list;
            is_news
        });
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
