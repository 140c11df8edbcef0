//! The output of a packet that goes nowhere: it writes down what happens.
use super::view::{DeliveredView, IcmpView, LocatorChoice, Outcome, OuterView, SizeView, StepView};
use super::{Background, Mapping};
use crate::counters::Traffic;
use crate::drops::DropReason;
use crate::fib::{Adjacency, LocatorSet, Verdict};
use crate::forward::{Outer, Output, Step};
use crate::marks::HeaderMarks;
use crate::packet::{Family, Fit, IcmpError, Inner, OuterFields, lisp, mtu};
use crate::policy::{Onward, Policy};
use crate::view::MapCacheEntryView;
use mapping::eid::{Eid, EidPrefix, InstanceId};
use mapping::wire::CONTROL_PORT;
use std::net::IpAddr;

/// Takes notes of one packet.
pub(crate) struct Recorder<'a> {
    background: &'a dyn Background,
    policy: &'a dyn Policy,
    source_ports: &'a [u16],
    /// Octets of each packet that would leave encapsulated, outer header included.
    pub(crate) sent: Vec<usize>,
    pub(crate) steps: Vec<StepView>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) dropped: Option<DropReason>,
    pub(crate) entry: Option<MapCacheEntryView>,
    pub(crate) locator: Option<LocatorChoice>,
    pub(crate) outer: Option<OuterView>,
    pub(crate) size: Option<SizeView>,
    pub(crate) delivered: Option<DeliveredView>,
    pub(crate) icmp: Option<IcmpView>,
    addresses: Option<(IpAddr, IpAddr)>,
    /// Outer source and instance of a packet from the core.
    carrier: Option<(IpAddr, InstanceId)>,
    instance_id: InstanceId,
    configured_mtu: u16,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(
        background: &'a dyn Background,
        policy: &'a dyn Policy,
        source_ports: &'a [u16],
    ) -> Self {
        Self {
            background,
            policy,
            source_ports,
            sent: Vec::new(),
            steps: Vec::new(),
            outcome: None,
            dropped: None,
            entry: None,
            locator: None,
            outer: None,
            size: None,
            delivered: None,
            icmp: None,
            addresses: None,
            carrier: None,
            instance_id: InstanceId::DEFAULT,
            configured_mtu: 0,
        }
    }

    pub(super) fn say(&mut self, step: &str, text: impl Into<String>) {
        self.steps.push(StepView { step: step.to_owned(), text: text.into() });
    }

    fn looked_up(&mut self, eid: Eid, verdict: &Verdict) {
        self.instance_id = eid.instance_id;
        let Mapping { entry, own, asking, resolver } = self.background.mapping_of(eid);
        let text = match (&entry, own) {
            (Some(entry), _) => of_entry(entry),
            (None, Some(own)) => format!("{own} is an EID-prefix of this site"),
            (None, None) => match verdict {
                Verdict::Miss => "no entry".to_owned(),
                _ => "an entry that is about to go".to_owned(),
            },
        };
        self.say("map-cache", text);
        self.entry = entry;
        match verdict {
            Verdict::Miss => {
                let text = match (asking, resolver) {
                    (true, Some(resolver)) => format!("being asked for at {resolver}"),
                    (false, Some(resolver)) => format!("would ask Map-Resolver {resolver}"),
                    (_, None) => "no Map-Resolver can be asked".to_owned(),
                };
                self.say("miss", text);
            }
            Verdict::Native => self.say("action", "forward natively"),
            Verdict::Drop(_) => self.say("action", "drop"),
            Verdict::Encapsulate(_) => {}
        }
    }

    fn chosen(&mut self, set: &LocatorSet, adjacency: &Adjacency, flow_hash: u64, outer: &Outer) {
        let share_permille = share(set, adjacency);
        let candidates = set.adjacencies.len();
        let state = self.entry.as_ref().and_then(|entry| {
            let known = entry.locators.iter().find(|view| view.address == adjacency.destination)?;
            let petr = if known.petr { ", PETR" } else { "" };
            Some(format!("priority {}, {}{petr}", known.priority, known.state.name()))
        });
        let mut text = adjacency.destination.to_string();
        text.extend(state.map(|state| format!(", {state}")));
        text += &match candidates {
            1 => ", the only one of its priority that can be used".to_owned(),
            _ => format!(
                ", weight {}: carries {}.{} % of the flows, one of {candidates}; flow hash {flow_hash:016x}",
                adjacency.weight,
                share_permille / 10,
                share_permille % 10
            ),
        };
        self.say("locator", text);
        self.configured_mtu = adjacency.mtu;
        self.locator = Some(LocatorChoice {
            address: adjacency.destination,
            own_rloc: adjacency.source,
            weight: adjacency.weight,
            share_permille,
            candidates,
            flow_hash: format!("{flow_hash:016x}"),
        });
        self.set_outer(adjacency.source, outer);
    }

    fn set_outer(&mut self, source: IpAddr, outer: &Outer) {
        let OuterFields { ttl, tos } = outer.fields;
        // A packet that may be fragmented leaves from a socket of its own, on the first port.
        let port = if outer.may_fragment { 0 } else { usize::from(outer.port) };
        self.outer = Some(OuterView {
            source,
            destination: outer.destination,
            source_port: match outer.translated {
                Some(_) => CONTROL_PORT,
                None => self.source_ports.get(port).copied().unwrap_or_default(),
            },
            destination_port: outer.translated.unwrap_or(lisp::DATA_PORT),
            ttl,
            dscp: tos >> 2,
            ecn: tos & 3,
            instance_id: self.instance_id.get(),
            may_fragment: outer.may_fragment,
        });
    }

    fn unwrapped(&mut self, source: IpAddr, instance_id: InstanceId, inner: &Inner, depth: usize) {
        if depth > 1 {
            self.say("nested", format!("another LISP header, from {source}"));
        }
        self.say("LISP header", format!("instance {instance_id}"));
        self.carrier = Some((source, instance_id));
        self.addresses = Some((inner.source, inner.destination));
    }

    fn policy_text(&self) -> String {
        match (self.carrier, self.addresses) {
            (None, Some((source, destination))) => self.policy.native_rule(source, destination),
            (Some((rloc, id)), Some((source, destination))) => {
                self.policy.decapsulated_rule(rloc, id, source, destination)
            }
            (_, None) => String::new(),
        }
    }

    fn answered(&mut self, error: IcmpError) {
        let Some((to, _)) = self.addresses else { return };
        let (kind, name, mtu) = match error {
            IcmpError::TooBig(mtu) if to.is_ipv4() => {
                ("packet-too-big", "Fragmentation Needed", Some(mtu))
            }
            IcmpError::TooBig(mtu) => ("packet-too-big", "Packet Too Big", Some(mtu)),
            IcmpError::HopLimitExceeded => ("time-exceeded", "Time Exceeded", None),
            IcmpError::HostUnreachable => ("host-unreachable", "Destination Unreachable", None),
        };
        let value = mtu.map_or_else(String::new, |mtu| format!(" with MTU {mtu}"));
        self.say("ICMP", format!("{to} is told: {name}{value}, within the rate of such errors"));
        self.icmp = Some(IcmpView { kind: kind.to_owned(), to, mtu });
    }

    fn was_refused_by_policy(&self) -> bool {
        let last = self.steps.last().map(|step| step.step.as_str());
        last == Some("addresses")
    }

    /// Completes what can only be said at the end.
    pub(crate) fn finish(&mut self) {
        if let Some(outer) = self.outer.clone()
            && !self.sent.is_empty()
        {
            let OuterView { source, destination, source_port, ttl, dscp, ecn, .. } = outer;
            let may_fragment = if outer.may_fragment { "DF clear" } else { "DF" };
            let df = if source.is_ipv4() { format!(", {may_fragment}") } else { String::new() };
            let instance = match outer.instance_id {
                0 => String::new(),
                id => format!(", instance {id}"),
            };
            let from = std::net::SocketAddr::new(source, source_port);
            let text = format!(
                "{from} -> {}, TTL {ttl}, DSCP {dscp}, ECN {ecn}{df}{instance}",
                std::net::SocketAddr::new(destination, lisp::DATA_PORT),
            );
            self.say("outer header", text);
        }
        if let Some(mut size) = self.size.take() {
            size.sent.clone_from(&self.sent);
            self.say("size", of_size(&size, self.outer.as_ref()));
            self.size = Some(size);
        }
        if let Some(DeliveredView { length, ttl, dscp, ecn }) = self.delivered {
            let text = format!("{length} octets, TTL {ttl}, DSCP {dscp}, ECN {ecn}");
            self.say("inner header", text);
        }
    }
}

impl Output for Recorder<'_> {
    const IS_LIVE: bool = false;

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Parsed(inner) => self.addresses = Some((inner.source, inner.destination)),
            Step::Unwrapped { source, instance_id, inner, depth } => {
                self.unwrapped(source, instance_id, inner, depth);
            }
            Step::NotMartian => self.say("addresses", "not martian"),
            Step::Admitted(instance_id) => {
                let text = format!("accepted: {}; instance {instance_id}", self.policy_text());
                self.say("policy", text);
            }
            Step::Accepted(onward) => {
                let onward = match onward {
                    Onward::Deliver | Onward::DeliverOwn(_) => "to be delivered",
                    Onward::Reencapsulate => "to be encapsulated again",
                    Onward::Follow(_) => "for a host that comes and goes",
                };
                let text = format!("accepted: {}; {onward}", self.policy_text());
                self.say("policy", text);
            }
            Step::Marked(marks) if *marks == HeaderMarks::default() => {}
            Step::Marked(marks) => self.say("marks", marks.to_string()),
            Step::Registered(source) => {
                let text = format!(
                    "{source} is registered, and the outer source is a locator of its mapping"
                );
                self.say("source", text);
            }
            Step::LookedUp(eid, verdict) => self.looked_up(eid, verdict),
            Step::Chosen { set, adjacency, flow_hash, outer } => {
                self.chosen(set, adjacency, flow_hash, outer);
            }
            Step::Sized { mtu, limit, len, fit } => {
                self.size = Some(SizeView {
                    inner: len,
                    sent: Vec::new(),
                    path_mtu: mtu,
                    configured_mtu: self.configured_mtu,
                    largest_inner: limit,
                    fit: fit_name(fit).to_owned(),
                });
            }
            Step::Punted => {
                self.say("control message", "handed to the control plane");
                self.outcome = Some(Outcome::Deliver);
            }
            Step::Held => self.outcome = Some(Outcome::Wait),
            Step::Answered(error) => self.answered(error),
            Step::Dropped(reason) => {
                if self.was_refused_by_policy() {
                    let text = format!("refused: {}", self.policy_text());
                    self.say("policy", text);
                }
                self.outcome = Some(Outcome::Drop);
                self.dropped = Some(reason);
            }
        }
    }

    fn encapsulated(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        if let Some(source) = self.outer.as_ref().map(|outer| outer.source) {
            self.set_outer(source, outer);
        }
        let outer_len = mtu::overhead(Family::of(&outer.destination)) - lisp::HEADER_LEN;
        self.sent.push(outer_len + headers.len() + payload.len());
        self.outcome = Some(match self.carrier {
            Some(_) => Outcome::Reencapsulate,
            None => Outcome::Encapsulate,
        });
        Ok(())
    }

    fn forwarded(&mut self, _frame: &[u8], _traffic: Traffic) -> Result<(), DropReason> {
        self.outcome = Some(Outcome::ForwardNatively);
        Ok(())
    }

    fn delivered(
        &mut self,
        _flow_hash: u64,
        inner: &Inner,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let (dscp, ecn) = (inner.tos >> 2, inner.tos & 3);
        self.delivered = Some(DeliveredView { length: packet.len(), ttl: inner.ttl, dscp, ecn });
        self.outcome = Some(Outcome::Deliver);
        Ok(())
    }
}

/// A locator's part of the flows by weight, thousandths (MC-20 to MC-22).
fn share(set: &LocatorSet, adjacency: &Adjacency) -> u32 {
    let weights = || set.adjacencies.iter().map(|adjacency| u32::from(adjacency.weight));
    let even = weights().all(|weight| weight == u32::from(adjacency.weight));
    let (part, whole) = match even {
        true => (1, set.adjacencies.len() as u32),
        false => (u32::from(adjacency.weight), weights().sum()),
    };
    part * 1000 / whole.max(1)
}

fn of_entry(entry: &MapCacheEntryView) -> String {
    let prefix = match InstanceId::new(entry.instance_id) {
        Some(id) => EidPrefix::new(id, entry.prefix).to_string(),
        None => entry.prefix.to_string(),
    };
    let expires = match entry.expires_seconds {
        Some(seconds) => format!("expires in {}", span(seconds)),
        None => "never expires".to_owned(),
    };
    let secured = if entry.secured { ", secured" } else { "" };
    let via = entry.via.name();
    format!("{prefix}, via {via}, {}{secured}, {expires}", entry.state)
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

const fn fit_name(fit: Fit) -> &'static str {
    match fit {
        Fit::Fits => "fits",
        Fit::FitsFragmentedOutside => "fragment-outside",
        Fit::Fragment => "fragment",
        Fit::TooBig(_) => "too-big",
    }
}

fn of_size(size: &SizeView, outer: Option<&OuterView>) -> String {
    let SizeView { inner, path_mtu, configured_mtu, largest_inner, .. } = size;
    let family = outer.map_or(Family::V4, |outer| Family::of(&outer.destination));
    let headers = mtu::overhead(family);
    let lowered = match path_mtu == configured_mtu {
        true => String::new(),
        false => format!(" ({configured_mtu} without reports from the path)"),
    };
    let sum = format!("{inner} + {headers} = {} octets", inner + headers);
    let path = format!("path MTU {path_mtu}{lowered}");
    match size.fit.as_str() {
        "fits" => format!("{sum}, {path}: fits"),
        "fragment" => {
            let sent: Vec<String> = size.sent.iter().map(ToString::to_string).collect();
            format!("{sum}, {path}: split into fragments, sent as {} octets", sent.join(" and "))
        }
        "fragment-outside" => format!("{sum}, {path}: may be fragmented on the way"),
        _ => format!("{sum}, {path}: too big, at most {largest_inner} octets fit inside"),
    }
}
