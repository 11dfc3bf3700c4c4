//! What the server tells the person who started it.

use std::net::SocketAddr;
use std::path::Path;

use pilotlight_cache::Durability;
use pilotlight_server::Server;
use pilotlight_server::report::KindReport;
use serde::Serialize;

use super::sockets::Bound;
use crate::failure::Failure;
use crate::output;
use crate::settings::{Settings, TlsSettings};

/// Says where the server is, what it keeps and how to use it.
pub(super) fn started(settings: &Settings, bound: &Bound, server: &Server) {
    output::note(format_args!("pilotlight {}", env!("CARGO_PKG_VERSION")));
    let fact = |name: &str, value: &str| output::note(format_args!("  {name:<11} {value}"));
    let unix = bound.unix().iter().map(|path| format!("unix:{}", path.display()));
    let at = |scheme: &'static str, addresses: &[SocketAddr]| -> Vec<String> {
        addresses.iter().map(|address| format!("{scheme}://{address}")).collect()
    };
    let resp: Vec<String> =
        at("redis", &bound.resp).into_iter().chain(at("rediss", &bound.resp_tls)).chain(unix).collect();
    let http = [at("http", &bound.http), at("https", &bound.http_tls)].concat();
    fact("redis", &or_off(&resp));
    fact("http", &or_off(&http));
    fact("stack", &server.cache.backend().to_string());
    fact("data", &settings.data_dir.display().to_string());
    let limits = format!(
        "{} on disk, {} in memory, {} an entry",
        output::bytes(settings.bytes_max),
        output::bytes(settings.memory_bytes),
        output::bytes(settings.server.entry_bytes_max),
    );
    fact("limits", &limits);
    fact("durability", durability(settings.durability));
    fact("password", if settings.server.password.is_some() { "needed" } else { "none" });
    if let Some(tls) = &settings.tls {
        fact("clients", client_certificates(tls));
    }
    let users = server.access.users();
    if let Some(path) = &settings.users_file {
        fact("users", &format!("{}, in {}", users.iter().count(), path.display()));
    }
    let login = match (users.anybody(), settings.server.password.is_some()) {
        (Some(_), _) => "",
        (None, true) => ":PASSWORD@",
        (None, false) => "USER:SECRET@",
    };
    output::note(exports(bound, login));
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Relaxed => "relaxed (kill -9 loses nothing; synced every second)",
        Durability::Batch => "batch (synced before the answer, together with other puts)",
        Durability::Always => "always (synced before the answer)",
    }
}

fn client_certificates(tls: &TlsSettings) -> &'static str {
    match (&tls.client_authority, tls.are_clients_required) {
        (None, _) => "show no certificates",
        (Some(_), true) => "over TLS, only with a certificate",
        (Some(_), false) => "over TLS, with a certificate or without",
    }
}

fn or_off(addresses: &[String]) -> String {
    if addresses.is_empty() { "off".to_owned() } else { addresses.join(" ") }
}

/// The variables that make jobs use this server: those with the plug-in, and stock PyTorch, which knows no Unix sockets.
fn exports(bound: &Bound, login: &str) -> String {
    let plain = bound.resp.first().map(|address| (address, ""));
    let Some((address, secure)) = plain.or(bound.resp_tls.first().map(|address| (address, "s"))) else {
        let path = bound.unix().first().map(|path| path.display().to_string()).unwrap_or_default();
        return format!("\nTo use it from torch.compile:\n  export PILOTLIGHT_URL=unix://{login}{path}\n");
    };
    let host = if address.ip().is_unspecified() {
        format!("THIS_HOST:{}", address.port())
    } else {
        address.to_string()
    };
    format!(
        "\nTo use it from torch.compile:\n  \
         export PILOTLIGHT_URL=pilotlight{secure}://{login}{host}\n\
         Or without the Python package, in stock PyTorch:\n  \
         export TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE=1 TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE=1 \
         TORCHINDUCTOR_REDIS_URL=redis{secure}://{login}{host}\n"
    )
}

/// Sums up a run in one line.
pub(super) fn ended(server: &Server) {
    let counted = server.cache.stats().snapshot();
    let total = KindReport::total(&counted);
    output::note(format_args!(
        "served {}, {} and {} in {}; compile time saved: {}",
        output::count(total.hits, "hit"),
        output::count(total.misses, "miss"),
        output::count(total.puts, "put"),
        output::seconds(server.started.elapsed().as_secs_f64()),
        output::saved(total.saved_seconds, counted.stock_graphs_ms as f64 / 1000.0),
    ));
}

/// Writes the addresses in use, for whoever chose port 0. Renamed into place: a reader never sees half of it.
pub(super) fn write_port_file(path: &Path, bound: &Bound) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Addresses<'a> {
        redis: &'a [SocketAddr],
        rediss: &'a [SocketAddr],
        unix: Vec<String>,
        http: &'a [SocketAddr],
        https: &'a [SocketAddr],
    }
    let addresses = Addresses {
        redis: &bound.resp,
        rediss: &bound.resp_tls,
        unix: bound.unix().iter().map(|path| path.display().to_string()).collect(),
        http: &bound.http,
        https: &bound.http_tls,
    };
    let fail = |cause: &dyn std::error::Error| {
        Failure::new(format!("could not write `{}`", path.display())).because(cause)
    };
    let text = serde_json::to_string(&addresses).map_err(|error| fail(&error))?;
    let new = path.with_extension("new");
    std::fs::write(&new, text + "\n").map_err(|error| fail(&error))?;
    std::fs::rename(&new, path).map_err(|error| fail(&error))
}
