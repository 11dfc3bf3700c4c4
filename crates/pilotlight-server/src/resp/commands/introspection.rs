//! `COMMAND`, and every `HELP`: the table, read out loud.

use bytes::Bytes;

use crate::resp::command::{Args, Command, FLAG_NAMES, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::glob;
use crate::resp::reply::Reply;
use crate::resp::session::Session;
use crate::resp::table::{COMMANDS, by_name, find};

pub(crate) fn all(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::Array(COMMANDS.iter().map(shape).collect()))
}

pub(crate) fn count(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::count(COMMANDS.len() as u64))
}

pub(crate) fn info(session: &mut Session, args: &Args) -> Outcome {
    match args.from(2) {
        [] => all(session, args),
        names => {
            Ok(Reply::Array(names.iter().map(|name| by_full_name(name).map_or(Reply::Nil, shape)).collect()))
        }
    }
}

pub(crate) fn docs(_session: &mut Session, args: &Args) -> Outcome {
    let entry = |command: &Command| (Reply::text(command.name), description(command));
    Ok(Reply::Map(match args.from(2) {
        [] => COMMANDS.iter().map(entry).collect(),
        names => names.iter().filter_map(|name| by_full_name(name)).map(entry).collect(),
    }))
}

pub(crate) fn list(_session: &mut Session, args: &Args) -> Outcome {
    let all = COMMANDS.iter().flat_map(|command| std::iter::once(command).chain(command.subcommands()));
    let all = all.map(|command| command.name);
    let names: Vec<_> = match args.from(2) {
        [] => all.collect(),
        [word, by, pattern] if is(word, "filterby") && is(by, "pattern") => {
            all.filter(|name| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes())).collect()
        }
        // There are no modules, and no ACL categories yet.
        [word, by, _] if is(word, "filterby") && (is(by, "module") || is(by, "aclcat")) => Vec::new(),
        _ => return Err(Fault::SYNTAX),
    };
    Ok(Reply::Array(names.into_iter().map(Reply::text).collect()))
}

pub(crate) fn getkeys(_session: &mut Session, args: &Args) -> Outcome {
    let line = Args(args.from(2).to_vec());
    let command = find(&line.0).map_err(|_| Fault::err("Invalid command specified"))?;
    if command.keys.first == 0 {
        return Err(Fault::err("The command has no key arguments"));
    }
    if !command.takes(line.len()) {
        return Err(Fault::err("Invalid number of arguments specified for command"));
    }
    Ok(Reply::Array(command.keys_of(&line.0).cloned().map(Reply::Bulk).collect()))
}

/// A command, or a subcommand as `container|sub`.
fn by_full_name(name: &[u8]) -> Option<&'static Command> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let command = by_name(COMMANDS, parts.next()?)?;
    match parts.next() {
        Some(sub) => by_name(command.subcommands(), sub),
        None => Some(command),
    }
}

/// The ten fields of `COMMAND INFO` since Redis 7.
fn shape(command: &Command) -> Reply {
    let flags = FLAG_NAMES.iter().filter(|(flag, _)| command.has(*flag));
    let first = i64::try_from(command.keys.first).unwrap_or(0);
    let step = i64::try_from(command.keys.step).unwrap_or(0);
    Reply::Array(vec![
        Reply::text(command.name),
        Reply::Integer(command.arity.into()),
        Reply::Set(flags.map(|(_, name)| Reply::Simple(name)).collect()),
        Reply::Integer(first),
        Reply::Integer(command.keys.last.into()),
        Reply::Integer(step),
        Reply::Set(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(command.subcommands().iter().map(shape).collect()),
    ])
}

fn description(command: &Command) -> Reply {
    let mut fields = vec![
        (Reply::text("summary"), Reply::text(command.summary)),
        (Reply::text("since"), Reply::text(command.since)),
        (Reply::text("group"), Reply::text(command.group)),
    ];
    if !command.subcommands().is_empty() {
        let subcommands = command.subcommands().iter();
        let entry = |sub: &Command| (Reply::text(sub.name), description(sub));
        fields.push((Reply::text("subcommands"), Reply::Map(subcommands.map(entry).collect())));
    }
    Reply::Map(fields)
}

pub(crate) fn help_client(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(help("client"))
}

pub(crate) fn help_command(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(help("command"))
}

pub(crate) fn help_config(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(help("config"))
}

pub(crate) fn help_memory(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(help("memory"))
}

pub(crate) fn help_object(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(help("object"))
}

fn help(container: &str) -> Reply {
    let subcommands = by_name(COMMANDS, container.as_bytes()).map(Command::subcommands).unwrap_or_default();
    let upper = container.to_ascii_uppercase();
    let title = format!("{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let mut lines = vec![Reply::bulk(title)];
    for sub in subcommands {
        lines.push(Reply::bulk(sub.short_name().to_ascii_uppercase()));
        lines.push(Reply::Bulk(Bytes::from(format!("    {}.", sub.summary))));
    }
    Reply::Array(lines)
}
