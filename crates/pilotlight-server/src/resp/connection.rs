//! One connection: reads, runs what it read in order, and writes the replies in as few system calls as it can.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use super::decode::{DIRECT_LEN_MIN, Decoder, Limits, ProtocolError, Request};
use super::output::Output;
use super::puts::Owed;
use super::reply::{Protocol, Reply};
use super::session::{Core, Session};
use super::socket::{Accepted, Socket};
use crate::access::Pace;

/// Read at once. Requests below this come in one system call.
pub(crate) const SCRATCH_LEN: usize = 64 * 1024;
/// Read at once from a client whose last request was long: its next is likely to be as long, and what is left in the
/// socket goes straight into the artifact's own buffer.
const SHORT_READ_LEN: usize = 4 * 1024;
/// Replies are sent when this much waits, or when no input is left.
const OUTPUT_LEN_MAX: usize = 256 * 1024;
/// Requests decoded ahead of their turn. Bounds what one read can take in memory.
const BATCH_LEN_MAX: usize = 512;
/// A client that takes no byte of its replies for this long is gone or stuck.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// Redis' `proto-max-bulk-len`: a longer bulk ends the connection, whatever it is for.
const PROTOCOL_BULK_LEN_MAX: u64 = 512 << 20;

/// A connection on its core.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    decoder: Decoder,
    batch: Batch,
    output: Output,
    session: Session,
    reads_long: bool,
    /// Puts that are staged and not answered. Nothing stands in the output behind them.
    owed: Vec<Owed>,
}

/// Input that waits for its turn.
#[derive(Debug, Default)]
struct Batch {
    requests: VecDeque<Request>,
    /// What ends the stream after those.
    error: Option<ProtocolError>,
    /// What was read and not decoded yet.
    rest: Vec<u8>,
}

enum Next {
    Read,
    Close,
}

impl Connection {
    /// Takes the socket over on its core.
    pub(crate) fn new(core: Rc<Core>, socket: Accepted) -> io::Result<Self> {
        let server = &core.server;
        let addresses = socket.addresses();
        let socket = socket.register()?;
        let client = server.resp.clients.open(addresses, server.clock.now_ms());
        server.stats.connections_total.fetch_add(1, Relaxed);
        server.stats.connections_open.fetch_add(1, Relaxed);
        let limits = Limits {
            bulk_len_max: server.config.entry_bytes_max,
            protocol_bulk_len_max: PROTOCOL_BULK_LEN_MAX,
        };
        Ok(Self {
            socket,
            decoder: Decoder::new(limits),
            batch: Batch::default(),
            output: Output::default(),
            session: Session::new(core, client),
            reads_long: false,
            owed: Vec::new(),
        })
    }

    /// Serves until the client leaves, a command ends the connection, or `shutdown` turns true between two commands.
    pub(crate) async fn serve(mut self, mut shutdown: watch::Receiver<bool>) {
        let client = Arc::clone(&self.session.client);
        let core = Rc::clone(&self.session.core);
        let server = &core.server;
        // Asked anew for every wait: `CONFIG SET timeout` holds from the next command on.
        let idle = || async {
            match server.resp.settings.idle_timeout(&server.config) {
                Some(limit) => tokio::time::sleep(limit).await,
                None => pending().await,
            }
        };
        // Made once: to line up for these anew with every request would cost more than reading it.
        let mut over = pin!(shutdown.wait_for(|is_over| *is_over));
        let mut killed = pin!(client.killed());
        loop {
            let read = tokio::select! {
                biased;
                _ = &mut over => break,
                () = &mut killed => break,
                read = self.read() => read,
                () = idle() => break,
            };
            let next = match read {
                Ok(0) | Err(_) => break,
                Ok(_) => self.run_batch().await,
            };
            if !matches!(next, Ok(Next::Read)) || client.is_killed() {
                break;
            }
        }
        // The client reads what was answered, then the end. Whatever it still sends is of no interest.
        let _ = self.socket.shutdown().await;
    }

    /// Reads something and decodes it. Returns how much was read, 0 at the end of the stream.
    ///
    /// One future with nothing in it: the buffer is borrowed from the core only while a read is being tried.
    async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(mut buffer) = self.decoder.bulk_buffer() {
            let n = ready!(pin!(self.socket.read_buf(&mut buffer)).poll(cx))?;
            self.decoder.bulk_advanced(n);
            self.reads_long = true;
            self.batch.decode(&mut self.decoder, &mut &[][..], self.session.is_authenticated());
            return Poll::Ready(Ok(n));
        }
        let mut scratch = self.session.core.scratch.borrow_mut();
        let len = if self.reads_long { SHORT_READ_LEN } else { SCRATCH_LEN };
        let mut buffer = ReadBuf::new(scratch.get_mut(..len).unwrap_or_default());
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        let mut input = buffer.filled();
        let n = input.len();
        self.reads_long = self.reads_long && n > SHORT_READ_LEN / 2;
        self.batch.decode(&mut self.decoder, &mut input, self.session.is_authenticated());
        self.batch.rest.extend_from_slice(input);
        Poll::Ready(Ok(n))
    }

    /// Runs everything that was read, and sends the replies.
    async fn run_batch(&mut self) -> io::Result<Next> {
        let core = Rc::clone(&self.session.core);
        let stats = &core.server.stats;
        loop {
            // Once for all of them: every core counts here.
            stats.commands_total.fetch_add(self.batch.requests.len() as u64, Relaxed);
            while let Some(request) = self.batch.requests.pop_front() {
                let protocol = self.session.protocol;
                self.keep_pace().await?;
                self.session.may_wait = self.owed.is_empty() && self.batch.requests.is_empty();
                let reply = self.session.execute(request).await;
                match self.session.owe(reply) {
                    Ok(owed) => self.owed.push(owed),
                    Err(reply) => {
                        // Before `HELLO` takes effect on what was asked before it.
                        self.settle_as(protocol).await;
                        reply.write(self.session.protocol, &mut self.output);
                    }
                }
                // Nothing more runs of a client that was killed, itself included.
                if self.session.is_closing || self.session.client.is_killed() {
                    self.settle().await;
                    self.flush().await?;
                    return Ok(Next::Close);
                }
                if self.output.len() > OUTPUT_LEN_MAX {
                    self.flush().await?;
                }
            }
            if let Some(error) = self.batch.error.take() {
                self.settle().await;
                stats.protocol_errors_total.fetch_add(1, Relaxed);
                Reply::Error(error.into()).write(self.session.protocol, &mut self.output);
                self.flush().await?;
                return Ok(Next::Close);
            }
            if self.batch.rest.is_empty() {
                break;
            }
            // A client that pipelines without end must not keep its neighbours waiting.
            tokio::task::yield_now().await;
            let rest = std::mem::take(&mut self.batch.rest);
            let mut input = rest.as_slice();
            self.batch.decode(&mut self.decoder, &mut input, self.session.is_authenticated());
            self.batch.rest = input.to_vec();
        }
        if !self.owed.is_empty() && self.session.core.has_neighbours() {
            // Whoever else has something to read stages it first, and all of it is written at once.
            tokio::task::yield_now().await;
        }
        self.settle().await;
        self.flush().await?;
        if !self.decoder.is_inside_request() {
            let now_ms = self.session.now_ms();
            self.session.client.active_ms.store(now_ms, Relaxed);
            self.session.client.names.lock().last_command = self.session.last_command;
            self.output.shrink();
            self.batch.shrink();
        }
        Ok(Next::Read)
    }

    /// Waits for the turn of its user's next command. What was asked before is answered first.
    async fn keep_pace(&mut self) -> io::Result<()> {
        let pace = self.session.pace();
        self.session.is_too_fast = pace == Pace::TooFast;
        if let Pace::After(wait) = pace {
            self.session.server().stats.throttled_total.fetch_add(1, Relaxed);
            self.settle().await;
            self.flush().await?;
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn settle(&mut self) {
        self.settle_as(self.session.protocol).await;
    }

    /// Settles the puts that are staged, and answers them.
    async fn settle_as(&mut self, protocol: Protocol) {
        if self.owed.is_empty() {
            return;
        }
        let owed = std::mem::take(&mut self.owed);
        for reply in self.session.settle(owed).await {
            reply.write(protocol, &mut self.output);
        }
    }

    /// Sends all replies. While this waits for a slow client nothing more of it is read.
    async fn flush(&mut self) -> io::Result<()> {
        while self.output.len() > 0 {
            let write = poll_fn(|cx| self.output.poll_write(Pin::new(&mut self.socket), cx));
            tokio::time::timeout(WRITE_STALL_MAX, write).await.map_err(|_| io::ErrorKind::TimedOut)??;
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let server = self.session.server();
        server.resp.clients.close(self.session.client.id);
        server.stats.connections_open.fetch_sub(1, Relaxed);
    }
}

impl Batch {
    /// Decodes what `input` holds; what it leaves there must wait until what was decoded has run.
    fn decode(&mut self, decoder: &mut Decoder, input: &mut &[u8], is_authenticated: bool) {
        while self.error.is_none() && self.requests.len() < BATCH_LEN_MAX {
            match decoder.decode(input, is_authenticated) {
                Ok(Some(request)) => self.requests.push_back(request),
                Ok(None) => return,
                Err(error) => {
                    self.error = Some(error);
                    *input = &[];
                }
            }
            // The next command may be the one that authenticates, and lifts the limits for those behind it.
            if !is_authenticated {
                return;
            }
        }
    }

    fn shrink(&mut self) {
        const KEPT: usize = 4;
        if self.requests.capacity() > KEPT {
            self.requests = VecDeque::new();
        }
    }
}

const _: () = assert!(DIRECT_LEN_MIN <= SCRATCH_LEN && SHORT_READ_LEN < DIRECT_LEN_MIN);
