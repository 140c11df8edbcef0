//! `isthmus clear`: a running daemon forgets what it learned.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use mapping::admin::Query;
use mapping::eid::{EidPrefix, InstanceId};
use serde_json::json;

use super::show::DaemonChoice;
use super::{Failure, print, print_json, reload};

/// What is to be forgotten.
#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Forget map-cache entries (xtr, gateway): the next packet asks the mapping system anew
    MapCache(MapCacheArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus clear map-cache 2001:db8:e001::1     the entry that this EID is found by
  isthmus clear map-cache 203.0.113.0/24       every entry in this prefix
  isthmus clear map-cache                      all

Entries that cover one that is forgotten go with it, since they would take its traffic. Packets wait for the new answer as after
any miss.

Exit status: 0 done, also when there was no such entry, 1 no daemon could be asked, 77 not permitted.")]
struct MapCacheArgs {
    /// An EID or EID-prefix; all entries without it
    #[arg(value_name = "EID", value_parser = eid)]
    eid: Option<IpNet>,
    /// The instance of the EID
    #[arg(long, value_name = "N", requires = "eid", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(InstanceId::MAX)))]
    instance_id: u32,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonChoice,
}

/// An address, or a prefix.
pub(super) fn eid(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>().map(|prefix| prefix.trunc()))
        .map_err(|_| "write an IPv4 or IPv6 address or prefix".to_owned())
}

/// Has the daemon forget, and prints how much.
pub(crate) fn run(args: &ClearArgs) -> Result<(), Failure> {
    let What::MapCache(args) = &args.what;
    let instance_id = InstanceId::new(args.instance_id).unwrap_or_default();
    let eid = args.eid.map(|eid| EidPrefix::new(instance_id, eid));
    let query = Query::ClearMapCache { eid };
    let cleared = reload::order(&args.daemon, &query, Failure::Failed)?;
    if args.json {
        return print_json(&json!({ "cleared": cleared }));
    }
    match cleared.as_u64() {
        Some(1) => print("1 entry forgotten\n"),
        _ => print(&format!("{cleared} entries forgotten\n")),
    }
}
