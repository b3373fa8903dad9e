//! What can go wrong with a request: facts that the front knows, which turns them into HTTP.

pub(crate) use baton_front::{
    CallBroken, DeadlinePassed, GenerateError, NeverFits, NoDecodeWorker, NoSuchAdapter, NotNow, Stopping,
    WorkerFailed, WorkerLost,
};
