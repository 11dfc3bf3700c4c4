//! The settings of `serve`: declared in [`table`], found by [`resolve()`], typed by [`Settings::parse`].

mod addresses;
mod file;
mod origin;
mod parse;
mod reference;
mod resolve;
pub(crate) mod table;
mod values;

pub(crate) use parse::password_in;
pub(crate) use values::{duration, positive_duration};

pub(crate) use addresses::{Listen, UnixSocket};
pub(crate) use origin::OriginSettings;
pub(crate) use parse::{LogFormat, Settings, TlsSettings};
pub(crate) use reference::{effective, example, reference};
pub(crate) use resolve::{Flags, resolve};
