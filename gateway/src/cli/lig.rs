//! `isthmus lig`: asks a Map-Resolver for a mapping, as any ITR would (RFC 6835).

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::mapping::eid::{EidPrefix, InstanceId};
use ::mapping::wire::{
    Action, Address, CONTROL_PORT, EidRecord, EncapsulatedControlMessage, MapReply, MapRequest,
    Message, RequestedEid,
};
use ::xtr::config::Endpoint;
use clap::Args;
use ipnet::IpNet;
use serde::Serialize;

use secure::{Key, Sent};

use super::again::Again;
use super::columns::Align::{Left, Right};
use super::columns::{milliseconds, table};
use super::{Failure, print, print_json};
use crate::config::{self, RoleConfig};
use target::{Target, parse_target};

mod secure;
mod target;

/// Map-Requests sent before giving up (RFC 6835 §4: three).
const TRIES: u32 = 3;
/// How long each may take to be answered.
const PATIENCE: Duration = Duration::from_secs(2);
/// Larger than any Map-Reply that UDP carries.
const DATAGRAM: usize = 65_535;

/// What `lig` is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus lig 2001:db8:e001::1 @198.51.100.2
  isthmus lig 203.0.113.0/26 @mr.example.net --instance-id 7 --json
  isthmus lig 203.0.113.1 @198.51.100.2 --key-id 1 --key-file /etc/isthmus/itr.key     protected by LISP-SEC
  isthmus lig 203.0.113.1                     asks the map-resolvers of /etc/isthmus/xtr.toml or gateway.toml
  isthmus lig 203.0.113.1 --socket /run/isthmus/xtr.sock    asks those of that daemon
  isthmus lig www.example.net @198.51.100.2   every address of the name
  isthmus lig self                            is this site registered, with the locators of this router?

Exit status: 0 there was a reply, a negative one too; 1 there was none, or one for self that lacks this router's locators.")]
pub(crate) struct LigArgs {
    /// An EID or EID-prefix, a DNS name, or self: the EID-prefixes of the xTR on this host
    #[arg(value_name = "EID|NAME|self", value_parser = parse_target)]
    eid: Target,
    /// The Map-Resolver to ask: @ADDRESS or @NAME
    #[arg(value_name = "@MAP-RESOLVER", value_parser = parse_resolver)]
    resolver: Option<Endpoint>,
    /// The instance of the EID
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(InstanceId::MAX)))]
    instance_id: u32,
    /// Where map-resolvers are configured, when none is named, and the EID-prefixes of self
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin socket of a daemon: its map-resolvers are asked, when none is named, and the EID-prefixes of self are its own
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Own address to send from, to which the reply comes
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Protect the lookup by LISP-SEC with this one of the Map-Resolver's itr-keys; a reply that does not verify is none
    #[arg(long, value_name = "N", requires = "key_file")]
    key_id: Option<u8>,
    /// The file with that key
    #[arg(long, value_name = "FILE", requires = "key_id")]
    key_file: Option<PathBuf>,
    /// Print the reply as JSON; of self, and of a name, a list of replies
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    again: Again,
}

fn parse_resolver(text: &str) -> Result<Endpoint, String> {
    let Some(place) = text.strip_prefix('@').filter(|place| !place.is_empty()) else {
        return Err("write @ADDRESS or @NAME".to_owned());
    };
    Ok(place.parse().map_or_else(|_| Endpoint::Name(place.to_owned()), Endpoint::Address))
}

/// Asks and prints the reply.
pub(crate) fn run(args: &LigArgs) -> Result<(), Failure> {
    let key = match (args.key_id, &args.key_file) {
        (Some(id), Some(file)) => Some(Key::read(id, file)?),
        _ => None,
    };
    args.again.repeat(|| match &args.eid {
        Target::Eid(eid) => {
            let found = ask(args, &resolvers(args)?, eid_of(args, *eid), key.as_ref())?;
            if args.json { print_json(&found) } else { print(&found.text()) }
        }
        Target::Name(name) => {
            let resolvers = resolvers(args)?;
            let addresses = target::addresses_of(name)?;
            let eids = addresses.into_iter().map(|address| eid_of(args, address.into()));
            let asked = eids.map(|eid| ask(args, &resolvers, eid, key.as_ref()));
            let found = asked.collect::<Result<Vec<_>, _>>()?;
            if args.json {
                return print_json(&found);
            }
            print(&found.iter().map(Found::text).collect::<Vec<_>>().join("\n"))
        }
        Target::Myself => target::look_at_self(args, key.as_ref()),
    })
}

fn eid_of(args: &LigArgs, eid: IpNet) -> EidPrefix {
    EidPrefix::new(InstanceId::new(args.instance_id).unwrap_or_default(), eid)
}

/// The Map-Resolvers to ask, in turn.
fn resolvers(args: &LigArgs) -> Result<Vec<Endpoint>, Failure> {
    match &args.resolver {
        Some(resolver) => Ok(vec![resolver.clone()]),
        None => match (&args.config, &args.socket) {
            (None, Some(socket)) => {
                of_configuration(target::running(socket)?, &socket.display().to_string())
            }
            (file, _) => configured_resolvers(file.as_deref()),
        },
    }
}

/// The reply of the first of `resolvers` that gives one.
fn ask(
    args: &LigArgs,
    resolvers: &[Endpoint],
    eid: EidPrefix,
    key: Option<&Key>,
) -> Result<Found, Failure> {
    let mut last = None;
    for resolver in resolvers {
        match resolve(resolver, args.source)
            .and_then(|address| lookup(eid, address, args.source, key, TRIES, PATIENCE))
        {
            Ok(found) => return Ok(found),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| Failure::Usage("no Map-Resolver is configured".to_owned())))
}

/// The map-resolvers of `file`, or of the first configuration of a tunnel router on this host.
fn configured_resolvers(file: Option<&Path>) -> Result<Vec<Endpoint>, Failure> {
    let defaults = ["/etc/isthmus/xtr.toml", "/etc/isthmus/gateway.toml"].map(Path::new);
    let Some(path) = file.or_else(|| defaults.into_iter().find(|path| path.exists())) else {
        return Err(Failure::Usage(
            "which Map-Resolver? Name it: isthmus lig EID @ADDRESS".to_owned(),
        ));
    };
    let loaded =
        config::load(path, None).map_err(|refused| Failure::BadConfiguration(refused.errors))?;
    of_configuration(loaded.config, &path.display().to_string())
}

fn of_configuration(config: RoleConfig, place: &str) -> Result<Vec<Endpoint>, Failure> {
    match config {
        RoleConfig::Gateway(gateway) => Ok(gateway.router.control.map_resolvers),
        RoleConfig::Xtr(router) => Ok(router.control.map_resolvers),
        RoleConfig::Mapping(_) => Err(Failure::Usage(format!(
            "{place} configures no map-resolvers; name one: isthmus lig EID @ADDRESS"
        ))),
    }
}

/// The address of `resolver`, of the family of `source` if that is given.
fn resolve(resolver: &Endpoint, source: Option<IpAddr>) -> Result<IpAddr, Failure> {
    let name = match resolver {
        Endpoint::Address(address) => return Ok(*address),
        Endpoint::Name(name) => name,
    };
    let mut addresses = (name.as_str(), CONTROL_PORT)
        .to_socket_addrs()
        .map_err(|error| Failure::Failed(format!("{name}: {error}")))?
        .map(|address| address.ip());
    addresses
        .find(|address| source.is_none_or(|source| source.is_ipv4() == address.is_ipv4()))
        .ok_or_else(|| Failure::Failed(format!("{name} has no address of the family of --source")))
}

/// A reply to a lookup.
#[derive(Debug, Serialize)]
struct Found {
    eid: EidPrefix,
    map_resolver: IpAddr,
    /// Who answered: a Map-Server, or an ETR.
    source: SocketAddr,
    /// Map-Requests sent until then.
    tries: u32,
    rtt_micros: u64,
    /// Whether LISP-SEC proves it.
    secured: bool,
    records: Vec<FoundRecord>,
}

#[derive(Debug, Serialize)]
struct FoundRecord {
    prefix: String,
    ttl_minutes: u32,
    authoritative: bool,
    /// What it means to have no locator; `null` with locators.
    action: Option<&'static str>,
    locators: Vec<FoundLocator>,
}

#[derive(Debug, Serialize)]
struct FoundLocator {
    address: String,
    priority: u8,
    weight: u8,
    reachable: bool,
    /// Local to the ETR that answered.
    local: bool,
}

/// How long a lookup of `eid` takes from `own`, an address that is sent from: one Map-Request, one Map-Reply.
pub(crate) fn round_trip(eid: EidPrefix, resolver: IpAddr, own: IpAddr) -> io::Result<Duration> {
    let found = lookup(eid, resolver, Some(own), None, TRIES, PATIENCE);
    let found = found.map_err(|failure| io::Error::other(format!("{failure:?}")))?;
    Ok(Duration::from_micros(found.rtt_micros))
}

/// Sends Map-Requests for `eid` to `resolver` until one is answered.
fn lookup(
    eid: EidPrefix,
    resolver: IpAddr,
    source: Option<IpAddr>,
    key: Option<&Key>,
    tries: u32,
    patience: Duration,
) -> Result<Found, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("{resolver}: {error}"));
    let destination = SocketAddr::new(resolver, CONTROL_PORT);
    let own = match source {
        Some(source) => source,
        None => own_address_towards(destination).map_err(failed)?,
    };
    let socket = UdpSocket::bind(SocketAddr::new(own, 0))
        .map_err(|error| Failure::Failed(format!("cannot send from {own}: {error}")))?;
    let inner_source = socket.local_addr().map_err(failed)?;
    let mut sent: Vec<Sent> = Vec::new();
    let mut refused = None;
    for _ in 0..tries {
        let nonce = nonce().map_err(failed)?;
        let at = Instant::now();
        let mut ecm = encapsulated_request(eid, inner_source, nonce);
        let otk = key.map(|key| key.protect(&mut ecm, nonce)).transpose().map_err(failed)?;
        sent.push(Sent { nonce, at, otk });
        let request = Message::Encapsulated(ecm).to_vec();
        socket.send_to(&request, destination).map_err(failed)?;
        let waited = wait_for_reply(&socket, &sent, at + patience, &mut refused).map_err(failed)?;
        if let Some(Reply { records, source, rtt }) = waited {
            return Ok(Found {
                eid,
                map_resolver: resolver,
                source,
                tries: u32::try_from(sent.len()).unwrap_or(u32::MAX),
                rtt_micros: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
                secured: key.is_some(),
                records: records.iter().map(found_record).collect(),
            });
        }
    }
    let hint =
        if key.is_some() { ": compare --key-id and --key-file with its itr-keys" } else { "" };
    if let Some(reason) = refused {
        return Err(Failure::Failed(format!(
            "{resolver}: a reply for {eid} was refused: {reason}{hint}"
        )));
    }
    Err(Failure::Failed(format!(
        "{resolver} did not answer {tries} Map-Requests for {eid} in {:?}{hint}",
        patience * tries
    )))
}

/// The address the kernel would send from; nothing is sent.
fn own_address_towards(destination: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr =
        if destination.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(destination)?;
    Ok(socket.local_addr()?.ip())
}

fn nonce() -> io::Result<u64> {
    let mut octets = [0; 8];
    getrandom::fill(&mut octets).map_err(io::Error::other)?;
    Ok(u64::from_be_bytes(octets))
}

/// The reply comes to the inner source port at the ITR-RLOC (RFC 9301 §5.3), which is this socket's.
fn encapsulated_request(eid: EidPrefix, own: SocketAddr, nonce: u64) -> EncapsulatedControlMessage {
    let request =
        MapRequest::new(nonce, vec![Address::from(own.ip())], vec![RequestedEid::new(eid)]);
    let mut message = Vec::new();
    request.encode(&mut message);
    let destination = SocketAddr::new(eid.first().address, CONTROL_PORT);
    EncapsulatedControlMessage::new(own, destination, message)
}

/// A Map-Reply to one of our Map-Requests.
#[derive(Debug)]
struct Reply {
    records: Vec<EidRecord>,
    source: SocketAddr,
    rtt: Duration,
}

/// The first Map-Reply with a nonce of `sent`; anything else that arrives is not for us. Why a reply was `refused` is noted: another
/// one may be genuine.
fn wait_for_reply(
    socket: &UdpSocket,
    sent: &[Sent],
    until: Instant,
    refused: &mut Option<String>,
) -> io::Result<Option<Reply>> {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let (length, source) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let arrived = Instant::now();
        let Ok(Message::MapReply(reply)) = Message::parse(&buffer[..length]) else { continue };
        let Some(request) = sent.iter().find(|sent| sent.nonce == reply.nonce) else { continue };
        match vouched_for(request, &buffer[..length], reply) {
            Ok(records) => return Ok(Some(Reply { records, source, rtt: arrived - request.at })),
            Err(reason) => *refused = Some(reason),
        }
    }
}

/// The records of a reply, or why none is to be believed.
fn vouched_for(sent: &Sent, octets: &[u8], reply: MapReply) -> Result<Vec<EidRecord>, String> {
    let Some(authorized) = sent.open(octets).map_err(|error| error.to_string())? else {
        return Ok(reply.records);
    };
    let vouched = |record: &EidRecord| {
        record.eid.prefix().is_some_and(|prefix| authorized.intersection(&prefix).is_some())
    };
    match reply.records.iter().all(vouched) {
        true => Ok(reply.records),
        false => Err("it claims a prefix that the Map-Server does not vouch for".to_owned()),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn found_record(record: &EidRecord) -> FoundRecord {
    let locators = record.locators.iter().map(|locator| FoundLocator {
        address: match locator.address.rloc() {
            Some(rloc) => rloc.to_string(),
            None => locator.address.to_string(),
        },
        priority: locator.priority,
        weight: locator.weight,
        reachable: locator.reachable,
        local: locator.local,
    });
    FoundRecord {
        prefix: record.eid.to_string(),
        ttl_minutes: record.ttl_minutes,
        authoritative: record.authoritative,
        action: record.locators.is_empty().then(|| action_name(record.action)),
        locators: locators.collect(),
    }
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::NoAction => "no-action",
        Action::NativelyForward => "natively-forward",
        Action::SendMapRequest => "send-map-request",
        Action::Drop => "drop",
        Action::DropPolicyDenied => "drop-policy-denied",
        Action::DropAuthFailure => "drop-auth-failure",
        Action::Unassigned(_) => "unassigned",
    }
}

impl Found {
    fn text(&self) -> String {
        let tries = if self.tries == 1 { "try" } else { "tries" };
        let mut text = format!(
            "{}: reply from {} in {}, {} {tries}, Map-Resolver {}, secured: {}\n",
            self.eid,
            self.source.ip(),
            milliseconds(self.rtt_micros),
            self.tries,
            self.map_resolver,
            if self.secured { "yes" } else { "no" },
        );
        for record in &self.records {
            let kind = if record.authoritative { "authoritative" } else { "not authoritative" };
            let _ = write!(text, "{}, ttl {} min, {kind}", record.prefix, record.ttl_minutes);
            match record.action {
                Some(action) => {
                    let _ = writeln!(text, ", negative, action {action}");
                }
                None => {
                    let header = [("Locator", Left), ("State", Left), ("Pri/Wgt", Right)];
                    text.push('\n');
                    text += &table(2, &header, &record.rows());
                }
            }
        }
        text
    }
}

impl FoundRecord {
    fn rows(&self) -> Vec<Vec<String>> {
        let row = |locator: &FoundLocator| {
            let state = if locator.reachable { "up" } else { "unreachable" };
            let weights = format!("{}/{}", locator.priority, locator.weight);
            vec![locator.address.clone(), state.to_owned(), weights]
        };
        self.locators.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests;
