//! Who may do what.
//!
//! [`Users`] is what a users file says, checked; [`Access`] holds the ones in force and exchanges them while the server runs. A
//! front-end finds out who asks ([`Login`]), asks what that [`User`] may in a namespace ([`Place`]), and acts on that alone.
//!
//! # Invariants
//! 1. There are always users in force: a file that cannot be understood changes nothing.
//! 2. What is not granted is not allowed. A namespace is not part of another one, whatever their names.
//! 3. A secret is nowhere but in the hands of who logs in: files and memory hold its hash, logs neither.
//! 4. Nothing here blocks a serving thread: who logs in too often waits on its own connection, and what is noted goes through a
//!    bounded channel.

mod attempts;
mod audit;
mod file;
mod force;
mod grants;
mod pace;
mod secret;
mod users;
mod watch;

pub use self::audit::Audit;
pub use self::file::UsersError;
pub use self::force::{Access, AccessError};
pub use self::grants::{Grant, Grants, Place, Right, Rights};
pub use self::secret::{Secret, SecretHash};
pub use self::users::{Login, Proof, User, Users};

pub(crate) use self::attempts::Turn;
pub(crate) use self::audit::{Deed, Event};
pub(crate) use self::pace::Pace;
pub(crate) use self::users::DEFAULT;
pub(crate) use self::watch::Watch;
