//! `PUT` and `DELETE` of `/api/pins/KEY`: entries that are not evicted.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use pilotlight_cache::{Key, Maintenance, Result as CacheResult};

use super::entries;
use super::maintain::maintain;
use super::problem::Refusal;
use super::rights::ForKey;
use super::router::Front;

type Answer = Result<StatusCode, Refusal>;

/// What stands before every key.
pub(super) const PREFIX: &str = "/api/pins/";

pub(super) async fn pin(State(front): State<Arc<Front>>, Extension(allowed): Extension<ForKey>) -> Answer {
    change(&front, allowed, |disk, key| disk.pin(key)).await
}

pub(super) async fn unpin(State(front): State<Arc<Front>>, Extension(allowed): Extension<ForKey>) -> Answer {
    change(&front, allowed, |disk, key| disk.unpin(key)).await
}

async fn change(
    front: &Front,
    ForKey { key, .. }: ForKey,
    change: impl FnOnce(&dyn Maintenance, &Key) -> CacheResult<bool> + Send + 'static,
) -> Answer {
    if maintain(front, move |disk| change(disk, &key)).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(entries::absent())
}
