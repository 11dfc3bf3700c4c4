//! Pages made from the command line's own definition: `config`, `completions`, `man`.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, Config};
use crate::failure::Failure;
use crate::output::{self, Answer};
use crate::settings;

pub(super) fn config(arguments: &Config) -> Result<Answer, Failure> {
    let page = if arguments.example { settings::example() } else { settings::reference() };
    output::data(page.as_bytes())?;
    Ok(Answer::Yes)
}

pub(super) fn completions(shell: Shell) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pilotlight", &mut script);
    output::data(&script)?;
    Ok(Answer::Yes)
}

pub(super) fn man(out: Option<&Path>) -> Result<Answer, Failure> {
    let fail = |error: std::io::Error| Failure::new("could not write the manual").because(&error);
    if let Some(directory) = out {
        std::fs::create_dir_all(directory).map_err(fail)?;
        clap_mangen::generate_to(Cli::command(), directory).map_err(fail)?;
        return Ok(Answer::Yes);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(fail)?;
    output::data(&page)?;
    Ok(Answer::Yes)
}
