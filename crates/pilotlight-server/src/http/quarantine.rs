//! `GET` and `DELETE` of `/api/quarantine`: what was set aside because it failed its check.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::key;
use super::maintain::maintain;
use super::problem::{Refusal, json};
use super::router::Front;
use crate::report::{PurgedReport, SetAsideReport};

pub(super) async fn list(State(front): State<Arc<Front>>) -> Result<Response, Refusal> {
    let aside = maintain(&front, |disk| disk.quarantine()).await?;
    let report: Vec<SetAsideReport> = aside.iter().map(SetAsideReport::of).collect();
    Ok(json(StatusCode::OK, &report))
}

pub(super) async fn purge(State(front): State<Arc<Front>>, uri: Uri) -> Result<Response, Refusal> {
    let before_ms = match key::parameter(&uri, "before_ms")? {
        None => None,
        Some(_) => Some(key::number(&uri, "before_ms", 0)?),
    };
    let purged = maintain(&front, move |disk| disk.purge_quarantine(before_ms)).await?;
    Ok(json(StatusCode::OK, &PurgedReport::from(purged)))
}
