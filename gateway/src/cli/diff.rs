//! `isthmus diff`: what a file would change in a running daemon, and what of that needs a restart.

use std::path::PathBuf;

use clap::Args;
use mapping::admin::Query;
use serde_json::json;

use super::again::Again;
use super::check::print_warnings;
use super::show::{self, DaemonChoice};
use super::{BAD_CONFIGURATION, FAILED, Failure, complain, print, print_json};
use crate::admin::client;
use crate::config::{self, Change, Host};

/// Which file is compared.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus diff /etc/isthmus/xtr.toml      what isthmus reload would take over
  isthmus diff /tmp/candidate.toml --role gateway

A line is a key: + it comes, - it goes, ~ its value changes; ! it cannot change while the daemon runs. The file is checked whole
first, as by isthmus check. What is in key files is not compared: a reload reads them anew in any case.

Exit status: 0 a reload can take it over, or nothing differs; 1 it needs a restart, or no daemon could be asked; 78 the file has mistakes.")]
pub(crate) struct DiffArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    again: Again,
    #[command(flatten)]
    daemon: DaemonChoice,
}

/// Compares the file with what runs.
pub(crate) fn run(args: &DiffArgs) -> Result<(), Failure> {
    args.again.repeat(|| compare(args))
}

fn compare(args: &DiffArgs) -> Result<(), Failure> {
    let socket = args.daemon.socket()?;
    let view =
        client::ask(&socket, &Query::Config).map_err(|error| show::ask_failure(error, &socket))?;
    let (Some(role), Some(running)) = (view["role"].as_str(), view["text"].as_str()) else {
        return Err(Failure::Failed("the answer is not understood".to_owned()));
    };
    let shown = args.file.display();
    let text = config::read_file(&args.file)
        .map_err(|problem| Failure::Failed(format!("{shown}: {problem}")))?;
    let host = Host::read().map_err(|error| Failure::Failed(format!("own addresses: {error}")))?;
    let loaded = match config::load_text(&args.file, &text, Some(host)) {
        Ok(loaded) => loaded,
        Err(refused) => {
            print_warnings(&refused.warnings);
            refused.errors.iter().for_each(|error| complain(format_args!("{error}")));
            return Err(Failure::Silent(BAD_CONFIGURATION));
        }
    };
    if loaded.config.role() != role {
        let other = loaded.config.role();
        return Err(Failure::Usage(format!(
            "{shown} configures the role {other}, and what runs there is of the role {role}"
        )));
    }
    let changeable = changeable(role);
    let changes = config::changes(running, &text);
    let restart = changes.iter().any(|change| !change.is_one_of(changeable));
    if args.json {
        let change = |change: &Change| {
            json!({
                "key": change.key, "before": change.before, "after": change.after,
                "needs_restart": !change.is_one_of(changeable),
            })
        };
        let changes: Vec<_> = changes.iter().map(change).collect();
        print_json(&json!({ "role": role, "needs_restart": restart, "changes": changes }))?;
    } else {
        print_warnings(&loaded.warnings);
        print(&told(&changes, changeable))?;
    }
    if restart { Err(Failure::Silent(FAILED)) } else { Ok(()) }
}

/// What a role takes over while it runs.
fn changeable(role: &str) -> &'static [&'static str] {
    match role {
        "gateway" => config::OF_GATEWAY,
        "xtr" => config::OF_XTR,
        _ => config::OF_MAPPING,
    }
}

fn told(changes: &[Change], changeable: &[&str]) -> String {
    // That a list or a table is there says nothing beside what is in it.
    let holds_others = |outer: &Change| {
        let is_empty = |value: &Option<String>| value.as_deref().is_none_or(str::is_empty);
        let within = |inner: &&Change| {
            inner.key.strip_prefix(&outer.key).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        is_empty(&outer.before) && is_empty(&outer.after) && changes.iter().any(|c| within(&c))
    };
    let mut text = String::new();
    for change in changes.iter().filter(|change| !holds_others(change)) {
        let mark = if change.is_one_of(changeable) { ' ' } else { '!' };
        let key = &change.key;
        text += &match (&change.before, &change.after) {
            (None, Some(after)) if after.is_empty() => format!("{mark}+ {key}\n"),
            (Some(before), None) if before.is_empty() => format!("{mark}- {key}\n"),
            (None, Some(after)) => format!("{mark}+ {key} = {after}\n"),
            (Some(before), None) => format!("{mark}- {key} = {before}\n"),
            (Some(before), Some(after)) => format!("{mark}~ {key} = {before} -> {after}\n"),
            (None, None) => String::new(),
        };
    }
    text += match (changes.is_empty(), changes.iter().all(|c| c.is_one_of(changeable))) {
        (true, _) => "nothing differs\n",
        (false, true) => "a reload takes this over\n",
        (false, false) => "what is marked with ! needs a restart; a reload refuses all of it\n",
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_marked() {
        let before = "[xtr]\nname = \"m\"\nprobe = \"off\"\nstate-dir = \"/s\"\n\
            [[eid]]\nprefix = \"192.0.2.0/24\"\ninterfaces = [\"lan0\"]\n";
        let after = "[xtr]\nname = \"n\"\ntun = { queues = 2 }\nstate-dir = \"/s\"\n\
            [[eid]]\nprefix = \"192.0.2.0/24\"\ninterfaces = []\n[log]\n";
        let changes = config::changes(before, after);
        assert_eq!(
            told(&changes, config::OF_XTR),
            " - eid[\"192.0.2.0/24\"].interfaces[0] = \"lan0\"\n + log\n ~ xtr.name = \"m\" -> \"n\"\n\
             - xtr.probe = \"off\"\n!+ xtr.tun.queues = 2\n\
             what is marked with ! needs a restart; a reload refuses all of it\n"
                .replace("\n- ", "\n - ")
        );
        assert_eq!(told(&[], config::OF_XTR), "nothing differs\n");
    }
}
