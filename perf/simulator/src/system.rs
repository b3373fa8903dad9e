//! The fleet that is simulated, and how it is run.

use std::sync::Arc;

use baton_policy::{
    admission,
    profile::Profile as RoutingProfile,
    view::{Objective, Role},
};
use baton_profile::{Profile, ValueError};

/// What is simulated.
#[derive(Clone, Debug)]
pub struct System {
    /// The workers, each with the profile that says what work takes it.
    pub workers: Vec<Worker>,
    /// Who decides where a request goes.
    pub routing: Routing,
    /// Whether workers keep what they computed for prompts that begin the same.
    pub prefix_cache: bool,
    /// Tokens that clients allow for an answer; none: as many as it has. Routing sees this, never how long an answer will be.
    pub max_tokens: Option<u32>,
    /// A request that has not ended so long after it was sent ends then, ms.
    pub deadline_ms: Option<f64>,
    /// Workers that change what they do.
    pub changes: Vec<RoleChange>,
    /// Of whatever is left to chance.
    pub seed: u64,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// [`Role::Prefill`]: computes prompts for others. [`Role::Decode`]: generates, and computes prompts if it is told to; alone it is an aggregated
    /// worker. [`Role::Both`]: either.
    pub role: Role,
    /// What work takes.
    pub profile: Arc<Profile>,
}

/// Who decides where a request goes.
#[derive(Clone, Debug)]
pub enum Routing {
    /// In turn; prompts always to prefill workers, if there are any. Nobody is refused.
    RoundRobin,
    /// To the prefill worker with fewest prompt tokens and the decode worker with fewest requests. Nobody is refused.
    LeastLoaded,
    /// The scheduler's own code, `baton-policy`: estimates, learning, admission.
    Baton {
        /// How it decides.
        profile: Box<RoutingProfile>,
        /// Whom it lets in.
        admission: Box<admission::Limits>,
    },
}

/// A worker gets another role: it takes nothing new, ends what it has, starts anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoleChange {
    /// When it is told, ms.
    pub at_ms: f64,
    /// Which worker.
    pub worker: usize,
    /// What it will be.
    pub role: Role,
}

/// A system that can't be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SystemError {
    /// Nobody generates.
    #[error("no worker generates: a system needs at least one decode or aggregated worker")]
    NobodyDecodes,
    /// Too many.
    #[error("{0} workers are more than the {MOST_WORKERS} that can be simulated")]
    TooMany(usize),
    /// A change of a worker that is not there, or at no time.
    #[error(
        "role change {0}: it must name a worker of the system, and a time that is finite and not negative"
    )]
    Change(usize),
    /// A profile's number that can't be.
    #[error("worker {worker}: in its profile, {source}")]
    Profile {
        /// Whose.
        worker: usize,
        /// Which number.
        source: ValueError,
    },
}

const MOST_WORKERS: usize = 4_096;

impl Routing {
    /// The scheduler's defaults.
    #[must_use]
    pub fn baton() -> Self {
        Self::Baton { profile: Box::default(), admission: Box::default() }
    }

    /// The same, and every request is promised `objective`, as by the scheduler's `--slo-ttft-ms` and `--slo-tpot-ms`. Others than Baton's promise nothing.
    #[must_use]
    pub fn promising(mut self, objective: Objective) -> Self {
        if let Self::Baton { admission, .. } = &mut self {
            admission.objective = objective;
        }
        self
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
            Self::Baton { .. } => "baton",
        }
    }
}

impl System {
    /// `prefill` prefill workers, then `decode` decode workers, all like `profile`; without prefill workers they are aggregated ones.
    #[must_use]
    pub fn of(profile: &Arc<Profile>, prefill: usize, decode: usize) -> Self {
        let worker = |role| Worker { role, profile: profile.clone() };
        let prefill = std::iter::repeat_n(worker(Role::Prefill), prefill);
        Self {
            workers: prefill.chain(std::iter::repeat_n(worker(Role::Decode), decode)).collect(),
            routing: Routing::baton(),
            prefix_cache: true,
            max_tokens: None,
            deadline_ms: None,
            changes: Vec::new(),
            seed: 0,
        }
    }

    /// The same, placed otherwise.
    #[must_use]
    pub fn with_routing(mut self, routing: Routing) -> Self {
        self.routing = routing;
        self
    }

    pub(crate) fn check(&self) -> Result<(), SystemError> {
        if self.workers.len() > MOST_WORKERS {
            return Err(SystemError::TooMany(self.workers.len()));
        }
        if !self.workers.iter().any(|worker| worker.role != Role::Prefill) {
            return Err(SystemError::NobodyDecodes);
        }
        for (index, change) in self.changes.iter().enumerate() {
            if change.worker >= self.workers.len() || !change.at_ms.is_finite() || change.at_ms < 0.0 {
                return Err(SystemError::Change(index));
            }
        }
        for (worker, Worker { profile, .. }) in self.workers.iter().enumerate() {
            profile.check().map_err(|source| SystemError::Profile { worker, source })?;
        }
        Ok(())
    }
}
