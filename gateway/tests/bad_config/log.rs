//! `[log]`.

use super::{GATEWAY, MAPPING, XTR, refused_offline};

#[test]
fn a_level_that_is_none_is_told_in_every_role() {
    for (file, text) in [("xtr.toml", XTR), ("gateway.toml", GATEWAY), ("mapping.toml", MAPPING)] {
        let line = text.lines().count() + 2;
        let instead = "write error, warn, info, debug or trace, or levels by module such as \"info,xtr=debug\"";
        let with = |value: &str| format!("{text}[log]\nlevel = \"{value}\"\n");
        refused_offline(
            file,
            &with("info,dbug"),
            &[&format!("{file}:{line}: log.level: \"dbug\" is no level; {instead}")],
        );
        refused_offline(
            file,
            &with("xtr=loud"),
            &[&format!("{file}:{line}: log.level: \"xtr=loud\" is no level; {instead}")],
        );
    }
    refused_offline(
        "xtr.toml",
        &format!("{XTR}[log]\nlevels = \"info\"\n"),
        &["xtr.toml:9: log.levels: unknown key; did you mean \"level\"?"],
    );
}
