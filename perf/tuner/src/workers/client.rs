//! Load on a fleet, and questions to its scheduler.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use baton_load::{
    ApiShape, Bench, Extras, Form, Limits, Manner, Setup, Target,
    modes::{self, Measure},
    trim,
};
use baton_results::{Document, Record, Slo};
use baton_workload::{Content, IdContent, TextContent, Workload};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Map;
use tokio_util::sync::CancellationToken;

use super::{WorkersError, steps::Told};

/// A scheduler, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its front.
    pub target: Target,
    /// An operator's key, if it asks for one.
    pub api_key: Option<String>,
    /// Certificates that its own is checked against, if not the system's.
    pub ca: Option<PathBuf>,
}

/// Speaks to one fleet.
pub(crate) struct Client {
    bench: Bench,
    made: Content,
    /// As it was at first.
    pub(crate) told: Told,
}

/// Token ids that are sent: the first ones, as a model may have more than its tokenizer.
const IDS: u32 = 256;
/// Of prompts' content, which does not matter.
const SEED: u64 = 1;

impl Client {
    /// Finds the fleet ready.
    ///
    /// # Errors
    /// [`WorkersError`].
    pub(crate) fn open(server: &Server) -> Result<Self, WorkersError> {
        let key = server.api_key.iter().map(|key| ("authorization".to_owned(), format!("Bearer {key}")));
        let manner = Manner {
            shape: ApiShape::Completion,
            model: String::new(),
            is_stream: true,
            extras: Extras::ALL,
            body: Map::new(),
            headers: key.collect(),
        };
        let bench = Bench::open(Setup {
            target: server.target.clone(),
            ca: server.ca.clone(),
            manner,
            limits: Limits::default(),
            token_ends: None,
            asks_for_phases: true,
        })?;
        let told: Told = get(&bench, "/v1/steps")?;
        let vocabulary = told.workers.first().ok_or(WorkersError::NoWorkers)?.model.vocab_size.min(IDS);
        let made = Content {
            tokenizer: None,
            text: TextContent::with_common_words(1.0, SEED),
            ids: Some(IdContent::with_vocabulary(vocabulary, SEED)?),
        };
        Ok(Self { bench, made, told })
    }

    /// Sends what `workload` plans, and waits for the answers, which should meet `slo`. `name` is shown beside its progress, if there is one.
    ///
    /// # Errors
    /// [`WorkersError`].
    pub(crate) fn run(
        &self,
        workload: &Workload,
        slo: Slo,
        name: Option<String>,
    ) -> Result<Document, WorkersError> {
        let measure = Measure {
            shows_progress: name.is_some(),
            name: name.unwrap_or_default(),
            command: Vec::new(),
            form: Form::TokenIds,
            // No run finds in caches what another has left there.
            made: Arc::new(self.made.in_round(workload.seed)),
            slo,
            trim: trim(Duration::ZERO, Duration::ZERO),
            warm_up_requests: 0,
            notes: BTreeMap::new(),
            // What the client adds is part of what is measured here.
            calibrates: false,
            interrupt: CancellationToken::new(),
        };
        Ok(modes::run(&self.bench, workload, &measure)?)
    }

    /// What workers' steps took.
    ///
    /// # Errors
    /// [`WorkersError`].
    pub(crate) fn steps(&self) -> Result<Told, WorkersError> {
        get(&self.bench, "/v1/steps")
    }

    /// The scheduler's last records.
    ///
    /// # Errors
    /// [`WorkersError`].
    pub(crate) fn decisions<T: DeserializeOwned>(&self) -> Result<Vec<T>, WorkersError> {
        #[derive(Deserialize)]
        struct List<T> {
            data: Vec<T>,
        }
        Ok(get::<List<T>>(&self.bench, "/v1/decisions")?.data)
    }

    /// The scheduler's record of a request.
    pub(crate) fn decision<T: DeserializeOwned>(&self, record: &Record) -> Option<T> {
        let id = record.server_id.as_deref()?;
        get(&self.bench, &format!("/v1/decisions/{id}")).ok()
    }
}

fn get<T: DeserializeOwned>(bench: &Bench, path: &str) -> Result<T, WorkersError> {
    let body = bench.get(path)?;
    serde_json::from_slice(&body).map_err(|source| WorkersError::Unreadable { path: path.to_owned(), source })
}
