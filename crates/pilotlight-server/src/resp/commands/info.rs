//! `INFO`.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use pilotlight_cache::{Outcome as CacheOutcome, Usage};

use super::connection::REDIS_VERSION;
use crate::access::Right;
use crate::resp::command::{Args, Outcome};
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// The sections, in the order they are shown in.
const SECTIONS: [&str; 9] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "cpu", "cluster", "keyspace"];

pub(crate) async fn info(session: &mut Session, args: &Args) -> Outcome {
    let asked: Vec<String> =
        args.from(1).iter().map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
    let is_all =
        asked.is_empty() || asked.iter().any(|name| ["all", "default", "everything"].contains(&&**name));
    let usage = session.server().cache.usage(None).await?;
    let mut text = String::new();
    for section in SECTIONS {
        if !is_all && !asked.iter().any(|name| name == section) {
            continue;
        }
        if ["memory", "stats"].contains(&section) && !session.standing.sees_sums() {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let mut title = section.to_owned();
        if section == "cpu" {
            title = "CPU".to_owned();
        } else if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        line(&mut text, format_args!("# {title}"));
        match section {
            "server" => server(session, &mut text),
            "clients" => clients(session, &mut text),
            "memory" => memory(&usage, &mut text),
            "persistence" => persistence(session, &mut text),
            "stats" => stats(session, &usage, &mut text),
            "replication" => replication(&mut text),
            "cpu" => cpu(&mut text),
            "cluster" => line(&mut text, format_args!("cluster_enabled:0")),
            _ => keyspace(session, &mut text).await?,
        }
    }
    Ok(Reply::Verbatim(text.into()))
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(arguments);
    text.push_str("\r\n");
}

fn server(session: &Session, text: &mut String) {
    let uptime_seconds = session.server().started.elapsed().as_secs();
    line(text, format_args!("redis_version:{REDIS_VERSION}"));
    line(text, format_args!("redis_mode:standalone"));
    line(text, format_args!("pilotlight_version:{}", env!("CARGO_PKG_VERSION")));
    if let Some(address) = session.server().http.first() {
        line(text, format_args!("pilotlight_http:{address}"));
    }
    if let Some(address) = session.server().https.first() {
        line(text, format_args!("pilotlight_https:{address}"));
    }
    line(text, format_args!("os:{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(text, format_args!("arch_bits:{}", usize::BITS));
    line(text, format_args!("process_id:{}", std::process::id()));
    line(text, format_args!("run_id:{:040x}", session.shared().run_id));
    line(text, format_args!("server_time_usec:{}", session.now_ms().saturating_mul(1000)));
    line(text, format_args!("uptime_in_seconds:{uptime_seconds}"));
    line(text, format_args!("uptime_in_days:{}", uptime_seconds / 86_400));
    line(text, format_args!("io_threads_active:{}", session.server().config.cores.max(1)));
}

fn clients(session: &Session, text: &mut String) {
    let server = session.server();
    line(text, format_args!("connected_clients:{}", session.shared().clients.count()));
    line(text, format_args!("maxclients:{}", server.config.connections_max));
    line(text, format_args!("blocked_clients:0"));
    line(text, format_args!("tracking_clients:0"));
}

fn memory(usage: &Usage, text: &mut String) {
    let bound_bytes = usage.bound_bytes.unwrap_or(0);
    line(text, format_args!("used_memory:{}", usage.stored_bytes));
    line(text, format_args!("used_memory_dataset:{}", usage.logical_bytes));
    line(text, format_args!("maxmemory:{bound_bytes}"));
    line(text, format_args!("maxmemory_policy:allkeys-lfu"));
    line(text, format_args!("mem_allocator:none"));
}

fn persistence(session: &Session, text: &mut String) {
    line(text, format_args!("loading:0"));
    line(text, format_args!("rdb_changes_since_last_save:0"));
    line(text, format_args!("rdb_bgsave_in_progress:0"));
    line(text, format_args!("rdb_last_save_time:{}", session.shared().saved_ms.load(Relaxed) / 1000));
    line(text, format_args!("rdb_last_bgsave_status:ok"));
    line(text, format_args!("aof_enabled:0"));
    line(text, format_args!("aof_rewrite_in_progress:0"));
}

/// What `CONFIG RESETSTAT` sets back.
pub(crate) const COUNTERS: usize = 14;

/// Everything counted since the server started.
pub(crate) fn counters(session: &Session, usage: &Usage) -> [(&'static str, u64); COUNTERS] {
    let server = session.server();
    let sum = server.cache.stats().snapshot();
    let of = |outcome: CacheOutcome| -> u64 {
        sum.cache.iter().filter_map(|of_kind| of_kind.get(usize::from(outcome as u8))).sum()
    };
    [
        ("total_connections_received", server.stats.connections_total.load(Relaxed)),
        ("total_commands_processed", server.stats.commands_total.load(Relaxed)),
        ("expired_keys", usage.expired),
        ("evicted_keys", usage.evicted),
        ("keyspace_hits", of(CacheOutcome::Hit)),
        ("keyspace_misses", of(CacheOutcome::Miss)),
        ("pilotlight_puts", of(CacheOutcome::Put)),
        ("pilotlight_exceptions", of(CacheOutcome::Exception)),
        ("pilotlight_refused_puts", sum.refused_puts.iter().sum()),
        ("pilotlight_absorbed_gets", sum.absorbed_gets.iter().sum()),
        ("pilotlight_saved_ms", sum.saved_ms.iter().sum()),
        ("pilotlight_stock_graphs_ms", sum.stock_graphs_ms),
        ("pilotlight_timeouts", server.stats.timeouts_total.load(Relaxed)),
        ("pilotlight_protocol_errors", server.stats.protocol_errors_total.load(Relaxed)),
    ]
}

fn stats(session: &Session, usage: &Usage, text: &mut String) {
    let before = *session.shared().counted_before.lock();
    for ((name, count), before) in counters(session, usage).into_iter().zip(before) {
        line(text, format_args!("{name}:{}", count.saturating_sub(before)));
    }
    let refused = session.server().stats.refused_connections_total.load(Relaxed);
    line(text, format_args!("rejected_connections:{refused}"));
}

fn replication(text: &mut String) {
    line(text, format_args!("role:master"));
    line(text, format_args!("connected_slaves:0"));
    line(text, format_args!("master_repl_offset:0"));
}

/// Processor time is not read: the operating system's own tools tell it better, and per thread.
fn cpu(text: &mut String) {
    line(text, format_args!("used_cpu_sys:0.000000"));
    line(text, format_args!("used_cpu_user:0.000000"));
}

async fn keyspace(session: &Session, text: &mut String) -> Result<(), pilotlight_cache::Error> {
    for number in 0..session.server().config.databases {
        let namespace = session.namespace_of(number);
        if !session.standing.is_unrestricted() && !session.place_in(&namespace).may_all(Right::Read) {
            continue;
        }
        let usage = session.server().cache.usage(Some(&namespace)).await?;
        if usage.entries > 0 {
            line(text, format_args!("db{number}:keys={},expires=0,avg_ttl=0", usage.entries));
        }
    }
    Ok(())
}
