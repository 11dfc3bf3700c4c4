//! `pilotlight ls`.

use std::cmp::Reverse;

use pilotlight_cache::{Clock, Namespace, SystemClock};
use pilotlight_server::report::EntryReport;

use super::namespace;
use crate::access::{self, Access};
use crate::cli::{Ls, Order};
use crate::failure::Failure;
use crate::output::{self, Answer, Last};

/// Entries asked for at a time.
const PAGE: usize = 1000;

pub(super) fn run(arguments: &Ls) -> Result<Answer, Failure> {
    let namespace = namespace(&arguments.namespace, &arguments.target)?;
    let access = access::open(&arguments.target)?;
    let entries = collect(arguments, &*access, &namespace)?;
    if arguments.target.json {
        output::json(&entries)?;
        return Ok(Answer::Yes);
    }
    output::data(page(&entries, SystemClock.now_ms()).as_bytes())?;
    if entries.is_empty() && arguments.kind.is_none() && arguments.limit != Some(0) {
        elsewhere(&namespace, &access.about()?.namespaces).into_iter().for_each(output::note);
    }
    Ok(Answer::Yes)
}

/// Where entries may be, if there are none in `namespace`.
fn elsewhere(namespace: &Namespace, all: &[String]) -> Option<String> {
    // The default one has no name, which is typed as a shell's empty word.
    let typed = |name: &str| if name.is_empty() { "''".to_owned() } else { name.escape_debug().to_string() };
    let others: Vec<String> =
        all.iter().filter(|name| *name != namespace.as_str()).map(|name| typed(name)).collect();
    let others = (!others.is_empty()).then(|| others.join(", "))?;
    Some(format!("hint: nothing in the namespace {}; look into another: {others}", typed(namespace.as_str())))
}

fn collect(arguments: &Ls, access: &dyn Access, namespace: &Namespace) -> Result<Vec<EntryReport>, Failure> {
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    let mut cursor = 0;
    loop {
        let page = access.entries(namespace, cursor, PAGE)?;
        let is_wanted = |entry: &EntryReport| arguments.kind.as_ref().is_none_or(|kind| *kind == entry.kind);
        entries.extend(page.entries.into_iter().filter(is_wanted));
        cursor = page.next_cursor;
        // In no order, the first ones found will do; sorted, all must be seen.
        if cursor == 0 || (arguments.sort.is_none() && entries.len() >= limit) {
            break;
        }
    }
    match arguments.sort {
        Some(Order::Size) => entries.sort_by_key(|entry| Reverse(entry.artifact_bytes)),
        Some(Order::Age) => entries.sort_by_key(|entry| Reverse(entry.created_ms)),
        Some(Order::Hits) => entries.sort_by_key(|entry| Reverse(entry.hits)),
        None => {}
    }
    entries.truncate(limit);
    Ok(entries)
}

fn page(entries: &[EntryReport], now_ms: u64) -> String {
    let head = ["kind", "artifact", "stored", "age", "expires in", "hits", "compile", "pinned", "key"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let seconds = |ms: u64| output::seconds((ms / 1000) as f64);
    for entry in entries {
        let expires =
            entry.expires_ms.map_or_else(|| "-".to_owned(), |ms| seconds(ms.saturating_sub(now_ms)));
        let compile = match entry.compile_ms {
            0 => "-".to_owned(),
            ms => output::seconds(f64::from(ms) / 1000.0),
        };
        rows.push(vec![
            entry.kind.clone(),
            output::bytes(entry.artifact_bytes),
            output::bytes(entry.stored_bytes),
            seconds(now_ms.saturating_sub(entry.created_ms)),
            expires,
            entry.hits.to_string(),
            compile,
            if entry.is_pinned { "yes" } else { "-" }.to_owned(),
            // A key may hold anything, also what steers a terminal.
            entry.key.escape_debug().to_string(),
        ]);
    }
    output::table(&rows, Last::Text)
}
