//! `pilotlight quarantine`.

use pilotlight_cache::{Clock, SystemClock};
use pilotlight_server::report::SetAsideReport;

use crate::access;
use crate::cli::{Quarantine, QuarantineLs, QuarantinePurge};
use crate::failure::Failure;
use crate::output::{self, Answer, Last};

pub(super) fn run(action: &Quarantine) -> Result<Answer, Failure> {
    match action {
        Quarantine::Ls(arguments) => ls(arguments),
        Quarantine::Purge(arguments) => purge(arguments),
    }
}

fn ls(arguments: &QuarantineLs) -> Result<Answer, Failure> {
    let aside = access::open(&arguments.target)?.quarantine()?;
    if arguments.target.json {
        output::json(&aside)?;
    } else if aside.is_empty() {
        output::note("nothing was set aside");
    } else {
        output::data(page(&aside, SystemClock.now_ms()).as_bytes())?;
    }
    Ok(Answer::Yes)
}

fn purge(arguments: &QuarantinePurge) -> Result<Answer, Failure> {
    let before_ms = arguments
        .older_than
        .map(|age| SystemClock.now_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
    let purged = access::open(&arguments.target)?.purge_quarantine(before_ms)?;
    if arguments.target.json {
        output::json(&purged)?;
    } else {
        let (count, freed) = (output::count(purged.count, "entry"), output::bytes(purged.freed_bytes));
        output::note(format_args!("purged {count}, {freed} freed"));
    }
    Ok(Answer::Yes)
}

fn page(aside: &[SetAsideReport], now_ms: u64) -> String {
    let head = ["kind", "bytes", "age", "kept", "key and reason"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in aside {
        let age = one
            .set_aside_ms
            .map_or_else(|| "-".to_owned(), |ms| output::seconds((now_ms.saturating_sub(ms) / 1000) as f64));
        let key = one.key.as_deref().unwrap_or("(key unknown)").escape_debug();
        rows.push(vec![
            one.kind.clone().unwrap_or_else(|| "-".to_owned()),
            output::bytes(one.bytes),
            age,
            if one.is_kept { "yes" } else { "-" }.to_owned(),
            format!("{key}: {}", one.reason.escape_debug()),
        ]);
    }
    output::table(&rows, Last::Text)
}
