//! Fleets in simulated time: clients that decide as ours do, a server with its leases, and a network between them that loses
//! connections. Compiles of any length, clients killed, stopped for a while or for good, the server stopped or restarted, its
//! clock ahead. All of it in an order that a seed decides, so that what fails fails again.
//!
//! A client's wait is bounded whatever happens. Without faults one compiles; with those of clients alone, nobody but who had to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::leases::{LASTS, OUTAGE_PAUSE, RENEWED_EVERY};
use super::patience::{End, Patience};
use crate::leases::{Asked, Loss, Table, Ticket, Token, Told, Verdict};

const LIMIT_MS: u64 = 60_000;
/// What a client waits for an answer beyond what it asked to wait.
const STALL_MS: u64 = 1_000;
/// What all failures of a client may cost.
const BUDGET: Duration = Duration::from_secs(2);
const LATENCY_MS: std::ops::Range<u64> = 0..40;

/// Sorts of failures, see [`Fleet::breaks_at_random`].
const OF_CLIENTS: u64 = 3;
const OF_THE_SERVER: u64 = 3;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Starts(usize),
    /// A question arrives; `epoch` is the connection's.
    Arrives {
        client: usize,
        epoch: u64,
        wait_ms: u64,
    },
    /// What the server waited for it.
    WaitEnds {
        client: usize,
        epoch: u64,
        ticket: u64,
    },
    Answers {
        client: usize,
        epoch: u64,
        answer: Answer,
    },
    /// The client gives up on an answer.
    Stalls {
        client: usize,
        epoch: u64,
    },
    AsksAgain {
        client: usize,
        epoch: u64,
    },
    Compiled {
        client: usize,
        compile: u64,
    },
    PutArrives {
        client: usize,
    },
    Renews {
        client: usize,
        compile: u64,
    },
    Breaks(Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Lead,
    Look,
    Alone,
    Wait { age_ms: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill(usize),
    /// Until then.
    Stop(usize, u64),
    Disconnect(usize),
    StopServer(u64),
    Restart,
    /// The server's clock is ahead by so much more.
    Jump(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Asks,
    Compiles,
    Done,
    Dead,
}

struct Client {
    state: State,
    patience: Patience,
    began_ms: u64,
    /// Counts connections and compiles, so that what belongs to an earlier one is known.
    epoch: u64,
    stopped_until_ms: u64,
    stopped_ms: u64,
    sat_out: Duration,
    token: Option<Token>,
    ticket: Option<Ticket>,
    has_faults: bool,
}

struct Fleet {
    random: Random,
    now_ms: u64,
    clock_ahead_ms: u64,
    server_stopped_until_ms: u64,
    table: Table<()>,
    is_stored: bool,
    asked_wait: BTreeMap<Ticket, usize>,
    clients: Vec<Client>,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    compiles: usize,
}

impl Fleet {
    fn new(seed: u64, clients: usize) -> Self {
        let client = |_| Client {
            state: State::Idle,
            patience: Patience::new(Duration::from_millis(LIMIT_MS)),
            began_ms: 0,
            epoch: 0,
            stopped_until_ms: 0,
            stopped_ms: 0,
            sat_out: Duration::ZERO,
            token: None,
            ticket: None,
            has_faults: false,
        };
        Self {
            random: Random(seed),
            now_ms: 0,
            clock_ahead_ms: 0,
            server_stopped_until_ms: 0,
            table: Table::default(),
            is_stored: false,
            asked_wait: BTreeMap::new(),
            clients: (0..clients).map(client).collect(),
            queue: BinaryHeap::new(),
            sequence: 0,
            compiles: 0,
        }
    }

    fn at(&mut self, time_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((time_ms, self.sequence, event)));
    }

    fn later(&mut self, delay_ms: u64, event: Event) {
        self.at(self.now_ms + delay_ms, event);
    }

    fn latency(&mut self) -> u64 {
        self.random.within(LATENCY_MS)
    }

    fn server_now_ms(&self) -> u64 {
        self.now_ms + self.clock_ahead_ms
    }

    fn run(&mut self) {
        for index in 0..self.clients.len() {
            let start_ms = self.random.within(0..500);
            self.at(start_ms, Event::Starts(index));
        }
        while let Some(Reverse((time_ms, _, event))) = self.queue.pop() {
            self.now_ms = self.now_ms.max(time_ms);
            // Who is stopped does, and is told, nothing until it goes on.
            let stopped_until_ms = match event {
                Event::Arrives { .. } | Event::WaitEnds { .. } | Event::PutArrives { .. } => {
                    self.server_stopped_until_ms
                }
                Event::Breaks(_) => 0,
                Event::Starts(client)
                | Event::Answers { client, .. }
                | Event::Stalls { client, .. }
                | Event::AsksAgain { client, .. }
                | Event::Compiled { client, .. }
                | Event::Renews { client, .. } => self.clients[client].stopped_until_ms,
            };
            if stopped_until_ms > self.now_ms {
                self.at(stopped_until_ms, event);
                continue;
            }
            self.step(event);
            assert!(self.leaders() <= 1, "two lead at {} ms", self.now_ms);
        }
    }

    fn leaders(&self) -> usize {
        let leads = |client: &&Client| client.token.is_some_and(|token| self.table.leads(&(), token));
        self.clients.iter().filter(leads).count()
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Starts(client) => {
                self.clients[client].began_ms = self.now_ms;
                self.ask(client);
            }
            Event::Arrives { client, epoch, wait_ms } => self.arrives(client, epoch, wait_ms),
            Event::WaitEnds { client, epoch, ticket } => self.wait_ends(client, epoch, ticket),
            Event::Answers { client, epoch, answer } if self.waits(client, epoch) => {
                self.answered(client, answer)
            }
            Event::Stalls { client, epoch } if self.waits(client, epoch) => self.failed(client),
            Event::AsksAgain { client, epoch } if self.waits(client, epoch) => self.ask(client),
            Event::Compiled { client, compile } if self.compiles(client, compile) => {
                let delay_ms = self.latency();
                self.later(delay_ms, Event::PutArrives { client });
            }
            Event::PutArrives { client } => {
                self.is_stored = true;
                let told = self.table.put(&(), self.server_now_ms()).0;
                self.tell(told);
                if self.clients[client].state != State::Dead {
                    self.finish(client);
                }
            }
            Event::Renews { client, compile } if self.compiles(client, compile) => {
                if let Some(token) = self.clients[client].token
                    && self.server_stopped_until_ms <= self.now_ms
                {
                    self.table.renew(&(), token, self.server_now_ms());
                }
                self.later(millis(RENEWED_EVERY), event);
            }
            Event::Breaks(fault) => self.breaks(fault),
            _ => {}
        }
    }

    fn waits(&self, client: usize, epoch: u64) -> bool {
        self.clients[client].state == State::Asks && self.clients[client].epoch == epoch
    }

    fn compiles(&self, client: usize, compile: u64) -> bool {
        self.clients[client].state == State::Compiles && self.clients[client].epoch == compile
    }

    fn elapsed(&self, client: usize) -> Duration {
        Duration::from_millis(self.now_ms - self.clients[client].began_ms)
    }

    fn ask(&mut self, client: usize) {
        let (wait, _) = self.clients[client].patience.question(self.elapsed(client));
        let (wait_ms, latency_ms) = (millis(wait), self.latency());
        self.clients[client].epoch += 1;
        self.clients[client].state = State::Asks;
        let epoch = self.clients[client].epoch;
        self.later(latency_ms, Event::Arrives { client, epoch, wait_ms });
        self.later(wait_ms + STALL_MS, Event::Stalls { client, epoch });
    }

    /// On the server, as `PILOTLIGHT.LEASE` does it.
    fn arrives(&mut self, client: usize, epoch: u64, wait_ms: u64) {
        if !self.waits(client, epoch) {
            return;
        }
        if self.is_stored {
            return self.reply(client, epoch, Answer::Look);
        }
        let (asked, told) = self.table.ask(&(), millis(LASTS), self.server_now_ms());
        self.tell(told);
        match asked {
            Asked::Lead(token) => {
                self.clients[client].token = Some(token);
                self.reply(client, epoch, Answer::Lead);
            }
            Asked::Follow(ticket) => {
                self.clients[client].ticket = Some(ticket);
                self.asked_wait.insert(ticket, client);
                self.later(wait_ms, Event::WaitEnds { client, epoch, ticket: ticket.0 });
            }
        }
    }

    fn wait_ends(&mut self, client: usize, epoch: u64, ticket: u64) {
        let told = self.table.expire(&(), self.server_now_ms());
        self.tell(told);
        if self.clients[client].ticket != Some(Ticket(ticket)) {
            return;
        }
        self.leave(client);
        let age_ms =
            self.table.times_ms(&()).map_or(0, |(since_ms, _)| self.server_now_ms().saturating_sub(since_ms));
        self.reply(client, epoch, Answer::Wait { age_ms });
    }

    fn tell(&mut self, told: Told) {
        for (ticket, verdict) in told {
            let Some(client) = self.asked_wait.remove(&ticket) else { panic!("a verdict for nobody") };
            self.clients[client].ticket = None;
            let epoch = self.clients[client].epoch;
            let answer = match verdict {
                Verdict::Look => Answer::Look,
                Verdict::Alone => Answer::Alone,
                Verdict::Lead(token, _) => {
                    self.clients[client].token = Some(token);
                    Answer::Lead
                }
            };
            self.reply(client, epoch, answer);
        }
    }

    fn reply(&mut self, client: usize, epoch: u64, answer: Answer) {
        let latency_ms = self.latency();
        self.later(latency_ms, Event::Answers { client, epoch, answer });
    }

    fn leave(&mut self, client: usize) {
        if let Some(ticket) = self.clients[client].ticket.take() {
            self.asked_wait.remove(&ticket);
            self.table.leave(&(), ticket);
        }
    }

    /// The server sees the connection end.
    fn connection_ends(&mut self, client: usize) {
        self.leave(client);
        if let Some(token) = self.clients[client].token.take() {
            let told = self.table.release(&(), token, Loss::Gone, self.server_now_ms());
            self.tell(told);
        }
    }

    /// Its connection ends under an open question, which it sees as soon as it runs.
    fn is_reset(&mut self, client: usize) {
        let epoch = self.clients[client].epoch;
        self.later(0, Event::Stalls { client, epoch });
    }

    fn answered(&mut self, client: usize, answer: Answer) {
        let elapsed = self.elapsed(client);
        match answer {
            Answer::Look => {
                assert!(self.is_stored, "sent to look for what is not there");
                self.finish(client);
            }
            Answer::Lead | Answer::Alone => self.compile(client),
            Answer::Wait { age_ms } => {
                let age = Duration::from_millis(age_ms);
                match self.clients[client].patience.after_wait(elapsed, age, None) {
                    Some(_) => self.compile(client),
                    None => self.ask(client),
                }
            }
        }
    }

    fn failed(&mut self, client: usize) {
        self.connection_ends(client);
        let elapsed = self.elapsed(client);
        let sat_out = self.clients[client].sat_out;
        let end = self.clients[client].patience.after_failure(elapsed, || sat_out < BUDGET);
        if end == Some(End::Alone) {
            return self.compile(client);
        }
        self.clients[client].sat_out += OUTAGE_PAUSE;
        self.clients[client].epoch += 1;
        let epoch = self.clients[client].epoch;
        self.later(millis(OUTAGE_PAUSE), Event::AsksAgain { client, epoch });
    }

    fn compile(&mut self, client: usize) {
        let Client { began_ms, stopped_ms, .. } = self.clients[client];
        let waited_ms = (self.now_ms - began_ms).saturating_sub(stopped_ms);
        let outage_ms = millis(BUDGET) / millis(OUTAGE_PAUSE) * (STALL_MS + 600) + millis(BUDGET);
        assert!(waited_ms <= LIMIT_MS + STALL_MS + outage_ms, "waited {waited_ms} ms");
        self.compiles += 1;
        let took_ms = self.random.within(100..20_000);
        let it = &mut self.clients[client];
        it.epoch += 1;
        it.state = State::Compiles;
        let compile = it.epoch;
        self.later(took_ms, Event::Compiled { client, compile });
        self.later(millis(RENEWED_EVERY), Event::Renews { client, compile });
    }

    fn finish(&mut self, client: usize) {
        self.clients[client].state = State::Done;
        self.connection_ends(client);
    }

    fn breaks(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(client) if self.clients[client].state != State::Done => {
                self.clients[client].state = State::Dead;
                self.clients[client].has_faults = true;
                self.connection_ends(client);
            }
            Fault::Stop(client, until_ms) if until_ms > self.clients[client].stopped_until_ms => {
                let it = &mut self.clients[client];
                it.stopped_ms += until_ms - self.now_ms.max(it.stopped_until_ms);
                it.stopped_until_ms = until_ms;
                it.has_faults = true;
            }
            Fault::Disconnect(client) => {
                self.clients[client].has_faults = true;
                self.connection_ends(client);
                self.is_reset(client);
            }
            Fault::StopServer(until_ms) => self.server_stopped_until_ms = until_ms,
            Fault::Restart => {
                self.table = Table::default();
                self.asked_wait.clear();
                for client in 0..self.clients.len() {
                    self.clients[client].ticket = None;
                    self.clients[client].token = None;
                    self.is_reset(client);
                }
            }
            Fault::Jump(by_ms) => self.clock_ahead_ms += by_ms,
            Fault::Kill(_) | Fault::Stop(..) => {}
        }
    }

    /// Something fails before `within_ms`: the first so many of what can.
    fn breaks_at_random(&mut self, within_ms: u64, sorts: u64) {
        let random = &mut self.random;
        let (client, at_ms) =
            (random.within(0..self.clients.len() as u64) as usize, random.within(0..within_ms));
        let fault = match random.within(0..sorts) {
            0 => Fault::Kill(client),
            1 => Fault::Stop(client, at_ms + random.within(100..40_000)),
            2 => Fault::Disconnect(client),
            3 => Fault::StopServer(at_ms + random.within(100..20_000)),
            4 => Fault::Restart,
            _ => Fault::Jump(random.within(1..100_000)),
        };
        self.at(at_ms, Event::Breaks(fault));
    }

    /// What holds when nothing happens any more.
    fn check(&self) {
        for (index, client) in self.clients.iter().enumerate() {
            assert!(
                matches!(client.state, State::Done | State::Dead),
                "client {index} is left in {:?}",
                client.state
            );
        }
        assert!(self.table.is_empty() && self.asked_wait.is_empty(), "a lease is left");
        let has_survivor = self.clients.iter().any(|client| client.state == State::Done);
        assert!(self.is_stored || !has_survivor);
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// Runs `rounds` fleets, and shows the seed of one that fails.
fn simulate(rounds: u64, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in 0..rounds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn without_faults_one_compiles_whoever_else_wants_it() {
    simulate(300, |seed| {
        let mut fleet = Fleet::new(seed, 2 + (seed % 15) as usize);
        fleet.run();
        fleet.check();
        assert_eq!(fleet.compiles, 1);
    });
}

#[test]
fn clients_that_fail_cost_the_others_one_more_compile_each() {
    simulate(500, |seed| {
        let clients = 2 + (seed % 12) as usize;
        let mut fleet = Fleet::new(seed, clients);
        for _ in 0..fleet.random.within(1..4) {
            fleet.breaks_at_random(15_000, OF_CLIENTS);
        }
        fleet.run();
        fleet.check();
        let faulty = fleet.clients.iter().filter(|client| client.has_faults).count();
        assert!(fleet.compiles <= 1 + 2 * faulty, "{} compiles, {faulty} faulty", fleet.compiles);
    });
}

#[test]
fn whatever_fails_everybody_is_done_in_time() {
    simulate(1000, |seed| {
        let clients = 2 + (seed % 12) as usize;
        let mut fleet = Fleet::new(seed, clients);
        for _ in 0..fleet.random.within(1..10) {
            fleet.breaks_at_random(30_000, OF_CLIENTS + OF_THE_SERVER);
        }
        if fleet.random.one_in(4) {
            // As good as for ever.
            fleet.at(0, Event::Breaks(Fault::StopServer(3_600_000)));
        }
        fleet.run();
        fleet.check();
    });
}
