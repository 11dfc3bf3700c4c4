//! `POST /api/verify`: checks every entry. `POST /api/gc`: collects what nobody needs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use pilotlight_cache::Collect;

use super::problem::Refusal;
use super::router::Front;
use super::{jobs, key};
use crate::report::{CheckedReport, CollectedReport};

pub(super) async fn run(State(front): State<Arc<Front>>) -> Result<Response, Refusal> {
    jobs::run(&front, |disk, teller| {
        let report = disk.verify(&mut |report| teller.tell(|| CheckedReport::progress(report)))?;
        Ok(CheckedReport::of(&report))
    })
}

pub(super) async fn collect(State(front): State<Arc<Front>>, uri: Uri) -> Result<Response, Refusal> {
    let what = if key::flag(&uri, "dry_run")? { Collect::Plan } else { Collect::Run };
    jobs::run(&front, move |disk, teller| {
        let tell = &mut |found: &_| teller.tell(|| CollectedReport::from(*found));
        Ok(CollectedReport::from(disk.collect(what, tell)?))
    })
}
