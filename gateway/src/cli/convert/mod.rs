//! `isthmus convert`: configurations of other implementations in our words, with a note for each line that has no equivalent.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Failure, print};
use crate::config;

mod blocks;
mod draft;
mod ios;
mod lispers;
mod oor;
#[cfg(test)]
mod tests;
mod toml;

use draft::Draft;
use toml::Written;

/// What is converted, and where to.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus convert /etc/oor.conf                          the result, to look at
  isthmus convert lisp.config --out /etc/isthmus         ROLE.toml and its key files
  isthmus convert router.txt --from ios --role mapping   of a router with several roles, one

Each line that has no equivalent here becomes a comment with its number and the reason. Secrets are never printed: they go into key files
of their own, with --out, readable by their owner only. Look through the notes, then isthmus check the result.

Exit status: 0 converted, 1 there is nothing to convert, or it cannot be written, 2 say which role.")]
pub(crate) struct ConvertArgs {
    /// oor.conf, lisp.config, or what `show running-config` prints on a Cisco router
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Whose words it is written in; without it, its content tells
    #[arg(long, value_enum)]
    from: Option<Dialect>,
    /// Of several roles, the one to print
    #[arg(long, value_enum)]
    role: Option<Part>,
    /// The directory to put ROLE.toml and key files in; what is there is not overwritten
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dialect {
    /// Open Overlay Router, LISPmob
    Oor,
    /// lispers.net
    #[value(name = "lispers.net")]
    Lispers,
    /// Cisco IOS and IOS XE
    Ios,
}

/// A role that a configuration is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// A proxy gateway
    Gateway,
    /// A site's tunnel router
    Xtr,
    /// A Map-Server and Map-Resolver
    Mapping,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Xtr => "xtr",
            Self::Mapping => "mapping",
        }
    }
}

/// Converts, and prints or writes the result.
pub(crate) fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let shown = args.file.display();
    let text = config::read_file(&args.file)
        .map_err(|problem| Failure::Failed(format!("{shown}: {problem}")))?;
    let draft = read(args.from.unwrap_or_else(|| guess(&text)), &text);
    let name = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let written = toml::write(&draft, &name.unwrap_or_default());
    let wanted: Vec<&Written> =
        written.iter().filter(|one| args.role.is_none_or(|role| role == one.part)).collect();
    match (&args.out, &wanted[..]) {
        (_, []) => Err(Failure::Failed(format!(
            "{shown}: no LISP site, mapping system or proxy is configured there; is it of another implementation? See --from"
        ))),
        (Some(directory), _) => put(directory, &wanted),
        (None, [only]) => print(&only.text),
        (None, several) => {
            let roles: Vec<_> = several.iter().map(|one| one.part.name()).collect();
            Err(Failure::Usage(format!(
                "{shown} configures several roles: {}; choose one with --role, or write all with --out DIR",
                roles.join(", ")
            )))
        }
    }
}

fn read(dialect: Dialect, text: &str) -> Draft {
    match dialect {
        Dialect::Oor => oor::read(text),
        Dialect::Lispers => lispers::read(text),
        Dialect::Ios => ios::read(text),
    }
}

/// By words that no other has.
fn guess(text: &str) -> Dialect {
    let lines = || text.lines().map(str::trim);
    let is_block = |line: &str| line.starts_with("lisp ") && line.ends_with('{');
    let is_ios = |line: &str| {
        line.starts_with("router lisp")
            || line.starts_with("ip lisp ")
            || line.starts_with("ipv6 lisp ")
    };
    if lines().any(is_block) {
        Dialect::Lispers
    } else if lines().any(is_ios) {
        Dialect::Ios
    } else {
        Dialect::Oor
    }
}

/// Writes files that are not there yet.
fn put(directory: &Path, written: &[&Written]) -> Result<(), Failure> {
    fs::create_dir_all(directory)
        .map_err(|error| Failure::Failed(format!("{}: {error}", directory.display())))?;
    let write = |name: &str, content: &str, mode: u32| -> Result<(), Failure> {
        let path = directory.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let done = file.and_then(|mut file| file.write_all(content.as_bytes()));
        done.map_err(|error: io::Error| Failure::Failed(format!("{}: {error}", path.display())))
    };
    for one in written {
        let name = format!("{}.toml", one.part.name());
        write(&name, &one.text, 0o644)?;
        print(&format!("{}\n", directory.join(name).display()))?;
        for (name, secret) in &one.keys {
            if directory.join(name).exists() {
                print(&format!("{} is there already and stays\n", directory.join(name).display()))?;
                continue;
            }
            write(name, &format!("{secret}\n"), 0o600)?;
            print(&format!("{}\n", directory.join(name).display()))?;
        }
    }
    Ok(())
}
