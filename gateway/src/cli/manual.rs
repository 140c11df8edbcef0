//! `isthmus completions` and `isthmus man`: what shells and `man` know of the command line, from the command line itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Cli, Failure, print};

/// For which shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus completions bash > /usr/share/bash-completion/completions/isthmus
  isthmus completions zsh > /usr/share/zsh/vendor-completions/_isthmus
  isthmus completions fish > /usr/share/fish/vendor_completions.d/isthmus.fish")]
pub(crate) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus man --out /usr/share/man/man1      one page for isthmus and one for each verb: man isthmus-show
  isthmus man | man -l -                     the first of them")]
pub(crate) struct ManArgs {
    /// The directory to put the pages in; without it, isthmus(1) goes to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints a script for the shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "isthmus", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes the pages.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(directory) = &args.out else {
        return print(&String::from_utf8_lossy(&page(&command)?));
    };
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    let written = write_pages(directory, "isthmus", &command).map_err(failed)?;
    print(&format!("{written} pages in {}\n", directory.display()))
}

/// A page for a command and each that it has; how many.
fn write_pages(directory: &Path, name: &str, command: &Command) -> io::Result<usize> {
    fs::write(directory.join(format!("{name}.1")), page(command)?)?;
    let mut written = 1;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        written += write_pages(directory, &format!("{name}-{}", verb.get_name()), verb)?;
    }
    Ok(written)
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let command = command.clone().version(env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command).manual("Isthmus").render(&mut page)?;
    Ok(page)
}
