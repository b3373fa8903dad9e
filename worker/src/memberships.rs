//! Being a member of the fleets of several schedulers: a registration with each, for as long as it is on the list.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use baton_membership::{Attendance, Schedulers};
use baton_proto::v1::{WatchSchedulersRequest, membership_client::MembershipClient};
use baton_tls::Dial;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Endpoint};

use crate::{
    Registration, Rejected,
    registration::{Target, describe, reason_of, registry_endpoint},
    retries::Retries,
    standing::{Standing, State},
};

/// Before one that rejected the worker is asked again, while others have it: it may be replaced.
const REJECTED_PAUSE: Duration = Duration::from_secs(5);

/// Who says which schedulers there are.
#[derive(Clone)]
pub struct Source(Kind);

#[derive(Clone)]
enum Kind {
    Given(Schedulers),
    Sidecar(Box<Endpoint>),
}

/// Keeps a worker in every fleet.
pub struct Memberships {
    registration: Registration,
    source: Source,
}

type Names = BTreeSet<String>;

impl Memberships {
    /// With those that `source` names.
    pub fn new(registration: Registration, source: Source) -> Self {
        Self { registration, source }
    }

    /// Joins every scheduler, those that come later, too, until `leave`.
    ///
    /// # Errors
    /// All schedulers rejected the worker.
    pub async fn run(self, leave: CancellationToken) -> Result<(), Rejected> {
        let Self { registration, source } = self;
        let (list, mut listed) = watch::channel(source.now());
        // The first look at the list is a change.
        listed.mark_changed();
        let mut keeping = pin!(source.clone().keep(list, &registration, leave.clone()));
        let mut is_kept = true;
        // Dropping them ends the tasks; the tokens end them in good order.
        let mut members: JoinSet<(String, Result<(), Rejected>)> = JoinSet::new();
        let mut attendance = Attendance::new(leave.clone());
        loop {
            tokio::select! {
                () = leave.cancelled() => break,
                () = &mut keeping, if is_kept => is_kept = false,
                Ok(()) = listed.changed() => {
                    let names = listed.borrow_and_update().clone();
                    attendance.follow(&names, |name, token| {
                        let Some(target) = source.target(name) else { return false };
                        members.spawn(join(registration.clone(), target, Duration::ZERO, token));
                        true
                    });
                }
                Some(ended) = members.join_next() => {
                    let Ok((name, Err(rejected))) = ended else { continue };
                    if registration.standing().is_rejected_by_all(attendance.names()) {
                        return Err(rejected);
                    }
                    tracing::error!(registry = name, reason = rejected.reason, "rejected; other schedulers have this worker");
                    if let (Some(token), Some(target)) = (attendance.token(&name), source.target(&name)) {
                        members.spawn(join(registration.clone(), target, REJECTED_PAUSE, token.clone()));
                    }
                }
            }
        }
        while members.join_next().await.is_some() {}
        Ok(())
    }
}

async fn join(
    registration: Registration,
    target: Target,
    pause: Duration,
    leave: CancellationToken,
) -> (String, Result<(), Rejected>) {
    tokio::select! {
        () = sleep(pause) => {}
        () = leave.cancelled() => return (target.name, Ok(())),
    }
    let ended = registration.run(&target, leave).await;
    (target.name, ended)
}

impl Source {
    /// The operator.
    pub fn given(schedulers: Schedulers) -> Self {
        Self(Kind::Given(schedulers))
    }

    /// The sidecar at `address`, `HOST:PORT`, which a decode worker joins through.
    ///
    /// # Errors
    /// It is no address.
    pub fn sidecar(address: &str) -> Result<Self, tonic::transport::Error> {
        Ok(Self(Kind::Sidecar(Box::new(registry_endpoint(address)?))))
    }

    fn now(&self) -> Names {
        match &self.0 {
            Kind::Given(schedulers) => schedulers.now(),
            Kind::Sidecar(_) => Names::new(),
        }
    }

    fn target(&self, name: &str) -> Option<Target> {
        let target = match &self.0 {
            Kind::Given(_) => Target::at(name).map_err(|error| describe(&error)),
            Kind::Sidecar(endpoint) => {
                Target::by_way_of(Endpoint::clone(endpoint), name).map_err(|error| error.to_string())
            }
        };
        target
            .inspect_err(|reason| tracing::error!(registry = name, reason, "not joined: this is no address"))
            .ok()
    }

    /// Keeps the list up to date.
    async fn keep(self, list: watch::Sender<Names>, registration: &Registration, leave: CancellationToken) {
        match self.0 {
            Kind::Given(schedulers) => schedulers.keep(list, leave).await,
            Kind::Sidecar(endpoint) => {
                tokio::select! {
                    () = ask_sidecar(&endpoint, registration.dial(), &list, registration.standing()) => {}
                    () = leave.cancelled() => {}
                }
            }
        }
    }
}

/// Asks again when the answer breaks off; until then the last list holds.
async fn ask_sidecar(endpoint: &Endpoint, dial: &Dial, list: &watch::Sender<Names>, standing: &Standing) {
    /// As a scheduler's, in what is said of the worker: none has this name.
    const SIDECAR: &str = "";
    let mut retries = Retries::default();
    loop {
        let mut was_told = false;
        let broken = async {
            let connected = dial.connect(endpoint).await;
            let channel = connected.map_err(|error| Status::unavailable(describe(&error)))?;
            let request = WatchSchedulersRequest {};
            let mut lists = MembershipClient::new(channel).watch_schedulers(request).await?.into_inner();
            while let Some(told) = lists.message().await? {
                standing.forget(SIDECAR);
                was_told = true;
                list.send_replace(told.names.into_iter().collect());
            }
            Err::<(), Status>(Status::unavailable("the sidecar closed the stream"))
        };
        let reason = match broken.await {
            Ok(()) => return,
            Err(status) => reason_of(&status),
        };
        if list.borrow().is_empty() {
            standing.set(SIDECAR, State::Waiting(format!("not registered: {reason}")));
        }
        retries.failed(endpoint, reason, was_told);
        retries.pause().await;
    }
}
