//! What test suites of Redis and its clients send to set themselves up: `DEBUG`, and `FUNCTION FLUSH`.

use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// For what needs nothing done here.
pub(crate) fn harmless(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::Ok)
}

/// Answers with the error that the client asks for, prefix included: so clients test what they make of errors.
pub(crate) fn error(_session: &mut Session, args: &Args) -> Outcome {
    Err(Fault::as_told(args.at(2)?.clone()))
}

/// There are no functions, so afterwards there are none.
pub(crate) fn function_flush(_session: &mut Session, args: &Args) -> Outcome {
    match args.from(2) {
        [] => Ok(Reply::Ok),
        [how] if is(how, "async") || is(how, "sync") => Ok(Reply::Ok),
        _ => Err(Fault::err("FUNCTION FLUSH only supports SYNC|ASYNC option")),
    }
}
