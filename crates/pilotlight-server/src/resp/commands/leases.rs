//! Leases for Pilotlight's own client. What they are for stands in [`pilotlight_cache::leases`].

use std::time::Duration;

use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::leases::{Asks, Part};
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// What a client may ask a lease to last without being renewed, in milliseconds.
const LASTS_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
/// The longest that one command waits, in milliseconds: well below what a request may take.
const WAIT_MS_MAX: u64 = 2_000;

/// `PILOTLIGHT.LEASE key lasts-ms wait-ms [AGAIN]`: who compiles what is not there.
///
/// Answers `lead token` (the client compiles, while it renews and until it puts, releases or disconnects), `look` (it is there now),
/// `alone` (nothing will come: compile), or, after waiting, `wait age-ms longest-ms`: for how long its leader has led it, and
/// what the longest of the latest such compiles took, -1 if unknown.
pub(crate) async fn lease(session: &mut Session, args: &Args) -> Outcome {
    let key = session.short_key(args.at(1)?)?;
    let (lasts_ms, wait_ms) = (millis(args, 2)?, millis(args, 3)?);
    let is_again = match args.from(4) {
        [] => false,
        [option] if is(option, "again") => true,
        _ => return Err(Fault::SYNTAX),
    };
    if !key.kind().is_leasable() {
        return Ok(alone());
    }
    if let Some(leader) = session.led(&key).filter(|leader| leader.renew()) {
        let token = leader.token();
        return Ok(answer("lead", [token.number()]));
    }
    let lasts = Duration::from_millis(lasts_ms.clamp(*LASTS_MS.start(), *LASTS_MS.end()));
    let limit = Duration::from_millis(if session.may_wait { wait_ms.min(WAIT_MS_MAX) } else { 0 });
    let asks = Asks { is_stock: false, is_again: is_again || limit.is_zero() };
    let mut part = session.part(&key, lasts, limit, asks).await;
    if part == Part::Lead && session.is_stored(&key).await {
        session.found(&key);
        part = Part::Look;
    }
    let leases = session.server().cache.leases();
    Ok(match part {
        Part::Lead => answer("lead", session.led(&key).map(|leader| leader.token().number())),
        Part::Look => answer("look", []),
        Part::Alone => alone(),
        Part::Wait => {
            let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            let longest = leases.longest(key.kind());
            answer("wait", [leases.age(&key).map_or(0, millis), longest.map_or(-1, millis)])
        }
    })
}

/// `PILOTLIGHT.RENEW key token`: the client that leads lives. 1 if it still leads.
pub(crate) fn renew(session: &mut Session, args: &Args) -> Outcome {
    let (key, token) = (session.short_key(args.at(1)?)?, args.integer(2)?);
    let leader = session.led(&key).filter(|leader| leader.token().number() == token);
    Ok(Reply::flag(leader.is_some_and(|leader| leader.renew())))
}

/// `PILOTLIGHT.RELEASE key token`: nothing will be put, and nobody need wait for it. 1 if this client led.
pub(crate) fn release(session: &mut Session, args: &Args) -> Outcome {
    let (key, token) = (session.short_key(args.at(1)?)?, args.integer(2)?);
    let is_led = session.led(&key).is_some_and(|leader| leader.token().number() == token && leader.leads());
    Ok(Reply::flag(session.give_up(&key) && is_led))
}

/// Nothing will come: compile.
pub(crate) fn alone() -> Reply {
    answer("alone", [])
}

fn millis(args: &Args, index: usize) -> Result<u64, Fault> {
    u64::try_from(args.integer(index)?).map_err(|_| Fault::NOT_AN_INTEGER)
}

fn answer(word: &'static str, numbers: impl IntoIterator<Item = i64>) -> Reply {
    let numbers = numbers.into_iter().map(Reply::Integer);
    Reply::Array(std::iter::once(Reply::text(word)).chain(numbers).collect())
}
