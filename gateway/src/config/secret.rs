//! Secrets come from files or the environment, never from the configuration file itself.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mapping::config::Secret;

use super::Environment;
use super::node::{Node, Table};

/// The longest key file read, octets.
const LONGEST_KEY: u64 = 4096;

/// The secret that `file_key` or `env_key` of `table` names. Offline, nothing is read and the secret is empty.
pub(crate) fn read(
    table: &Table<'_>,
    file_key: &'static str,
    env_key: &'static str,
    environment: &Environment,
) -> Option<Secret> {
    refuse_inline(table);
    let octets = match (table.get(file_key), table.get(env_key)) {
        (Some(file), None) => from_file(&file, environment),
        (None, Some(variable)) => from_variable(&variable, environment),
        (Some(_), Some(variable)) => {
            variable.error(&format!("given beside {file_key}"), "keep one of the two");
            None
        }
        (None, None) => {
            table.error(
                "has no secret",
                &format!("write {file_key} = \"PATH\" or {env_key} = \"VARIABLE\""),
            );
            None
        }
    };
    octets.map(Secret::new)
}

/// A secret in the file itself would end up in backups and tickets.
fn refuse_inline(table: &Table<'_>) {
    for key in ["key", "secret", "password", "authentication-key"] {
        if table.has(key)
            && let Some(node) = table.get(key)
        {
            node.error(
                "a secret must not be in this file",
                "put it in a file of its own, readable by the daemon only, and name the file",
            );
        }
    }
}

fn from_file(node: &Node<'_>, environment: &Environment) -> Option<Vec<u8>> {
    let path = environment.directory.join(PathBuf::from(node.text()?));
    if environment.host.is_none() {
        return Some(Vec::new());
    }
    let shown = path.display();
    match read_key_file(&path) {
        Ok((octets, _)) if octets.is_empty() => {
            node.error(&format!("key file {shown} is empty"), "write the shared secret into it");
            None
        }
        Ok((octets, _)) if octets.len() as u64 > LONGEST_KEY => {
            node.error(
                &format!("key file {shown} is longer than {LONGEST_KEY} octets"),
                "name the file that holds just the secret",
            );
            None
        }
        Ok((octets, mode)) => {
            if mode & 0o007 != 0 {
                node.warning(&format!(
                    "key file {shown} is open to everybody (mode {:04o}); chmod o-rwx it",
                    mode & 0o7777
                ));
            }
            Some(octets)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            node.error(
                &format!("key file {shown} does not exist"),
                "create it with the secret shared with the other side",
            );
            None
        }
        Err(error) => {
            node.error(
                &format!("key file {shown} cannot be read: {error}"),
                "let the daemon's user read it",
            );
            None
        }
    }
}

/// The octets without the line end that editors add, at most one more than [`LONGEST_KEY`], and the mode.
pub(crate) fn read_key_file(path: &Path) -> std::io::Result<(Vec<u8>, u32)> {
    let mode = fs::metadata(path)?.permissions().mode();
    let mut octets = Vec::new();
    File::open(path)?.take(LONGEST_KEY + 3).read_to_end(&mut octets)?;
    if octets.ends_with(b"\n") {
        octets.pop();
    }
    if octets.ends_with(b"\r") {
        octets.pop();
    }
    Ok((octets, mode))
}

fn from_variable(node: &Node<'_>, environment: &Environment) -> Option<Vec<u8>> {
    let name = node.text()?;
    if name.contains(['=', '\0']) {
        node.error(
            &format!("{name:?} is no name of a variable"),
            "write a name such as SITE_A_KEY",
        );
        return None;
    }
    if environment.host.is_none() {
        return Some(Vec::new());
    }
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Some(value.into_bytes()),
        _ => {
            node.error(
                &format!("the environment has no variable {name}"),
                "set it to the shared secret, or use a key file",
            );
            None
        }
    }
}
