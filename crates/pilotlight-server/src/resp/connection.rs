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
use tokio::time::Instant;

use super::decode::{DIRECT_LEN_MIN, Decoder, Limits, ProtocolError, Request};
use super::output::Output;
use super::puts::Owed;
use super::reply::{Protocol, Reply};
use super::session::{Core, Session};
use super::socket::{Accepted, Socket};
use crate::access::Pace;
use crate::memory::{Share, UNCOUNTED_BYTES};
use crate::tls::PeerIdentity;

/// Read at once. Requests below this come in one system call.
pub(crate) const SCRATCH_LEN: usize = 64 * 1024;
/// Read at once from a client whose last request was long: its next is likely to be as long, and what is left in the
/// socket goes straight into the artifact's own buffer.
const SHORT_READ_LEN: usize = 4 * 1024;
/// Replies are sent when this much waits, or when no input is left.
const OUTPUT_LEN_MAX: usize = 256 * 1024;
/// Requests decoded ahead of their turn. Bounds what one read can take in memory.
const BATCH_LEN_MAX: usize = 512;
/// What a request may take to come, and replies to be taken, beside [`crate::Config::client_grace`]. As HTTP has it.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// How long TLS' last word may take to be sent to a client that does not read.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Redis' `proto-max-bulk-len`: a longer bulk ends the connection, whatever it is for.
const PROTOCOL_BULK_LEN_MAX: u64 = 512 << 20;

/// Serves a client that was accepted, until it leaves. One that does not get through its TLS handshake is no client.
pub(crate) async fn serve(core: Rc<Core>, socket: Accepted, mut shutdown: watch::Receiver<bool>) {
    let addresses = socket.addresses();
    let opened = tokio::select! {
        biased;
        opened = socket.open(&core.server) => opened,
        _ = shutdown.wait_for(|is_over| *is_over) => return,
    };
    match opened {
        Ok((socket, identity)) => Connection::new(core, socket, addresses, identity).serve(shutdown).await,
        Err(error) => tracing::debug!(%error, "a connection was gone before it was served"),
    }
}

/// A connection on its core.
#[derive(Debug)]
struct Connection {
    socket: Socket,
    decoder: Decoder,
    batch: Batch,
    output: Output,
    session: Session,
    reads_long: bool,
    /// What it holds of the memory that all connections share.
    share: Share,
    /// When its client was accepted.
    /// When it was opened, or lost its standing.
    nobody_since: Instant,
    was_somebody: bool,
    /// Since when a request has been coming, and how much of it came.
    coming: Option<(Instant, u64)>,
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
    fn new(
        core: Rc<Core>,
        socket: Socket,
        addresses: (String, String),
        identity: Option<Arc<PeerIdentity>>,
    ) -> Self {
        let server = &core.server;
        let client = server.resp.clients.open(addresses, identity, server.clock.now_ms());
        let share = server.memory.share();
        server.stats.connections_total.fetch_add(1, Relaxed);
        server.stats.connections_open.fetch_add(1, Relaxed);
        let limits = Limits {
            bulk_len_max: server.config.entry_bytes_max,
            protocol_bulk_len_max: PROTOCOL_BULK_LEN_MAX,
        };
        Self {
            socket,
            decoder: Decoder::new(limits),
            batch: Batch::default(),
            output: Output::default(),
            session: Session::new(core, client),
            reads_long: false,
            share,
            nobody_since: Instant::now(),
            was_somebody: false,
            coming: None,
            owed: Vec::new(),
        }
    }

    /// Serves until the client leaves, a command ends the connection, or `shutdown` turns true between two commands.
    async fn serve(mut self, mut shutdown: watch::Receiver<bool>) {
        let client = Arc::clone(&self.session.client);
        let core = Rc::clone(&self.session.core);
        let server = &core.server;
        // Asked anew for every wait: `CONFIG SET timeout` holds from the next command on.
        let silent = |limit: Option<Instant>| async move {
            match (limit, server.resp.settings.idle_timeout(&server.config)) {
                (Some(limit), _) => tokio::time::sleep_until(limit).await,
                (None, Some(limit)) => tokio::time::sleep(limit).await,
                (None, None) => pending().await,
            }
        };
        // Made once: to line up for these anew with every request would cost more than reading it.
        let mut over = pin!(shutdown.wait_for(|is_over| *is_over));
        let mut killed = pin!(client.killed());
        loop {
            self.note_standing();
            let limit = self.read_limit();
            let read = tokio::select! {
                biased;
                _ = &mut over => break,
                () = &mut killed => break,
                read = self.read() => read,
                () = silent(limit) => {
                    if limit.is_some() {
                        self.refuse_slow().await;
                    }
                    break;
                }
            };
            let next = match read {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    let next = self.run_batch().await;
                    self.note_coming(n as u64);
                    next
                }
            };
            if !matches!(next, Ok(Next::Read)) || client.is_killed() {
                break;
            }
        }
        // The client reads what was answered, then the end. Whatever it still sends is of no interest.
        let _ = tokio::time::timeout(GOODBYE_MAX, self.socket.shutdown()).await;
    }

    /// Whoever was somebody has as long to be it again as one that was just opened.
    fn note_standing(&mut self) {
        let is_somebody = self.session.is_authenticated();
        if self.was_somebody && !is_somebody {
            self.nobody_since = Instant::now();
        }
        self.was_somebody = is_somebody;
    }

    /// Until when the next bytes must come, where that is limited: inside a request, and before the client has said who it is.
    fn read_limit(&self) -> Option<Instant> {
        let grace = self.session.server().config.client_grace;
        match self.coming {
            Some((since, bytes)) => Some(since + grace + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)),
            None if !self.session.is_authenticated() => Some(self.nobody_since + grace),
            None => None,
        }
    }

    /// Remembers how far a request is that has not come to its end.
    fn note_coming(&mut self, bytes: u64) {
        if self.decoder.is_inside_request() {
            let coming = self.coming.get_or_insert_with(|| (Instant::now(), 0));
            coming.1 += bytes;
        } else {
            self.coming = None;
        }
    }

    /// Tells a client that it was too slow.
    async fn refuse_slow(&mut self) {
        let stats = &self.session.server().stats;
        stats.slow_connections_total.fetch_add(1, Relaxed);
        // Whoever said nothing yet gets no answer to it.
        if self.coming.is_some() {
            stats.protocol_errors_total.fetch_add(1, Relaxed);
            Reply::Error(ProtocolError::TooSlow.into()).write(self.session.protocol, &mut self.output);
            // It may read no faster than it writes.
            let _ = tokio::time::timeout(GOODBYE_MAX, self.flush()).await;
        }
    }

    /// Counts what this connection holds. A request for which there is no room is read past, and refused when it is through.
    fn hold(&mut self) {
        let queued_bytes = self.session.transaction.as_ref().map_or(0, |transaction| transaction.bytes());
        let beside = queued_bytes + self.output.len() as u64;
        let has_room = self.share.hold(beside + self.decoder.held_bytes());
        if !has_room && self.decoder.held_bytes() > UNCOUNTED_BYTES {
            self.decoder.drop_request();
            self.share.hold(beside + self.decoder.held_bytes());
        }
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
            self.hold();
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
        drop(scratch);
        if self.decoder.is_inside_request() {
            self.hold();
        }
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
                    self.hold();
                    self.flush().await?;
                    self.hold();
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
        if self.share.is_counted() || self.session.transaction.is_some() {
            self.hold();
        }
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
        if self.output.len() == 0 {
            return Ok(());
        }
        let grace = self.session.server().config.client_grace;
        let in_time = grace + Duration::from_secs(self.output.len() as u64 / BYTES_PER_SECOND_MIN);
        let mut deadline = None;
        loop {
            let sent = {
                let mut some = pin!(self.send_some());
                match poll_fn(|cx| Poll::Ready(some.as_mut().poll(cx))).await {
                    Poll::Ready(sent) => Some(sent?),
                    // Most replies fit into the socket's buffer: only one that does not gets a timer.
                    Poll::Pending => {
                        let now = Instant::now();
                        let deadline = *deadline.get_or_insert(now + in_time);
                        tokio::time::timeout_at(deadline.min(now + grace), some).await.ok().transpose()?
                    }
                }
            };
            match sent {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => {
                    self.session.server().stats.slow_connections_total.fetch_add(1, Relaxed);
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    /// Sends some of the replies, and says whether that was the last of them.
    async fn send_some(&mut self) -> io::Result<bool> {
        if self.output.len() == 0 {
            return self.socket.flush().await.map(|()| true);
        }
        poll_fn(|cx| self.output.poll_write(Pin::new(&mut self.socket), cx)).await?;
        Ok(self.output.len() == 0 && !self.socket.needs_flush())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_beyond_512_requests_waits_undecoded() {
        let limits = Limits { bulk_len_max: 1 << 20, protocol_bulk_len_max: 1 << 20 };
        let (mut batch, mut decoder) = (Batch::default(), Decoder::new(limits));
        let sent = b"PING\r\n".repeat(513);
        let mut input = sent.as_slice();
        batch.decode(&mut decoder, &mut input, true);
        assert_eq!((batch.requests.len(), input), (512, b"PING\r\n".as_slice()));
        batch.requests.clear();
        batch.decode(&mut decoder, &mut input, true);
        assert_eq!((batch.requests.len(), input.len()), (1, 0));
        // Who has not said who it is gets them one by one: the first may be the one that says it.
        let mut input = sent.as_slice();
        batch.requests.clear();
        batch.decode(&mut decoder, &mut input, false);
        assert_eq!(batch.requests.len(), 1);
    }
}
