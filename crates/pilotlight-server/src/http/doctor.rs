//! `GET /api/doctor`: what is wrong with this server.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::maintain::maintain;
use super::problem::{Refusal, json};
use super::router::Front;
use crate::report::{FindingReport, StatsReport};

pub(super) async fn examine(State(front): State<Arc<Front>>) -> Result<Response, Refusal> {
    let mut found = FindingReport::of_checkup(&maintain(&front, |disk| disk.checkup()).await?);
    let stats = front.within("stats", StatsReport::of(&front.server.cache)).await??;
    for (counts, what) in
        [(&stats.refused_puts, "puts were not kept"), (&stats.absorbed_gets, "gets failed, as misses")]
    {
        for (reason, count) in counts {
            let finding = format!("{count} {what} since the start: {reason}");
            let hint = "the server's log says more; `pilotlight stats` shows whether it goes on";
            found.push(FindingReport::note("server", finding, hint));
        }
    }
    Ok(json(StatusCode::OK, &found))
}
