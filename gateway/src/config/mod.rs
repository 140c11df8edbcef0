//! Configuration files: TOML into the typed configuration of a role.
//!
//! The values come from the `config` crate, the line numbers from `toml_edit`. Every mistake is found in one pass and
//! reported as `file:line: key: what is wrong; what would be right`; a key that nobody reads is a mistake too.
//! What the file says is what runs: nothing but secrets comes from the environment. The role follows from the section that is there: `[gateway]`, `[xtr]` or `[mapping]`.
//!
//! ```text
//! report   findings, key -> line           node     typed walker: values, errors, unknown keys
//! values   addresses, prefixes, durations  secret   key files and variables
//! host     this host's addresses           overlap  who claims which prefix
//! changes  what a reload may change               text     a configuration as it is shown
//! router   what gateway and xtr share      gateway, xtr, mapping    one file per role
//! cluster  [cluster] of a mapping file     ddt      [ddt] of one
//! service  [log] and [metrics], which every role has
//! ```

use std::path::{Path, PathBuf};

use ::mapping::config::MappingConfig;
use ::xtr::config::{ControlConfig, RouterConfig};
use config::{Config, File, FileFormat};

mod changes;
mod clients;
mod cluster;
mod ddt;
mod dynamic_eid;
mod gateway;
mod host;
mod lisp_sec;
mod mapping;
mod nat;
mod node;
mod overlap;
mod peers;
mod report;
mod router;
mod secret;
mod service;
mod subscription;
mod text;
mod trusted_core;
mod values;
mod xtr;

pub(crate) use node::nearest;
pub(crate) use values::parse_duration;

pub(crate) use changes::{Change, OF_GATEWAY, OF_MAPPING, OF_XTR, changes, refused};
pub use gateway::GatewayConfig;
pub use host::Host;
pub use report::Finding;
pub use service::Service;

use node::{Node, Table};
use report::Report;
pub(crate) use secret::read_key_file;
pub(crate) use text::{canonical, json as to_json, quoted};

/// A file larger than this is no configuration, octets.
const LARGEST_FILE: u64 = 64 << 20;

/// What a configuration is checked against besides itself.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Where relative paths start: the directory of the file.
    pub directory: PathBuf,
    /// This host; `None` = offline: addresses, interfaces and secrets are not looked at.
    pub host: Option<Host>,
}

/// A role with its configuration. Read offline it is for checking only: secrets are empty, and locators given by
/// interface are left out.
#[derive(Clone, Debug)]
pub enum RoleConfig {
    /// `[gateway]`.
    Gateway(Box<GatewayConfig>),
    /// `[xtr]`.
    Xtr(Box<RouterConfig>),
    /// `[mapping]`.
    Mapping(Box<MappingConfig>),
}

impl RoleConfig {
    /// The role's name, as in `isthmus ROLE`.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Xtr(_) => "xtr",
            Self::Mapping(_) => "mapping",
        }
    }
}

/// A file without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The role and its configuration.
    pub config: RoleConfig,
    /// Logs and metrics.
    pub service: Service,
    /// What is doubtful, in the order of the file.
    pub warnings: Vec<Finding>,
}

/// Everything wrong with a file, in the order of the file; warnings too, so that nothing is found one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// At least one.
    pub errors: Vec<Finding>,
    /// What is doubtful besides.
    pub warnings: Vec<Finding>,
}

/// Reads and checks the file at `path`, against `host` when it is given.
pub fn load(path: &Path, host: Option<Host>) -> Result<Loaded, Refused> {
    let text = read_file(path).map_err(|message| Refused {
        errors: vec![Finding {
            file: path.display().to_string(),
            line: None,
            key: String::new(),
            message,
        }],
        warnings: Vec::new(),
    })?;
    load_text(path, &text, host)
}

/// As [`load`], of a file that was read already.
pub(crate) fn load_text(path: &Path, text: &str, host: Option<Host>) -> Result<Loaded, Refused> {
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    parse(path, text, &Environment { directory, host })
}

/// The content of a configuration file, or what is wrong with it.
pub(crate) fn read_file(path: &Path) -> Result<String, String> {
    let read = || {
        let length = std::fs::metadata(path)?.len();
        if length > LARGEST_FILE {
            return Err(std::io::Error::other(format!("larger than {LARGEST_FILE} octets")));
        }
        std::fs::read_to_string(path)
    };
    read().map_err(|error| {
        format!("cannot be read: {error}; name a TOML file that this user may read")
    })
}

/// Checks `text`, which stands in the file `path`.
pub fn parse(path: &Path, text: &str, environment: &Environment) -> Result<Loaded, Refused> {
    let refuse = |finding| Refused { errors: vec![finding], warnings: Vec::new() };
    let report = Report::new(path, text).map_err(refuse)?;
    let built = Config::builder().add_source(File::from_str(text, FileFormat::Toml)).build();
    let values = match built {
        Ok(built) => built.cache,
        Err(error) => {
            report.error("", format!("not TOML: {error}"));
            let (errors, warnings) = report.into_findings();
            return Err(Refused { errors, warnings });
        }
    };
    let config = Node::root(&values, &report).table().and_then(|root| read_role(root, environment));
    let (errors, warnings) = report.into_findings();
    match config {
        Some((config, service)) if errors.is_empty() => Ok(Loaded { config, service, warnings }),
        _ => Err(Refused { errors, warnings }),
    }
}

fn read_role(root: Table<'_>, environment: &Environment) -> Option<(RoleConfig, Service)> {
    const ROLES: [&str; 3] = ["gateway", "xtr", "mapping"];
    let present: Vec<&str> = ROLES.into_iter().filter(|role| root.has(role)).collect();
    let config = match present[..] {
        ["gateway"] => RoleConfig::Gateway(Box::new(gateway::read(&root, environment))),
        ["xtr"] => RoleConfig::Xtr(Box::new(xtr::read(&root, environment))),
        ["mapping"] => RoleConfig::Mapping(Box::new(mapping::read(&root, environment))),
        [] => {
            root.error("no role", "add one of the sections [gateway], [xtr], [mapping]");
            return None;
        }
        _ => {
            let sections = present.join("], [");
            root.error(&format!("[{sections}] in one file"), "give every role a file of its own");
            return None;
        }
    };
    let service = service::read(&root, environment);
    root.finish();
    Some((config, service))
}

/// `map-cache-limit` of the gateway and xtr sections.
fn map_cache_limit(table: &Table<'_>) -> usize {
    table.or("map-cache-limit", ControlConfig::MAP_CACHE_LIMIT, |node| {
        node.integer(1..=10_000_000).and_then(|value| usize::try_from(value).ok())
    })
}
