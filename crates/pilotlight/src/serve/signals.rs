//! SIGTERM and SIGINT: the first ends the server gracefully, the second at once. SIGHUP, where it is of use, has files read and
//! opened anew: certificates, users, the audit log.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::certificates::{Certificates, POLL_INTERVAL};
use crate::failure::Failure;
use crate::output;

/// What SIGHUP does.
pub(crate) type HangUp = Box<dyn Fn() + Send>;

/// Starts listening for signals. The future is ready after the first one.
///
/// On a thread and a runtime of its own: a second signal must end a process whose other threads hang. The same thread looks
/// after the certificates, if there are any. With neither those nor `hang_up`, SIGHUP ends the process, as it does to most.
pub(crate) fn listen(
    hang_up: Option<HangUp>,
    certificates: Option<Arc<Certificates>>,
) -> Result<impl Future<Output = ()> + Send + use<>, Failure> {
    let fail = |error: io::Error| Failure::new("could not listen for signals").because(&error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let mut signals = {
        let _context = runtime.enter();
        Signals {
            term: signal(SignalKind::terminate()).map_err(fail)?,
            int: signal(SignalKind::interrupt()).map_err(fail)?,
            // Without one it keeps what it does by default, which is to end the process.
            hup: match hang_up {
                Some(act) => Some((signal(SignalKind::hangup()).map_err(fail)?, act)),
                None => None,
            },
        }
    };
    let reloading = match certificates {
        None => None,
        Some(certificates) => {
            let _context = runtime.enter();
            Some((signal(SignalKind::hangup()).map_err(fail)?, certificates))
        }
    };
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("pilotlight-signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                if let Some((hang_up, certificates)) = reloading {
                    tokio::spawn(look_after(hang_up, certificates));
                }
                signals.next().await;
                let _ = sender.send(());
                output::note("shutting down; once more to end at once");
                signals.next().await;
                end_at_once();
            });
        })
        .map_err(fail)?;
    Ok(async {
        // If the thread ended without a signal, nothing will ever ask for the end: wait on.
        if receiver.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Reads the certificates again when that is asked for, and when they changed.
async fn look_after(mut hang_up: Signal, certificates: Arc<Certificates>) {
    loop {
        tokio::select! {
            asked = hang_up.recv() => match asked {
                Some(()) => certificates.reload(),
                None => return,
            },
            () = tokio::time::sleep(POLL_INTERVAL) => certificates.reload_if_changed(),
        }
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Option<(Signal, HangUp)>,
}

impl Signals {
    /// Waits for a signal to end, doing what others ask for meanwhile.
    async fn next(&mut self) {
        loop {
            let hup = async {
                match &mut self.hup {
                    Some((hup, act)) => {
                        hup.recv().await;
                        act();
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                () = hup => {}
            }
        }
    }
}

#[expect(clippy::exit, reason = "the person at the terminal has asked twice")]
fn end_at_once() {
    // What shells report for a process that SIGINT ended.
    std::process::exit(130);
}
