//! Who a connection is, and what that lets it do where it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use pilotlight_cache::{Key, Namespace, ReadThrough};

use super::session::Session;
use crate::access::{Access, Login, Pace, Place, Right, User};
use crate::tls::PeerIdentity;

/// A connection's standing. Made anew whenever the user, the database or the users in force change, so that a command costs a
/// look at an array.
#[derive(Debug)]
pub(crate) struct Standing {
    /// `None` for who has not logged in, and has no rights at all.
    login: Option<Login>,
    /// Of the users in force when this was made.
    generation: u64,
    /// Whether there is nothing that its user may not.
    is_unrestricted: bool,
    /// What it may in its database.
    place: Place,
    /// Where its lookups go on that miss.
    through: Option<Arc<ReadThrough>>,
}

impl Standing {
    /// With no rights at all, until somebody stands as something.
    pub(super) fn nobody() -> Self {
        Self::of(None, 0)
    }

    /// Of a connection that has not logged in.
    fn of_stranger(access: &Access, identity: Option<&PeerIdentity>) -> Self {
        let generation = access.generation();
        Self::of(access.users().stranger(identity), generation)
    }

    fn of(login: Option<Login>, generation: u64) -> Self {
        let is_unrestricted = login.as_ref().is_some_and(|login| login.user.is_unrestricted());
        Self { login, generation, is_unrestricted, place: Place::default(), through: None }
    }

    pub(crate) fn user(&self) -> Option<&Arc<User>> {
        self.login.as_ref().map(|login| &login.user)
    }

    pub(crate) fn is_unrestricted(&self) -> bool {
        self.is_unrestricted
    }

    /// What it may in its database.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where its lookups go on that miss.
    pub(crate) fn through(&self) -> Option<&ReadThrough> {
        self.through.as_deref()
    }

    /// Whether it may learn sums over all namespaces, which name none of them: who may read something may.
    pub(crate) fn sees_sums(&self) -> bool {
        self.is_unrestricted || self.user().is_some_and(|user| user.grants().anywhere(Right::Read))
    }
}

impl Session {
    /// As what a connection begins, and begins again after `RESET`.
    pub(crate) fn stand_as_stranger(&mut self) {
        self.standing = Standing::of_stranger(&self.core.server.access, self.client.identity.as_deref());
        self.take_place();
    }

    /// From here on it is this user. What it was promised as another one is void.
    pub(crate) fn stand_as(&mut self, login: Login, generation: u64) {
        self.standing = Standing::of(Some(login), generation);
        self.led.clear();
        self.watched.clear();
        self.take_place();
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.standing.login.is_some()
    }

    /// Looks itself up again where other users are in force than when it did last. Who is none of them any more has no rights left.
    pub(super) fn keep_up(&mut self) {
        let access = &self.core.server.access;
        // A load, of what hardly ever changes.
        let generation = access.generation();
        if generation == self.standing.generation {
            return;
        }
        let users = access.users();
        let login = match &self.standing.login {
            Some(login) => users.renewed(login),
            None => users.stranger(self.client.identity.as_deref()),
        };
        match login {
            Some(login) => {
                self.standing = Standing::of(Some(login), generation);
            }
            None => {
                self.standing = Standing::of(None, generation);
                self.led.clear();
                self.watched.clear();
            }
        }
        self.take_place();
    }

    /// Finds out what the user calls the database, and what it may there.
    pub(super) fn take_place(&mut self) {
        let Some(user) = self.standing.user().map(Arc::clone) else {
            self.namespace = Namespace::database(self.database);
            (self.standing.place, self.standing.through) = (Place::default(), None);
            return;
        };
        let users = self.core.server.access.users();
        self.namespace = user.namespace(self.database);
        self.standing.place = users.place(&user, &self.namespace);
        self.standing.through = users.through(&user, &self.namespace).map(Arc::new);
        self.client.names.lock().user = Arc::clone(user.name());
    }

    /// The namespace that the user calls database `number`.
    pub(crate) fn namespace_of(&self, number: u16) -> Namespace {
        self.standing.user().map_or_else(|| Namespace::database(number), |user| user.namespace(number))
    }

    /// What the user may in `namespace`.
    pub(crate) fn place_in(&self, namespace: &Namespace) -> Place {
        if *namespace == self.namespace {
            return self.standing.place;
        }
        let user = self.standing.user();
        user.map_or_else(Place::default, |user| self.core.server.access.users().place(user, namespace))
    }

    /// Whether it may put over what is there under `key`. In a namespace of low trust, who put first has won.
    pub(super) fn may_replace(&self, key: &Key) -> bool {
        self.standing.is_unrestricted || self.place_in(key.namespace()).may_replace(key.kind())
    }

    /// When the next command may run, as far as its user's rate goes.
    pub(super) fn pace(&self) -> Pace {
        let rate = self.standing.user().and_then(|user| user.pace());
        rate.map_or(Pace::Now, |rate| rate.ask(Instant::now()))
    }

    /// The address at the other end; none of a Unix socket.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.client.address.parse().ok().map(|address: SocketAddr| address.ip())
    }
}
