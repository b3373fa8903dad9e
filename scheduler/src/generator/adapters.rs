//! Orders to load and unload adapters, seen through to their end.

use std::time::Duration;

use baton_front::AdapterRefused;
use tokio::time::timeout;

use crate::fleet::{Fleet, OrderRefused};

/// For workers to read an adapter; one that takes longer is withdrawn.
const LOAD_PATIENCE: Duration = Duration::from_secs(120);

/// Has all workers load the adapter in `path`.
pub(super) async fn load(fleet: &Fleet, name: &str, path: &str) -> Result<(), AdapterRefused> {
    if fleet.members().is_empty() {
        return Err(AdapterRefused::NotReady("no worker has joined".to_owned()));
    }
    let number = fleet.order_load(name, path).map_err(refused)?;
    let withdrawal = Withdrawal { fleet, name, is_due: true };
    let problems = match timeout(LOAD_PATIENCE, fleet.carried_out(name, number)).await {
        Ok(problems) => problems,
        Err(_) => vec![format!("not loaded within {} s", LOAD_PATIENCE.as_secs())],
    };
    if !problems.is_empty() {
        return Err(AdapterRefused::BadPath(problems.join("; ")));
    }
    let revisions = fleet.revisions_of(name);
    if revisions.len() > 1 {
        let message = format!("the workers read different adapters from {path}: revisions {revisions:?}");
        return Err(AdapterRefused::BadPath(message));
    }
    withdrawal.forget();
    Ok(())
}

/// Has all workers unload an adapter.
pub(super) async fn unload(fleet: &Fleet, name: &str) -> Result<(), AdapterRefused> {
    let number = fleet.order_unload(name).map_err(refused)?;
    // Whoever is slow does it later; the order stands.
    let _ = timeout(LOAD_PATIENCE, fleet.carried_out(name, number)).await;
    Ok(())
}

fn refused(refused: OrderRefused) -> AdapterRefused {
    let message = refused.to_string();
    match refused {
        OrderRefused::AlreadyLoaded(_) | OrderRefused::TooMany => AdapterRefused::BadName(message),
        OrderRefused::NotFound(_) => AdapterRefused::NotFound(message),
    }
}

/// All workers have an adapter or none: takes the order back when dropped before it was carried out everywhere, also when the
/// client has gone.
struct Withdrawal<'a> {
    fleet: &'a Fleet,
    name: &'a str,
    is_due: bool,
}

impl Withdrawal<'_> {
    fn forget(mut self) {
        self.is_due = false;
    }
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if self.is_due {
            // There is room for it: it takes the place of the order to load.
            let _ = self.fleet.order_unload(self.name);
        }
    }
}
