//! `/metrics` in Prometheus' text format 0.0.4.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pilotlight_cache::Usage;
use pilotlight_cache::leases::LeaseCounts;
use pilotlight_cache::origin::OriginState;

use super::router::Front;
use crate::{Server, ServerStats};

/// How long a scrape waits for the backend's sizes. Without them the counters are still worth having.
const USAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// The front-ends' own families: name, help, and where the value is. Counters by their `_total`, the rest gauges.
type Of<T> = (&'static str, &'static str, fn(&T) -> Option<f64>);

const SERVER: [Of<Server>; 18] = [
    ("pilotlight_uptime_seconds", "Time since the server started", |server| {
        Some(server.started.elapsed().as_secs_f64())
    }),
    ("pilotlight_connections", "RESP connections open", |server| {
        load(&server.stats, |s| &s.connections_open)
    }),
    ("pilotlight_connections_total", "RESP connections accepted", |server| {
        load(&server.stats, |s| &s.connections_total)
    }),
    ("pilotlight_commands_total", "RESP commands executed", |server| {
        load(&server.stats, |s| &s.commands_total)
    }),
    ("pilotlight_protocol_errors_total", "Connections closed over a protocol error", |server| {
        load(&server.stats, |s| &s.protocol_errors_total)
    }),
    ("pilotlight_timeouts_total", "Requests that ran into the request timeout", |server| {
        load(&server.stats, |s| &s.timeouts_total)
    }),
    ("pilotlight_http_requests_total", "HTTP requests", |server| {
        load(&server.stats, |s| &s.http_requests_total)
    }),
    ("pilotlight_refused_connections_total", "Connections refused as their address had too many", |server| {
        load(&server.stats, |s| &s.refused_connections_total)
    }),
    ("pilotlight_slow_connections_total", "Connections closed as they sent or took too slowly", |server| {
        load(&server.stats, |s| &s.slow_connections_total)
    }),
    ("pilotlight_in_flight_bytes", "Memory of large requests and replies in flight", |server| {
        Some(server.in_flight_bytes() as f64)
    }),
    ("pilotlight_tls_handshakes_total", "TLS handshakes begun", |server| {
        load(&server.stats, |s| &s.tls_handshakes_total)
    }),
    ("pilotlight_tls_failures_total", "TLS handshakes that failed", |server| {
        load(&server.stats, |s| &s.tls_failures_total)
    }),
    ("pilotlight_tls_expiry_seconds", "When the TLS certificate expires, in seconds since 1970", |server| {
        let not_after = server.tls.as_ref()?.not_after().duration_since(UNIX_EPOCH).ok()?;
        Some(not_after.as_secs_f64())
    }),
    ("pilotlight_logins_failed_total", "Logins that failed", |server| {
        load(&server.stats, |s| &s.logins_failed_total)
    }),
    (
        "pilotlight_logins_delayed_total",
        "Logins that had to wait since others from there had failed",
        |server| load(&server.stats, |s| &s.logins_delayed_total),
    ),
    ("pilotlight_denied_total", "Commands and requests refused for want of a right", |server| {
        load(&server.stats, |s| &s.denied_total)
    }),
    ("pilotlight_throttled_total", "Commands and requests that their user made too fast", |server| {
        load(&server.stats, |s| &s.throttled_total)
    }),
    ("pilotlight_audit_dropped_total", "Lines that the audit log could not take", |server| {
        Some(server.access.audit.dropped() as f64)
    }),
];

const USAGE: [Of<Usage>; 14] = [
    ("pilotlight_entries", "Entries kept", |usage| Some(usage.entries as f64)),
    ("pilotlight_logical_bytes", "Artifact bytes as clients put them", |usage| {
        Some(usage.logical_bytes as f64)
    }),
    ("pilotlight_stored_bytes", "Bytes it all takes where it is kept", |usage| {
        Some(usage.stored_bytes as f64)
    }),
    ("pilotlight_bound_bytes", "The bound on the stored bytes", |usage| {
        usage.bound_bytes.map(|bound_bytes| bound_bytes as f64)
    }),
    ("pilotlight_evicted_entries_total", "Entries evicted for space", |usage| Some(usage.evicted as f64)),
    ("pilotlight_expired_entries_total", "Entries that expired", |usage| Some(usage.expired as f64)),
    ("pilotlight_quarantined_entries_total", "Entries set aside because they failed their check", |usage| {
        Some(usage.quarantined as f64)
    }),
    ("pilotlight_deduplicated_puts_total", "Puts whose artifact was there already", |usage| {
        Some(usage.deduplicated as f64)
    }),
    ("pilotlight_shared_fetches_total", "Gets answered by another's fetch of the same entry", |usage| {
        Some(usage.shared_fetches as f64)
    }),
    ("pilotlight_recompressed_entries_total", "Entries recompressed while idle", |usage| {
        Some(usage.recompressed as f64)
    }),
    ("pilotlight_recompressed_saved_bytes_total", "Bytes that recompressing saved", |usage| {
        Some(usage.recompressed_bytes as f64)
    }),
    ("pilotlight_orphans_removed_total", "Payload files that a crash left and that were removed", |usage| {
        Some(usage.orphans as f64)
    }),
    ("pilotlight_unswept_files", "Payload files that the search for those has yet to look at", |usage| {
        Some(usage.sweep.map_or(0, |sweep| sweep.files.saturating_sub(sweep.looked_at)) as f64)
    }),
    ("pilotlight_delta_entries", "Entries stored against a sibling", |usage| Some(usage.deltas as f64)),
];

const LEASES: [Of<LeaseCounts>; 12] = [
    ("pilotlight_leases", "Keys that a client compiles for others right now", |of| Some(of.open as f64)),
    ("pilotlight_lease_followers", "Lookups that wait for it", |of| Some(of.waiting as f64)),
    ("pilotlight_leases_granted_total", "Leases that began", |of| Some(of.granted as f64)),
    ("pilotlight_lease_followers_total", "Lookups that waited for another client's compile", |of| {
        Some(of.followed as f64)
    }),
    ("pilotlight_lease_looked_total", "Waits that ended with the put", |of| Some(of.looked as f64)),
    ("pilotlight_lease_alone_total", "Waits that ended because nothing will come", |of| {
        Some(of.alone as f64)
    }),
    ("pilotlight_lease_timed_out_total", "Waits of stock clients that were given up", |of| {
        Some(of.timed_out as f64)
    }),
    ("pilotlight_leases_given_up_total", "Leases whose leader put nothing", |of| Some(of.given_up as f64)),
    ("pilotlight_leases_gone_total", "Leases taken over from a leader whose connection ended", |of| {
        Some(of.gone as f64)
    }),
    ("pilotlight_leases_expired_total", "Leases taken over from a leader that was not heard of", |of| {
        Some(of.expired as f64)
    }),
    ("pilotlight_lease_waited_seconds_total", "Time spent waiting", |of| Some(of.waited_ms as f64 / 1e3)),
    ("pilotlight_lease_saved_seconds_total", "Compile time of what followers got", |of| {
        Some(of.saved_ms as f64 / 1e3)
    }),
];

const ORIGIN: [Of<OriginState>; 4] = [
    ("pilotlight_origin_queue_length", "Puts and deletions that wait to be sent to the origin", |of| {
        Some(of.queued as f64)
    }),
    ("pilotlight_origin_queue_oldest_seconds", "How long the oldest of them waits", |of| {
        Some(of.oldest_ms as f64 / 1e3)
    }),
    ("pilotlight_origin_reading_paused", "Whether the origin is not asked, as it failed just now", |of| {
        Some(f64::from(of.is_reading_paused))
    }),
    ("pilotlight_origin_writing_paused", "Whether nothing is sent to it, as it failed just now", |of| {
        Some(f64::from(of.is_writing_paused))
    }),
];

fn load(stats: &ServerStats, counter: fn(&ServerStats) -> &AtomicU64) -> Option<f64> {
    Some(counter(stats).load(Relaxed) as f64)
}

pub(super) async fn show(State(front): State<Arc<Front>>) -> Response {
    let server = &front.server;
    let usage = tokio::time::timeout(USAGE_TIMEOUT, server.cache.usage(None)).await;
    let usage = usage.ok().and_then(Result::ok);
    let text = render(server, usage.as_ref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn render(server: &Server, usage: Option<&Usage>) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    page.family("pilotlight_build_info", "The version that runs");
    page.sample("pilotlight_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.table(&SERVER, server);
    page.table(&LEASES, &server.cache.leases().counts());
    if let Some(usage) = usage {
        page.table(&USAGE, usage);
    }
    let mut families = server.cache.stats().families();
    if let Some(tiers) = &server.tiers {
        page.table(&ORIGIN, &tiers.state());
        families.extend(tiers.counts().families());
    }
    for family in families {
        page.family(family.name, family.help);
        for (labels, value) in &family.samples {
            page.sample(family.name, labels, *value);
        }
    }
    page.0
}

struct Page(String);

// Writing to a `String` cannot fail.
impl Page {
    fn table<T>(&mut self, table: &[Of<T>], from: &T) {
        for (name, help, value) in table {
            if let Some(value) = value(from) {
                self.family(name, help);
                self.sample(name, &[], value);
            }
        }
    }

    fn family(&mut self, name: &str, help: &str) {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            self.0.push(if number == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            self.escaped(text);
            self.0.push('"');
        }
        self.0.push_str(if labels.is_empty() { "" } else { "}" });
        let _ = writeln!(self.0, " {value}");
    }

    fn escaped(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pilotlight_cache::origin::{OnError, Write as WriteHow};
    use pilotlight_cache::testing::MemoryOrigin;
    use pilotlight_cache::{Cache, Inline, MemoryBackend, SystemClock, Tiered, TieredOptions};

    use super::*;
    use crate::Config;

    fn is_name(name: &str) -> bool {
        name.starts_with("pilotlight_") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    }

    fn tiers() -> Tiered {
        let options = TieredOptions {
            write: WriteHow::Behind,
            on_error: OnError::FailTier,
            is_read_only: false,
            timeout: Duration::from_secs(1),
            fresh: Duration::from_secs(1),
            miss: Duration::ZERO,
            keep: None,
            queue_max: 1,
            queue_dir: None,
            entry_bytes_max: 1,
            clock: Arc::new(SystemClock),
            blocking: Arc::new(Inline),
            runtime: tokio::runtime::Handle::current(),
            seed: 1,
        };
        let memory = Arc::new(MemoryBackend::new(1));
        let origin = Arc::new(MemoryOrigin::new(Arc::new(SystemClock)));
        Tiered::start(memory.clone(), memory, origin, options).unwrap()
    }

    #[tokio::test]
    async fn every_family_is_declared_once_before_its_samples() {
        let cache = Arc::new(Cache::new(Arc::new(MemoryBackend::new(1))));
        let mut server = Server::new(cache, Config::default(), Arc::new(SystemClock));
        server.tiers = Some(Arc::new(tiers()));
        let usage = Usage { bound_bytes: Some(1), ..Usage::default() };
        let mut declared = BTreeMap::new();
        let mut current = String::new();
        for line in render(&server, Some(&usage)).lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(is_name(name), "{name}");
                assert!(!text.is_empty() && !text.ends_with('.'), "{name}: {text}");
                current = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, current);
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                assert_eq!(declared.insert(name.to_owned(), 0), None, "{name} twice");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = series.split('{').next().unwrap();
                assert_eq!(name, current, "{line}");
                assert!(name.len() == series.len() || series.ends_with("\"}"), "{line}");
                *declared.get_mut(name).unwrap() += 1;
            }
        }
        assert!(declared.values().all(|samples| *samples > 0), "{declared:?}");
        assert!(declared.len() > 20, "{declared:?}");
    }

    #[test]
    fn label_values_are_escaped() {
        let mut page = Page(String::new());
        page.sample("name", &[("label", "a\"b\\c\nd")], 1.5);
        assert_eq!(page.0, "name{label=\"a\\\"b\\\\c\\nd\"} 1.5\n");
    }
}
