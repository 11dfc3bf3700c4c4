//! `PUT` and `DELETE` of `/api/pins/KEY`: entries that are not evicted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use pilotlight_cache::{Key, Maintenance, Result as CacheResult};

use super::problem::Refusal;
use super::router::Front;
use super::{entries, key};

/// What stands before every key.
const PREFIX: &str = "/api/pins/";

pub(super) async fn pin(State(front): State<Arc<Front>>, uri: Uri) -> Result<StatusCode, Refusal> {
    change(&front, &uri, |disk, key| disk.pin(key)).await
}

pub(super) async fn unpin(State(front): State<Arc<Front>>, uri: Uri) -> Result<StatusCode, Refusal> {
    change(&front, &uri, |disk, key| disk.unpin(key)).await
}

async fn change(
    front: &Front,
    uri: &Uri,
    change: impl FnOnce(&dyn Maintenance, &Key) -> CacheResult<bool> + Send + 'static,
) -> Result<StatusCode, Refusal> {
    let key = key::behind(PREFIX, uri)?;
    let Some(maintenance) = front.server.maintenance.clone() else {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server keeps nothing on a disk"));
    };
    // It reads the entry and writes its record: off the event loop.
    let changed = tokio::task::spawn_blocking(move || change(&*maintenance, &key)).await;
    match changed {
        Ok(Ok(true)) => Ok(StatusCode::NO_CONTENT),
        Ok(Ok(false)) => Err(entries::absent()),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
