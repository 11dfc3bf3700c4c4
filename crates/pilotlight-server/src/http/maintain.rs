//! Work of an operator's on the disk tier, off the event loop.

use std::sync::Arc;

use axum::http::StatusCode;
use pilotlight_cache::{Maintenance, Result as CacheResult};

use super::problem::Refusal;
use super::router::Front;

/// What an operator can ask of the disk tier, where there is one.
pub(super) fn maintenance(front: &Front) -> Result<Arc<dyn Maintenance>, Refusal> {
    let maintenance = front.server.maintenance.clone();
    maintenance
        .ok_or_else(|| Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server keeps nothing on a disk"))
}

/// Does `work`, which may wait for the disk, where that holds nobody up.
pub(super) async fn maintain<T: Send + 'static>(
    front: &Front,
    work: impl FnOnce(&dyn Maintenance) -> CacheResult<T> + Send + 'static,
) -> Result<T, Refusal> {
    let maintenance = maintenance(front)?;
    match tokio::task::spawn_blocking(move || work(&*maintenance)).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
