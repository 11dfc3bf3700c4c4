//! Every order in which clients can look, ask, compile, put, fail, stop and die, walked through by a model checker.

use std::collections::BTreeMap;

use pilotlight_cache::leases::{Asked, Loss, Table, Ticket, Token, Told, Verdict};
use stateright::{Checker, Model, Property};

/// One key, one server, some clients that want the key at once.
struct Herd {
    clients: usize,
}

/// The server and the clients, between two steps that nothing comes between.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    table: Table<()>,
    is_stored: bool,
    /// Verdicts on their way.
    sent: BTreeMap<Ticket, Verdict>,
    clients: Vec<Client>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    Starts,
    Missed,
    /// Looks once more.
    Looks(Role),
    Waits(Ticket),
    Compiles(Option<Token>),
    /// The entry is written, and nobody told.
    Wrote(Option<Token>),
    /// Its put was cut off behind the write: nobody will be told, and it does not know.
    CutOff(Option<Token>),
    /// Stopped while it leads, connected, for good.
    Stopped(Token),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Leader(Token),
    Follower(Ticket),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// The only thing that it can do by itself.
    Next(usize),
    /// The compile fails, or is of something that cannot be cached.
    Fails(usize),
    /// The put is not kept.
    IsRefused(usize),
    /// The put is cut off between the write and the telling.
    IsCutOff(usize),
    /// Waits no longer.
    TimesOut(usize),
    /// Stops, and stays connected.
    Stops(usize),
    /// Its connection ends.
    Dies(usize),
    /// The deadline of the lease passes, and a follower sees it.
    Expires,
}

const LASTS_MS: u64 = 1;

impl World {
    fn tell(&mut self, told: Told) {
        for (ticket, verdict) in told {
            assert!(self.sent.insert(ticket, verdict).is_none(), "told twice");
        }
    }

    fn release(&mut self, token: Token, loss: Loss) {
        let told = self.table.release(&(), token, loss, 0);
        self.tell(told);
    }

    /// As a follower's guard does.
    fn leave(&mut self, ticket: Ticket) {
        self.table.leave(&(), ticket);
        if let Some(Verdict::Lead(token, _)) = self.sent.remove(&ticket) {
            self.release(token, Loss::Gone);
        }
    }

    fn put(&mut self) {
        let (told, _) = self.table.put(&(), 0);
        self.tell(told);
    }

    fn token(client: Client) -> Option<Token> {
        match client {
            Client::Looks(Role::Leader(token)) | Client::Stopped(token) => Some(token),
            Client::Compiles(token) | Client::Wrote(token) | Client::CutOff(token) => token,
            _ => None,
        }
    }

    fn ticket(client: Client) -> Option<Ticket> {
        match client {
            Client::Looks(Role::Follower(ticket)) | Client::Waits(ticket) => Some(ticket),
            _ => None,
        }
    }

    /// Those who lead, as the server sees it, and will hear of it if they do not know yet.
    fn leaders(&self) -> usize {
        let leads = |token| self.table.clone().renew(&(), token, 0);
        let told = |ticket| match self.sent.get(&ticket) {
            Some(Verdict::Lead(token, _)) => Some(*token),
            _ => None,
        };
        let token = |client: &Client| Self::token(*client).or_else(|| Self::ticket(*client).and_then(told));
        self.clients.iter().filter_map(token).filter(|token| leads(*token)).count()
    }

    fn next(&mut self, client: Client) -> Client {
        match client {
            Client::Starts if self.is_stored => Client::Done,
            Client::Starts => Client::Missed,
            Client::Missed => {
                let (asked, told) = self.table.ask(&(), LASTS_MS, 0);
                self.tell(told);
                Client::Looks(match asked {
                    Asked::Lead(token) => Role::Leader(token),
                    Asked::Follow(ticket) => Role::Follower(ticket),
                })
            }
            Client::Looks(Role::Leader(token)) if self.is_stored => {
                self.release(token, Loss::GivenUp);
                Client::Done
            }
            Client::Looks(Role::Follower(ticket)) if self.is_stored => {
                self.leave(ticket);
                Client::Done
            }
            Client::Looks(Role::Leader(token)) => Client::Compiles(Some(token)),
            Client::Looks(Role::Follower(ticket)) => Client::Waits(ticket),
            Client::Waits(ticket) => match self.sent.remove(&ticket) {
                Some(Verdict::Look) if self.is_stored => Client::Done,
                Some(Verdict::Look | Verdict::Alone) => Client::Compiles(None),
                Some(Verdict::Lead(token, _)) => Client::Looks(Role::Leader(token)),
                None => client,
            },
            Client::Compiles(token) => {
                self.is_stored = true;
                Client::Wrote(token)
            }
            Client::Wrote(_) => {
                self.put();
                Client::Done
            }
            Client::CutOff(token) => {
                if let Some(token) = token {
                    self.release(token, Loss::GivenUp);
                }
                Client::Done
            }
            Client::Stopped(_) | Client::Done => client,
        }
    }
}

impl Model for Herd {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let clients = vec![Client::Starts; self.clients];
        vec![World { table: Table::default(), is_stored: false, sent: BTreeMap::new(), clients }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (index, &client) in world.clients.iter().enumerate() {
            match client {
                Client::Done => continue,
                Client::Stopped(_) => {}
                Client::Waits(ticket) => {
                    if world.sent.contains_key(&ticket) {
                        steps.push(Step::Next(index));
                    }
                    steps.push(Step::TimesOut(index));
                    if world.table.times_ms(&()).is_some() {
                        steps.push(Step::Expires);
                    }
                }
                Client::Compiles(token) => {
                    steps.extend([Step::Next(index), Step::Fails(index), Step::IsRefused(index)]);
                    steps.extend(token.map(|_| Step::Stops(index)));
                }
                Client::Wrote(_) => steps.extend([Step::Next(index), Step::IsCutOff(index)]),
                _ => steps.push(Step::Next(index)),
            }
            steps.push(Step::Dies(index));
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        let (index, after) = match step {
            Step::Expires => {
                let told = world.table.expire(&(), LASTS_MS);
                world.tell(told);
                return Some(world);
            }
            Step::Next(index) => (index, world.next(last.clients[index])),
            Step::Fails(index) | Step::Dies(index) => {
                let loss = if matches!(step, Step::Dies(_)) { Loss::Gone } else { Loss::GivenUp };
                if let Some(token) = World::token(last.clients[index]) {
                    world.release(token, loss);
                }
                if let Some(ticket) = World::ticket(last.clients[index]) {
                    world.leave(ticket);
                }
                (index, Client::Done)
            }
            Step::IsRefused(index) => {
                let told = world.table.refused(&());
                world.tell(told);
                (index, Client::Done)
            }
            Step::IsCutOff(index) => (index, Client::CutOff(World::token(last.clients[index]))),
            Step::TimesOut(index) => {
                world.leave(World::ticket(last.clients[index])?);
                (index, Client::Compiles(None))
            }
            Step::Stops(index) => (index, Client::Stopped(World::token(last.clients[index])?)),
        };
        world.clients[index] = after;
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one leads", |_, world: &World| world.leaders() <= 1),
            Property::always("a follower has a verdict, or somebody leads", |_, world: &World| {
                let waits = |client: &Client| {
                    World::ticket(*client).is_some_and(|ticket| !world.sent.contains_key(&ticket))
                };
                !world.clients.iter().any(waits) || world.leaders() == 1
            }),
            Property::always("nothing is left behind", |_, world: &World| {
                world.clients.iter().any(|client| *client != Client::Done)
                    || (world.table.is_empty() && world.sent.is_empty())
            }),
            // Without a time-out, and with nobody stopped for good, since that takes one.
            Property::eventually("everybody is done", |_, world: &World| {
                world.clients.iter().all(|client| matches!(client, Client::Done | Client::Stopped(_)))
            }),
            Property::sometimes("a follower takes over", |_, world: &World| {
                world.sent.values().any(|verdict| matches!(verdict, Verdict::Lead(..)))
            }),
            Property::sometimes("a put is cut off and found by who takes over", |_, world: &World| {
                let (mut looks, mut is_cut_off) = (false, false);
                for client in &world.clients {
                    looks |= matches!(client, Client::Looks(Role::Leader(_)));
                    is_cut_off |= matches!(client, Client::CutOff(Some(_)));
                }
                world.is_stored && looks && is_cut_off
            }),
        ]
    }
}

#[test]
fn one_leads_every_follower_is_released_and_nobody_waits_for_the_dead() {
    let checker = Herd { clients: 3 }.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.unique_state_count() > 10_000);
}
