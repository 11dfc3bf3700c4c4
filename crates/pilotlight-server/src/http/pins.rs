//! `PUT` and `DELETE` of `/api/pins/KEY`: entries that are not evicted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use pilotlight_cache::{Key, Maintenance, Result as CacheResult};

use super::maintain::maintain;
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
    if maintain(front, move |disk| change(disk, &key)).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(entries::absent())
}
