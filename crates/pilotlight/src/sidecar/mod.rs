//! `pilotlight sidecar`: a plain port on this machine in front of a server elsewhere, for clients that know neither TLS nor
//! passwords, as stock Triton.
//!
//! It passes bytes on. It logs in for its clients ([`upstream`]), and where the server cannot be reached it answers in its place, every
//! lookup a miss and no put kept ([`fallback`]), until that is back.
//!
//! What is absent: a connection that breaks under a client breaks the client's as well, in the middle of a command too.

mod fallback;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use self::fallback::Fallback;
use self::upstream::Upstream;
use crate::cli::Sidecar;
use crate::environment;
use crate::failure::Failure;
use crate::output::{self, Answer};
use crate::serve::{logging, raise_file_limit, signals};
use crate::settings::LogFormat;

/// What is read at once, in each direction. A client that is idle holds both.
const COPY_BYTES: usize = 16 << 10;

pub(crate) fn run(arguments: &Sidecar) -> Result<Answer, Failure> {
    let named = arguments.upstream.clone().map(|url| ("--upstream", url));
    let (name, url) = named
        .or_else(|| Some(("PILOTLIGHT_URL", environment::variable("PILOTLIGHT_URL")?)))
        .ok_or_else(|| {
            Failure::new("there is no server to stand for").with_hint(
                "name one with `--upstream rediss://USER:PASSWORD@HOST:PORT`, or in PILOTLIGHT_URL",
            )
        })?;
    let upstream = Arc::new(Upstream::new(name, &url, &environment::tls_files())?);
    if !arguments.listen.ip().is_loopback() {
        return Err(Failure::new(format!("{} can be reached from other machines", arguments.listen)).with_hint(
            "whoever connects here has the upstream's rights without a password: listen on 127.0.0.1 or [::1]",
        ));
    }
    logging::start("info", LogFormat::Text)?;
    raise_file_limit();
    let fail = |error: &dyn std::error::Error| Failure::new("the sidecar stopped").because(error);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| fail(&error))?;
    let shutdown = signals::listen(None, None)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
            Failure::new(format!("could not listen on {}", arguments.listen)).because(&error)
        })?;
        let address = listener.local_addr().map_err(|error| fail(&error))?;
        let fallback = Arc::new(Fallback::start().map_err(|error| fail(&error))?);
        if let Err(reason) = upstream.connect().await {
            tracing::warn!("{upstream} cannot be reached, lookups are misses until it can: {reason}");
        }
        announce(address, &upstream);
        if let Some(path) = &arguments.port_file {
            std::fs::write(path, address.to_string()).map_err(|error| fail(&error))?;
        }
        tokio::spawn(upstream::watch(Arc::clone(&upstream), Arc::clone(&fallback)));
        tokio::select! {
            () = shutdown => {}
            () = accept(listener, upstream, fallback) => {}
        }
        Ok(Answer::Yes)
    })
}

fn announce(address: SocketAddr, upstream: &Upstream) {
    output::note(format_args!(
        "pilotlight {}: {address} stands for {upstream}\n\nTo use it from stock Triton:\n  export \
         TRITON_CACHE_MANAGER=triton.runtime.cache:RemoteCacheManager \
         TRITON_REMOTE_CACHE_BACKEND=triton.runtime.cache:RedisRemoteCacheBackend TRITON_REDIS_HOST={} \
         TRITON_REDIS_PORT={}\n",
        env!("CARGO_PKG_VERSION"),
        address.ip(),
        address.port(),
    ));
}

async fn accept(listener: TcpListener, upstream: Arc<Upstream>, fallback: Arc<Fallback>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                // A failure costs speed, nothing else.
                let _ = client.set_nodelay(true);
                tokio::spawn(serve(client, Arc::clone(&upstream), Arc::clone(&fallback)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(upstream::RETRY_DELAY).await;
            }
        }
    }
}

/// Passes bytes on until either side ends.
async fn serve(mut client: TcpStream, upstream: Arc<Upstream>, fallback: Arc<Fallback>) {
    let ended = match upstream.connect_if_up().await {
        Some(mut stream) => {
            copy_bidirectional_with_sizes(&mut client, &mut stream, COPY_BYTES, COPY_BYTES).await
        }
        None => match fallback.connect().await {
            Ok(mut stream) => {
                copy_bidirectional_with_sizes(&mut client, &mut stream, COPY_BYTES, COPY_BYTES).await
            }
            Err(error) => Err(error),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
