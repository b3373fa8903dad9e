//! Who asks: the keys in force, and what each call of a front begins with.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use baton_process::Metrics;
use tokio_util::sync::CancellationToken;

use crate::{
    About, Call, Clock, KeyFileError, KeyHash, Now, Refusal, Secret, SystemClock, TenancyArgs,
    audit::{self, AuditError},
    call::Recorder,
    key::{ANONYMOUS, Bearer, Holders, KeyTerms, bearer},
    limit::{Limited, Limiter, Limits, rate_headers},
    metrics::{KeyLabels, ReasonLabels, TenancyMetrics, Usage},
    reload::KeySource,
};

/// Keys or audit log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// No key can be made up for comparison.
    #[error("the system gives no random numbers")]
    Random(#[from] std::io::Error),
}

/// The keys, limits, usage and audit log of a front. Clones share them.
#[derive(Clone)]
pub struct Tenancy(Arc<Inner>);

struct Inner {
    keys: RwLock<Arc<Keys>>,
    source: KeySource,
    decoy: KeyHash,
    recorder: Arc<Recorder>,
    clock: Arc<dyn Clock>,
    metrics: TenancyMetrics,
}

/// All keys of one state of the key file.
struct Keys {
    holders: Holders<Arc<Holder>>,
    /// Who comes without a key, if that is allowed.
    anonymous: Option<Arc<Holder>>,
    /// No keys are configured: whoever comes is anonymous, whatever they send.
    is_open: bool,
}

/// A key's holder.
pub(crate) struct Holder {
    labels: KeyLabels,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) usage: Usage,
    terms: KeyTerms,
}

/// Who asks.
#[derive(Clone)]
pub struct Tenant(pub(crate) Arc<Holder>);

impl Tenancy {
    /// Reads the keys and opens the audit log.
    ///
    /// # Errors
    /// [`TenancyError`], for a person to read.
    pub fn open(args: &TenancyArgs, metrics: &Metrics) -> Result<Self, TenancyError> {
        Self::open_with_clock(args, metrics, Arc::new(SystemClock))
    }

    /// [`Tenancy::open`] by another clock: for tests.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub fn open_with_clock(
        args: &TenancyArgs,
        metrics: &Metrics,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TenancyError> {
        let metrics = TenancyMetrics::register(metrics);
        let source = KeySource::new(args.api_keys_file.clone(), args.api_key.clone());
        let terms = source.read_first()?;
        let decoy = KeyHash::of(&Secret::generate()?)?;
        let keys = Keys::new(terms, None, &decoy, clock.now(), &metrics)?;
        let room = usize::try_from(args.audit_queue).unwrap_or(usize::MAX);
        let log = args.audit_log.as_deref().map(|path| audit::open(path, room, metrics.audit.clone()));
        let recorder = Arc::new(Recorder {
            log: log.transpose()?,
            is_strict: args.audit_strict,
            has_clients: args.audit_clients,
            has_prompts: args.audit_prompts,
            strangers: Limiter::new(Recorder::STRANGERS, clock.now().instant),
            metrics: metrics.clone(),
        });
        Ok(Self(Arc::new(Inner {
            keys: RwLock::new(Arc::new(keys)),
            source,
            decoy,
            recorder,
            clock,
            metrics,
        })))
    }

    /// Everybody is served, and nothing recorded: for a front behind a gateway that knows its clients.
    pub fn open_to_all() -> Self {
        let (clock, metrics) = (SystemClock, TenancyMetrics::default());
        let now = clock.now();
        let decoy = KeyHash::of_nothing();
        let recorder = Recorder {
            log: None,
            is_strict: false,
            has_clients: false,
            has_prompts: false,
            strangers: Limiter::new(Recorder::STRANGERS, now.instant),
            metrics: metrics.clone(),
        };
        Self(Arc::new(Inner {
            keys: RwLock::new(Arc::new(Keys::open(&decoy, &metrics, now))),
            source: KeySource::new(None, Vec::new()),
            decoy,
            recorder: Arc::new(recorder),
            clock: Arc::new(clock),
            metrics,
        }))
    }

    /// Who an `Authorization` header is of. Nothing is counted or limited: for questions that cost nothing, such as which models
    /// there are.
    ///
    /// # Errors
    /// A [`Refusal`] with status 401.
    pub fn identify(&self, authorization: Option<&[u8]>) -> Result<Tenant, Refusal> {
        let found = self.keys().find(authorization, self.0.clock.now().wall);
        if let Err(refusal) = &found {
            self.0.recorder.count(refusal);
        }
        found
    }

    /// A request has come, and its headers are read: finds out whose it is, and takes one of that key's requests and places.
    ///
    /// # Errors
    /// A [`Refusal`]: 401, 429, or 503 when it could not be recorded.
    pub fn begin(&self, authorization: Option<&[u8]>, about: About) -> Result<Call, Refusal> {
        let now = self.0.clock.now();
        let tenant = match self.keys().find(authorization, now.wall) {
            Ok(tenant) => tenant,
            Err(refusal) => {
                self.0.recorder.record_stranger(&refusal, &about, now);
                return Err(refusal);
            }
        };
        Call::begin(tenant, about, self.0.recorder.clone(), self.0.clock.clone(), now)
    }

    /// [`Tenancy::identify`], for what only operators may see or do.
    ///
    /// # Errors
    /// A [`Refusal`] with status 401 or 403.
    pub fn identify_admin(&self, authorization: Option<&[u8]>) -> Result<Tenant, Refusal> {
        let tenant = self.identify(authorization)?;
        match tenant.check_admin() {
            Ok(()) => Ok(tenant),
            Err(refusal) => {
                self.0.recorder.count(&refusal);
                Err(refusal)
            }
        }
    }

    /// `x-ratelimit-…` headers for an answer, as far as the tenant's key has limits.
    pub fn rates(&self, tenant: &Tenant) -> Vec<(&'static str, String)> {
        rate_headers(tenant.0.limiter.rates(self.0.clock.now().instant))
    }

    /// Whether there are keys, or terms for those without one: else everybody is served, whatever they send.
    pub fn knows_tenants(&self) -> bool {
        !self.keys().is_open
    }

    /// Whether requests need a key.
    pub fn needs_key(&self) -> bool {
        self.keys().anonymous.is_none()
    }

    /// Looks at the key file again and again, until `until`. A version that cannot be used is logged and counted, and changes
    /// nothing.
    pub async fn keep_fresh(self, until: CancellationToken) {
        let (source, metrics) = (&self.0.source, &self.0.metrics);
        source.watch(&metrics.reloads, |terms| self.replace(terms), until).await;
    }

    fn replace(&self, terms: Vec<KeyTerms>) -> Result<(), KeyFileError> {
        let former = self.keys();
        let keys = Keys::new(terms, Some(&former), &self.0.decoy, self.0.clock.now(), &self.0.metrics)?;
        let kept: BTreeSet<&KeyLabels> = keys.all().map(|holder| &holder.labels).collect();
        for gone in former.all().filter(|holder| !kept.contains(&holder.labels)) {
            self.0.metrics.forget(&gone.labels);
        }
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    fn keys(&self) -> Arc<Keys> {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Keys {
    /// Limiters of `former` keys of the same name go on.
    fn new(
        terms: Vec<KeyTerms>,
        former: Option<&Self>,
        decoy: &KeyHash,
        now: Now,
        metrics: &TenancyMetrics,
    ) -> Result<Self, KeyFileError> {
        let former: HashMap<&str, &Arc<Holder>> = former
            .into_iter()
            .flat_map(Self::all)
            .map(|holder| (holder.terms.name.as_str(), holder))
            .collect();
        let is_open = terms.is_empty();
        if is_open {
            return Ok(Self::open(decoy, metrics, now));
        }
        let mut keys = Self { holders: Holders::new(decoy.clone()), anonymous: None, is_open };
        let mut limits = Vec::new();
        for terms in terms {
            let limiter = match former.get(terms.name.as_str()) {
                Some(former) => former.limiter.clone(),
                None => Arc::new(Limiter::new(Limits::default(), now.instant)),
            };
            limits.push((limiter.clone(), terms.limits));
            let labels = KeyLabels { key: terms.name.clone(), team: terms.team.clone() };
            let hash = terms.hash.clone();
            let usage = metrics.usage(&labels);
            let holder = Arc::new(Holder { labels, limiter, usage, terms });
            match hash {
                None => keys.anonymous = Some(holder),
                Some(hash) => {
                    if let Some(other) = keys.holders.insert(hash, holder.clone()) {
                        let (one, other) = (&other.terms.name, &holder.terms.name);
                        let message = format!(
                            "{one} and {other} have the same key: make one for each with `baton key new`"
                        );
                        return Err(KeyFileError(message));
                    }
                }
            }
        }
        // Only now: nothing may change of those in force if these can't be used.
        for (limiter, limits) in limits {
            limiter.set(limits, now.instant);
        }
        metrics.keys.set(i64::try_from(keys.holders.values().count()).unwrap_or(i64::MAX));
        Ok(keys)
    }

    /// No keys: everybody may do everything.
    fn open(decoy: &KeyHash, metrics: &TenancyMetrics, now: Now) -> Self {
        let labels = KeyLabels { key: ANONYMOUS.to_owned(), team: String::new() };
        let everybody = Holder {
            limiter: Arc::new(Limiter::new(Limits::default(), now.instant)),
            usage: metrics.usage(&labels),
            terms: KeyTerms { is_admin: true, ..KeyTerms::unlimited(ANONYMOUS, None) },
            labels,
        };
        Self { holders: Holders::new(decoy.clone()), anonymous: Some(Arc::new(everybody)), is_open: true }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Holder>> {
        self.holders.values().chain(&self.anonymous)
    }

    fn find(&self, authorization: Option<&[u8]>, now: SystemTime) -> Result<Tenant, Refusal> {
        let credential = if self.is_open { Bearer::Nothing } else { bearer(authorization) };
        let holder = match credential {
            Bearer::Nothing => self.anonymous.as_ref().ok_or(Refusal::NoKey)?,
            Bearer::Key(key) => self.holders.find(key).ok_or(Refusal::UnknownKey)?,
            Bearer::Nonsense => return Err(Refusal::UnknownKey),
        };
        let KeyTerms { name, is_disabled, expires, .. } = &holder.terms;
        if *is_disabled {
            return Err(Refusal::Disabled { name: name.clone() });
        }
        match expires {
            Some(at) if *at <= now => Err(Refusal::Expired { name: name.clone(), at: *at }),
            _ => Ok(Tenant(holder.clone())),
        }
    }
}

impl Tenant {
    /// Its key's name; "anonymous" without key.
    pub fn name(&self) -> &str {
        &self.0.terms.name
    }

    /// Its team; empty: none.
    pub fn team(&self) -> &str {
        &self.0.terms.team
    }

    /// Whose turn is first, when not all can be served: the higher one's.
    pub fn priority(&self) -> i32 {
        self.0.terms.priority
    }

    /// Its share, beside others of its priority, when not all can be served.
    pub fn weight(&self) -> u32 {
        self.0.terms.weight
    }

    /// Whether it may use this model or adapter.
    pub fn may_use(&self, model: &str) -> bool {
        self.0.terms.models.as_ref().is_none_or(|models| models.contains(model))
    }

    pub(crate) fn check_admin(&self) -> Result<(), Refusal> {
        let refusal = || Refusal::NoAdmin { name: self.name().to_owned() };
        self.0.terms.is_admin.then_some(()).ok_or_else(refusal)
    }

    pub(crate) fn limit(&self, limited: Limited, now: Now) -> Refusal {
        let left = rate_headers(self.0.limiter.rates(now.instant));
        Refusal::Limit { name: self.name().to_owned(), limited, left }
    }

    pub(crate) fn check_model(&self, model: &str) -> Result<(), Refusal> {
        match &self.0.terms.models {
            Some(models) if !models.contains(model) => Err(Refusal::Model {
                name: self.name().to_owned(),
                model: model.to_owned(),
                allowed: models.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
            }),
            _ => Ok(()),
        }
    }
}

impl Recorder {
    /// Of those whose key is not known, so many lines a minute: they must not fill the disk.
    const STRANGERS: Limits =
        Limits { requests_per_minute: Some(60), tokens_per_minute: None, max_concurrent: None };

    pub(crate) fn count(&self, refusal: &Refusal) {
        self.metrics.refusals.get_or_create(&ReasonLabels { reason: refusal.code() }).inc();
    }
}
