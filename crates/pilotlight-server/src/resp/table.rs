//! Every command, declared once. Dispatch, arity checks and `COMMAND` derive from this table: what is not here does not
//! exist. In the order of their names, for the binary search.

use bytes::Bytes;

use super::command::{Command, Demand, Flag, Handler, Keys, Needs, Refusal};
use super::commands::{
    client, config, connection, counters, debug, envelopes, expiry, info, introspection, keys, leases,
    object, persistence, scan, set, strings, transaction,
};
use super::error::Fault;

/// `name arity [flags] (first last step) group since how(handler) refusal needs "summary";`
///
/// `how` is `now` (no cache needed), `waits` (outside the gate), `shared` (beside other commands), `alone` (nothing in between), `exec` or
/// `container`. `refusal` is what a compile-cache kind is answered that cannot be served. `needs` says what its user needs rights
/// to: a command that does not say so does not compile.
macro_rules! commands {
    ($($name:literal $arity:literal [$($flag:ident)*] ($first:literal $last:literal $step:literal)
        $group:ident $since:literal $how:ident($($handler:tt)*) $refusal:ident $needs:ident $summary:literal;)*) => {
        &[$(Command {
            name: $name,
            arity: $arity,
            flags: 0 $(| Flag::$flag)*,
            keys: Keys { first: $first, last: $last, step: $step },
            group: stringify!($group),
            since: $since,
            summary: $summary,
            handler: commands!(@$how $($handler)*),
            refusal: Refusal::$refusal,
            needs: commands!(@needs $needs),
        }),*]
    };
    (@needs nothing) => { Needs::Nothing };
    (@needs read) => { Needs::Each(Demand::Read) };
    (@needs put) => { Needs::Each(Demand::Put) };
    (@needs remove) => { Needs::Each(Demand::Remove) };
    (@needs update) => { Needs::Each(Demand::Update) };
    (@needs take) => { Needs::Each(Demand::Take) };
    (@needs set) => { Needs::Set };
    (@needs getex) => { Needs::GetEx };
    (@needs rename) => { Needs::Rename };
    (@needs copy) => { Needs::Copy };
    (@needs move_key) => { Needs::Move };
    (@needs list) => { Needs::List };
    (@needs clear) => { Needs::Clear };
    (@needs clear_some) => { Needs::ClearSome };
    (@needs admin) => { Needs::Admin };
    (@now $handler:path) => { Handler::Now($handler) };
    (@waits $handler:path) => { Handler::Waits(|session, args| Box::pin($handler(session, args))) };
    (@shared $handler:path) => { Handler::Shared(|session, args| Box::pin($handler(session, args))) };
    (@alone $handler:path) => { Handler::Alone(|session, args| Box::pin($handler(session, args))) };
    (@exec) => { Handler::Exec };
    (@container $subcommands:ident) => { Handler::Container($subcommands) };
}

pub(crate) static COMMANDS: &[Command] = commands! {
    "append" 3 [WRITE OOM FAST] (1 1 1) string "2.0.0" shared(strings::append) Unmet update "Appends to the value of a key";
    "auth" -2 [FAST ANYONE NO_MULTI] (0 0 0) connection "1.0.0" waits(connection::auth) Fail nothing "Authenticates the connection";
    "bgsave" -1 [ADMIN] (0 0 0) server "1.0.0" shared(persistence::bgsave) Fail admin "Syncs to disk";
    "client" -2 [] (0 0 0) connection "2.4.0" container(CLIENT) Fail nothing "About connections";
    "command" -1 [] (0 0 0) server "2.8.13" container(COMMAND) Fail nothing "About commands";
    "config" -2 [ADMIN] (0 0 0) server "2.0.0" container(CONFIG) Fail admin "About settings";
    "copy" -3 [WRITE OOM] (1 2 1) generic "6.2.0" alone(keys::copy) Fail copy "Copies the value of a key to another";
    "dbsize" 1 [READ FAST] (0 0 0) server "1.0.0" shared(scan::dbsize) Fail list "Counts the keys of the database";
    "debug" -2 [ADMIN] (0 0 0) server "1.0.0" container(DEBUG) Fail admin "What test suites ask for, where it is harmless";
    "decr" 2 [WRITE OOM FAST] (1 1 1) string "1.0.0" shared(counters::decr) Unmet update "Subtracts one";
    "decrby" 3 [WRITE OOM FAST] (1 1 1) string "1.0.0" shared(counters::decrby) Unmet update "Subtracts a number";
    "del" -2 [WRITE] (1 -1 1) generic "1.0.0" shared(keys::del) Fail remove "Deletes keys";
    "discard" 1 [FAST IN_MULTI] (0 0 0) transactions "2.0.0" now(transaction::discard) Fail nothing "Drops a transaction";
    "echo" 2 [FAST] (0 0 0) connection "1.0.0" now(connection::echo) Fail nothing "Answers with its argument";
    "exec" 1 [IN_MULTI] (0 0 0) transactions "1.2.0" exec() Fail nothing "Runs a transaction";
    "exists" -2 [READ FAST] (1 -1 1) generic "1.0.0" shared(keys::exists) Zero read "Counts the keys that exist";
    "expire" -3 [WRITE FAST] (1 1 1) generic "1.0.0" shared(expiry::expire) Fail remove "Sets a key to expire in seconds";
    "expireat" -3 [WRITE FAST] (1 1 1) generic "1.2.0" shared(expiry::expireat) Fail remove "Sets a key to expire at a time";
    "expiretime" 2 [READ FAST] (1 1 1) generic "7.0.0" shared(expiry::expiretime) Fail read "When a key expires";
    "flushall" -1 [WRITE] (0 0 0) server "1.0.0" alone(scan::flushall) Fail clear_some "Deletes all keys of all databases";
    "flushdb" -1 [WRITE] (0 0 0) server "1.0.0" alone(scan::flushdb) Fail clear "Deletes all keys of the database";
    "function" -2 [] (0 0 0) scripting "7.0.0" container(FUNCTION) Fail nothing "What test suites ask for, where it is harmless";
    "get" 2 [READ FAST LEADS] (1 1 1) string "1.0.0" shared(strings::get) Miss read "The value of a key";
    "getdel" 2 [WRITE FAST] (1 1 1) string "6.2.0" shared(strings::getdel) Miss take "The value of a key, which is deleted";
    "getex" -2 [WRITE FAST] (1 1 1) string "6.2.0" shared(set::getex) Miss getex "The value of a key, with a new expiry";
    "getrange" 4 [READ] (1 1 1) string "2.4.0" shared(strings::getrange) Miss read "A part of the value of a key";
    "getset" 3 [WRITE OOM FAST] (1 1 1) string "1.0.0" shared(set::getset) Unmet update "Sets a key, answers with what was there";
    "hello" -1 [FAST ANYONE NO_MULTI] (0 0 0) connection "6.0.0" waits(connection::hello) Fail nothing "Agrees on a protocol";
    "incr" 2 [WRITE OOM FAST] (1 1 1) string "1.0.0" shared(counters::incr) Unmet update "Adds one";
    "incrby" 3 [WRITE OOM FAST] (1 1 1) string "1.0.0" shared(counters::incrby) Unmet update "Adds a number";
    "incrbyfloat" 3 [WRITE OOM FAST] (1 1 1) string "2.6.0" shared(counters::incrbyfloat) Unmet update "Adds a decimal";
    "info" -1 [] (0 0 0) server "1.0.0" shared(info::info) Fail nothing "About the server";
    "keys" 2 [READ] (0 0 0) generic "1.0.0" shared(scan::keys) Fail list "All keys that match a pattern";
    "lastsave" 1 [FAST] (0 0 0) server "1.0.0" now(persistence::lastsave) Fail nothing "When SAVE last succeeded";
    "memory" -2 [] (0 0 0) server "4.0.0" container(MEMORY) Fail nothing "About memory";
    "mget" -2 [READ FAST] (1 -1 1) string "1.0.0" shared(strings::mget) MissEach read "The values of several keys";
    "move" 3 [WRITE FAST] (1 1 1) generic "1.0.0" alone(keys::move_key) Fail move_key "Moves a key to another database";
    "mset" -3 [WRITE OOM] (1 -1 2) string "1.0.1" alone(strings::mset) Unmet put "Sets several keys";
    "msetnx" -3 [WRITE OOM] (1 -1 2) string "1.0.1" alone(strings::msetnx) Unmet put "Sets several keys if none exists";
    "multi" 1 [FAST IN_MULTI] (0 0 0) transactions "1.2.0" now(transaction::multi) Fail nothing "Starts a transaction";
    "object" -2 [] (0 0 0) generic "2.2.3" container(OBJECT) Fail nothing "About what a key holds";
    "persist" 2 [WRITE FAST] (1 1 1) generic "2.2.0" shared(expiry::persist) Fail remove "Takes the expiry off a key";
    "pexpire" -3 [WRITE FAST] (1 1 1) generic "2.6.0" shared(expiry::pexpire) Fail remove "Sets a key to expire in milliseconds";
    "pexpireat" -3 [WRITE FAST] (1 1 1) generic "2.6.0" shared(expiry::pexpireat) Fail remove "Sets a key to expire at a time";
    "pexpiretime" 2 [READ FAST] (1 1 1) generic "7.0.0" shared(expiry::pexpiretime) Fail read "When a key expires, in milliseconds";
    "pilotlight.group" -3 [WRITE] (1 -1 1) pilotlight "0.1.0" shared(envelopes::group) Zero remove "Has entries evicted together or not at all";
    "pilotlight.lease" -4 [NO_MULTI] (1 1 1) pilotlight "0.1.0" waits(leases::lease) Alone update "Who compiles a key that is not there";
    "pilotlight.mget" -2 [READ FAST] (1 -1 1) pilotlight "0.1.0" shared(envelopes::mget) MissEach read "Entries in their envelopes";
    "pilotlight.put" -3 [WRITE OOM] (1 1 1) pilotlight "0.1.0" shared(envelopes::put) UnmetOrTooLarge put "Sets a key to an entry in its envelope";
    "pilotlight.release" 3 [FAST] (1 1 1) pilotlight "0.1.0" now(leases::release) Fail nothing "Gives up a lease";
    "pilotlight.renew" 3 [FAST] (1 1 1) pilotlight "0.1.0" now(leases::renew) Fail nothing "Keeps a lease";
    "ping" -1 [FAST] (0 0 0) connection "1.0.0" now(connection::ping) Fail nothing "Answers PONG";
    "psetex" 4 [WRITE OOM] (1 1 1) string "2.6.0" shared(set::psetex) Unmet put "Sets a key that expires in milliseconds";
    "pttl" 2 [READ FAST] (1 1 1) generic "2.6.0" shared(expiry::pttl) Fail read "Milliseconds until a key expires";
    "quit" -1 [FAST ANYONE IN_MULTI] (0 0 0) connection "1.0.0" now(connection::quit) Fail nothing "Ends the connection";
    "randomkey" 1 [READ] (0 0 0) generic "1.0.0" shared(scan::randomkey) Fail list "Any key of the database";
    "rename" 3 [WRITE] (1 2 1) generic "1.0.0" alone(keys::rename) Fail rename "Renames a key";
    "renamenx" 3 [WRITE FAST] (1 2 1) generic "1.0.0" alone(keys::renamenx) Fail rename "Renames a key if the new name is free";
    "reset" 1 [FAST ANYONE IN_MULTI] (0 0 0) connection "6.2.0" now(connection::reset) Fail nothing "Makes the connection as new";
    "save" 1 [ADMIN NO_MULTI] (0 0 0) server "1.0.0" shared(persistence::save) Fail admin "Syncs to disk";
    "scan" -2 [READ] (0 0 0) generic "2.8.0" shared(scan::scan) Fail list "A part of the keys";
    "select" 2 [FAST TURNS] (0 0 0) connection "1.0.0" now(connection::select) Fail nothing "Changes the database";
    "set" -3 [WRITE OOM] (1 1 1) string "1.0.0" shared(set::set) Unmet set "Sets a key";
    "setex" 4 [WRITE OOM] (1 1 1) string "2.0.0" shared(set::setex) Unmet put "Sets a key that expires in seconds";
    "setnx" 3 [WRITE OOM FAST] (1 1 1) string "1.0.0" shared(set::setnx) Unmet put "Sets a key if it does not exist";
    "setrange" 4 [WRITE OOM] (1 1 1) string "2.2.0" shared(strings::setrange) Unmet update "Overwrites a part of a value";
    "strlen" 2 [READ FAST] (1 1 1) string "2.2.0" shared(strings::strlen) Fail read "The length of the value of a key";
    "substr" 4 [READ] (1 1 1) string "1.0.0" shared(strings::getrange) Miss read "A part of the value of a key";
    "time" 1 [FAST] (0 0 0) server "2.6.0" now(persistence::time) Fail nothing "The server's time";
    "touch" -2 [READ FAST] (1 -1 1) generic "3.2.1" shared(keys::touch) Fail read "Counts the keys that exist, as a use of them";
    "ttl" 2 [READ FAST] (1 1 1) generic "1.0.0" shared(expiry::ttl) Fail read "Seconds until a key expires";
    "type" 2 [READ FAST] (1 1 1) generic "1.0.0" shared(keys::type_of) Fail read "The type of a key's value";
    "unlink" -2 [WRITE FAST] (1 -1 1) generic "4.0.0" shared(keys::del) Fail remove "Deletes keys";
    "unwatch" 1 [FAST] (0 0 0) transactions "2.2.0" now(transaction::unwatch) Fail nothing "Forgets watched keys";
    "wait" 3 [] (0 0 0) generic "3.0.0" now(persistence::wait) Fail nothing "Waits for replicas, of which there are none";
    "watch" -2 [FAST IN_MULTI] (1 -1 1) transactions "2.2.0" shared(transaction::watch) Fail read "Makes EXEC depend on keys";
};

static CLIENT: &[Command] = commands! {
    "client|getname" 2 [] (0 0 0) connection "2.6.9" now(client::getname) Fail nothing "The connection's name";
    "client|getredir" 2 [] (0 0 0) connection "6.0.0" now(client::getredir) Fail nothing "Where tracking messages go: nowhere";
    "client|help" 2 [] (0 0 0) connection "5.0.0" now(introspection::help_client) Fail nothing "Lists the subcommands";
    "client|id" 2 [] (0 0 0) connection "5.0.0" now(client::id) Fail nothing "The connection's number";
    "client|info" 2 [] (0 0 0) connection "6.2.0" now(client::info) Fail nothing "About this connection";
    "client|kill" -3 [ADMIN] (0 0 0) connection "2.4.0" now(client::kill) Fail admin "Closes connections";
    "client|list" -2 [ADMIN] (0 0 0) connection "2.4.0" now(client::list) Fail admin "About all connections";
    "client|no-evict" 3 [ADMIN] (0 0 0) connection "7.0.0" now(client::on_off) Fail admin "Accepted: connections are never evicted";
    "client|no-touch" 3 [] (0 0 0) connection "7.2.0" now(client::on_off) Fail nothing "Accepted";
    "client|reply" 3 [] (0 0 0) connection "3.2.0" now(client::reply) Fail nothing "Switches replies on and off";
    "client|setinfo" 4 [] (0 0 0) connection "7.2.0" now(client::setinfo) Fail nothing "Names the client's library";
    "client|setname" 3 [] (0 0 0) connection "2.6.9" now(client::setname) Fail nothing "Names the connection";
    "client|tracking" -3 [] (0 0 0) connection "6.0.0" now(client::tracking) Fail nothing "Not available, so only OFF";
    "client|trackinginfo" 2 [] (0 0 0) connection "6.2.0" now(client::trackinginfo) Fail nothing "That tracking is off";
    "client|unblock" -3 [ADMIN] (0 0 0) connection "5.0.0" now(client::unblock) Fail admin "No command blocks";
};

static COMMAND: &[Command] = commands! {
    "command|count" 2 [] (0 0 0) server "2.8.13" now(introspection::count) Fail nothing "How many commands there are";
    "command|docs" -2 [] (0 0 0) server "7.0.0" now(introspection::docs) Fail nothing "What commands do";
    "command|getkeys" -3 [] (0 0 0) server "2.8.13" now(introspection::getkeys) Fail nothing "The keys in a command line";
    "command|help" 2 [] (0 0 0) server "5.0.0" now(introspection::help_command) Fail nothing "Lists the subcommands";
    "command|info" -2 [] (0 0 0) server "2.8.13" now(introspection::info) Fail nothing "The shape of commands";
    "command|list" -2 [] (0 0 0) server "7.0.0" now(introspection::list) Fail nothing "The names of all commands";
};

static CONFIG: &[Command] = commands! {
    "config|get" -3 [ADMIN] (0 0 0) server "2.0.0" shared(config::get) Fail admin "Settings that match a pattern";
    "config|help" 2 [] (0 0 0) server "5.0.0" now(introspection::help_config) Fail nothing "Lists the subcommands";
    "config|resetstat" 2 [ADMIN] (0 0 0) server "2.0.0" shared(config::resetstat) Fail admin "Has INFO count from here";
    "config|set" -4 [ADMIN] (0 0 0) server "2.0.0" shared(config::set) Fail admin "Changes settings";
};

static DEBUG: &[Command] = commands! {
    "debug|error" 3 [ADMIN] (0 0 0) server "1.0.0" now(debug::error) Fail admin "Answers with this error";
    "debug|jmap" 2 [ADMIN] (0 0 0) server "1.0.0" now(debug::harmless) Fail admin "Accepted";
    "debug|reload" -2 [ADMIN] (0 0 0) server "1.0.0" now(debug::harmless) Fail admin "Accepted";
    "debug|set-active-expire" 3 [ADMIN] (0 0 0) server "1.0.0" now(debug::harmless) Fail admin "Accepted";
    "debug|set-disable-deny-scripts" 3 [ADMIN] (0 0 0) server "1.0.0" now(debug::harmless) Fail admin "Accepted";
    "debug|sleep" 3 [ADMIN] (0 0 0) server "1.0.0" now(debug::harmless) Fail admin "Accepted: nothing sleeps";
};

static FUNCTION: &[Command] = commands! {
    "function|flush" -2 [WRITE] (0 0 0) scripting "7.0.0" now(debug::function_flush) Fail nothing "Accepted: there are no functions";
};

static MEMORY: &[Command] = commands! {
    "memory|help" 2 [] (0 0 0) server "4.0.0" now(introspection::help_memory) Fail nothing "Lists the subcommands";
    "memory|usage" -3 [READ] (2 2 1) server "4.0.0" shared(object::memory_usage) Fail read "Bytes that a key takes";
};

static OBJECT: &[Command] = commands! {
    "object|encoding" 3 [READ] (2 2 1) generic "2.2.3" shared(object::encoding) Fail read "How Redis would keep the value";
    "object|freq" 3 [READ] (2 2 1) generic "4.0.0" shared(object::freq) Fail read "How often the key was got, up to 255";
    "object|help" 2 [] (0 0 0) generic "6.2.0" now(introspection::help_object) Fail nothing "Lists the subcommands";
    "object|idletime" 3 [READ] (2 2 1) generic "2.2.3" shared(object::idletime) Fail read "Seconds since the key was used";
    "object|refcount" 3 [READ] (2 2 1) generic "2.2.3" shared(object::refcount) Fail read "Always 1";
};

/// The command that `args` calls, subcommands included.
pub(crate) fn find(args: &[Bytes]) -> Result<&'static Command, Fault> {
    let (name, rest) = args.split_first().ok_or(Fault::SYNTAX)?;
    let command = by_name(COMMANDS, name).ok_or_else(|| unknown(name, rest))?;
    let Handler::Container(subcommands) = command.handler else { return Ok(command) };
    let Some(sub) = rest.first() else {
        // Plain `COMMAND` is a command of its own; the other containers fail their arity check.
        return Ok(if command.arity == -1 { &PLAIN_COMMAND } else { command });
    };
    by_name(subcommands, sub).ok_or_else(|| {
        let mut text = b"unknown subcommand '".to_vec();
        text.extend(sub.iter().take(QUOTED_LEN_MAX));
        text.extend(format!("'. Try {} HELP.", command.name.to_ascii_uppercase()).bytes());
        Fault::quoting(text)
    })
}

/// `COMMAND` without a subcommand.
static PLAIN_COMMAND: Command = Command {
    name: "command",
    arity: -1,
    flags: 0,
    keys: Keys { first: 0, last: 0, step: 0 },
    group: "server",
    since: "2.8.13",
    summary: "About commands",
    handler: Handler::Now(introspection::all),
    refusal: Refusal::Fail,
    needs: Needs::Nothing,
};

/// The command of `commands` with this name, or short name, in any case.
pub(crate) fn by_name(commands: &'static [Command], name: &[u8]) -> Option<&'static Command> {
    // Compared as lower case, byte by byte: no copy of the name is needed.
    let found = commands.binary_search_by(|command| {
        command.short_name().bytes().cmp(name.iter().map(|byte| byte.to_ascii_lowercase()))
    });
    commands.get(found.ok()?)
}

/// As much of an unknown command as Redis repeats.
const QUOTED_LEN_MAX: usize = 128;

fn unknown(name: &[u8], args: &[Bytes]) -> Fault {
    let mut quoted = Vec::new();
    for arg in args {
        if quoted.len() >= QUOTED_LEN_MAX {
            break;
        }
        let room = QUOTED_LEN_MAX - quoted.len();
        quoted.push(b'\'');
        quoted.extend(arg.iter().take(room));
        quoted.extend(b"' ");
    }
    let mut text = b"unknown command '".to_vec();
    text.extend(name.iter().take(QUOTED_LEN_MAX));
    text.extend(b"', with args beginning with: ");
    text.extend(quoted);
    Fault::quoting(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_because_they_are_searched() {
        for table in [COMMANDS, CLIENT, COMMAND, CONFIG, DEBUG, FUNCTION, MEMORY, OBJECT] {
            assert!(table.is_sorted_by_key(|command| command.short_name()));
        }
    }

    /// Every command that can run, subcommands included.
    fn all() -> impl Iterator<Item = &'static Command> {
        COMMANDS.iter().flat_map(|command| std::iter::once(command).chain(command.subcommands()))
    }

    #[test]
    fn what_a_command_needs_fits_what_it_is() {
        for command in all() {
            let needs = command.needs;
            let has_keys = command.keys.first > 0;
            let is_of_keys = match needs {
                Needs::Each(_) | Needs::Set | Needs::GetEx | Needs::Rename | Needs::Copy | Needs::Move => {
                    true
                }
                Needs::Nothing | Needs::List | Needs::Clear | Needs::ClearSome | Needs::Admin => false,
            };
            // A lease is its connection's own: who holds it was judged when it was given.
            let is_of_lease = ["pilotlight.renew", "pilotlight.release"].contains(&command.name);
            assert_eq!(is_of_keys, has_keys && !is_of_lease, "{}", command.name);
            assert_eq!(needs == Needs::Admin, command.has(Flag::ADMIN), "{}", command.name);
            let writes = match needs {
                Needs::Each(demand) => demand != Demand::Read,
                Needs::Set | Needs::GetEx | Needs::Rename | Needs::Copy | Needs::Move => true,
                Needs::Clear | Needs::ClearSome => true,
                Needs::Nothing | Needs::List | Needs::Admin => false,
            };
            // These write nothing: a lease is a promise to, and of functions there are none.
            let is_harmless = ["pilotlight.lease", "function|flush"].contains(&command.name);
            assert_eq!(writes && !is_harmless, command.has(Flag::WRITE) && !is_harmless, "{}", command.name);
            let reads = matches!(needs, Needs::Each(Demand::Read) | Needs::List) && command.name != "watch";
            assert_eq!(reads, command.has(Flag::READ), "{}", command.name);
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        for command in COMMANDS {
            let upper = command.name.to_ascii_uppercase();
            assert_eq!(by_name(COMMANDS, upper.as_bytes()).unwrap().name, command.name);
        }
        assert!(by_name(COMMANDS, b"eval").is_none());
    }
}
