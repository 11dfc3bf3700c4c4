//! The HTTP front-end, in process, over real sockets.

mod entries;
mod harness;
mod hostile;
mod operators;
mod real_clients;
