//! What every counter means, and how monitoring sees it. The one list that metrics, `isthmus top` and the page of counters share; why
//! packets and messages are dropped stands in [`DropReason`](xtr::drops::DropReason) and [`Discard`](mapping::discard::Discard).

use mapping::server::Count;

/// How a value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
}

/// A counter of `show counters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Its name there.
    pub counter: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The metric, without `isthmus_` and, of a counter, `_total`.
    pub metric: &'static str,
    /// The label that tells it from others of this metric.
    pub label: Option<(&'static str, &'static str)>,
    /// In a sentence.
    pub help: &'static str,
}

const fn counter(counter: &'static str, help: &'static str) -> Meaning {
    Meaning { counter, kind: Kind::Counter, metric: counter, label: None, help }
}

const fn gauge(counter: &'static str, help: &'static str) -> Meaning {
    Meaning { counter, kind: Kind::Gauge, metric: counter, label: None, help }
}

const fn called(meaning: Meaning, metric: &'static str) -> Meaning {
    Meaning { metric, ..meaning }
}

const fn labelled(
    counter: &'static str,
    metric: &'static str,
    label: (&'static str, &'static str),
    help: &'static str,
) -> Meaning {
    Meaning { counter, kind: Kind::Counter, metric, label: Some(label), help }
}

const NATIVE_PACKETS: &str =
    "Packets from the native side (in) and to it (out); a super-packet counts as its segments.";
const NATIVE_OCTETS: &str =
    "Octets of packets from the native side (in) and to it (out), IP headers included.";
const CORE_PACKETS: &str = "LISP packets from the core (in) and to it (out).";
const CORE_OCTETS: &str =
    "Octets of the packets inside LISP packets from the core (in) and to it (out).";
const ENCAPSULATED: &str =
    "Packets from the native side that got a LISP header, by an ITR or a PITR.";
const DECAPSULATED: &str = "Packets from the core that lost theirs, by an ETR or a PETR.";
const REENCAPSULATED: &str = "Packets that came in encapsulated and left so, by an RTR.";
const RECEIVED: &str =
    "LISP packets from the core, by the family of the packets inside and of the tunnel.";
const RECEIVED_OCTETS: &str = "Octets of the packets inside LISP packets from the core, by the family of the packets inside and of the tunnel.";
const SENT: &str =
    "Packets encapsulated or re-encapsulated, by their family and that of the tunnel.";
const V4_IN_V4: (&str, &str) = ("families", "ipv4-in-ipv4");
const V4_IN_V6: (&str, &str) = ("families", "ipv4-in-ipv6");
const V6_IN_V4: (&str, &str) = ("families", "ipv6-in-ipv4");
const V6_IN_V6: (&str, &str) = ("families", "ipv6-in-ipv6");
const IN: (&str, &str) = ("direction", "in");
const OUT: (&str, &str) = ("direction", "out");

/// Counters of the data plane.
pub const DATA: &[Meaning] = &[
    labelled("native_in_packets", "native_packets", IN, NATIVE_PACKETS),
    labelled("native_out_packets", "native_packets", OUT, NATIVE_PACKETS),
    labelled("native_in_octets", "native_bytes", IN, NATIVE_OCTETS),
    labelled("native_out_octets", "native_bytes", OUT, NATIVE_OCTETS),
    labelled("core_in_packets", "core_packets", IN, CORE_PACKETS),
    labelled("core_out_packets", "core_packets", OUT, CORE_PACKETS),
    labelled("core_in_octets", "core_bytes", IN, CORE_OCTETS),
    labelled("core_out_octets", "core_bytes", OUT, CORE_OCTETS),
    labelled("itr_encap", "encapsulated_packets", ("role", "itr"), ENCAPSULATED),
    labelled("pitr_encap", "encapsulated_packets", ("role", "pitr"), ENCAPSULATED),
    labelled("etr_decap", "decapsulated_packets", ("role", "etr"), DECAPSULATED),
    labelled("petr_decap", "decapsulated_packets", ("role", "petr"), DECAPSULATED),
    labelled("rtr_reencap", "reencapsulated_packets", ("role", "rtr"), REENCAPSULATED),
    labelled("reencapsulated", "reencapsulated_packets", ("role", "xtr"), REENCAPSULATED),
    labelled("received_ipv4_in_ipv4_packets", "received_packets", V4_IN_V4, RECEIVED),
    labelled("received_ipv4_in_ipv6_packets", "received_packets", V4_IN_V6, RECEIVED),
    labelled("received_ipv6_in_ipv4_packets", "received_packets", V6_IN_V4, RECEIVED),
    labelled("received_ipv6_in_ipv6_packets", "received_packets", V6_IN_V6, RECEIVED),
    labelled("received_ipv4_in_ipv4_octets", "received_bytes", V4_IN_V4, RECEIVED_OCTETS),
    labelled("received_ipv4_in_ipv6_octets", "received_bytes", V4_IN_V6, RECEIVED_OCTETS),
    labelled("received_ipv6_in_ipv4_octets", "received_bytes", V6_IN_V4, RECEIVED_OCTETS),
    labelled("received_ipv6_in_ipv6_octets", "received_bytes", V6_IN_V6, RECEIVED_OCTETS),
    labelled("sent_ipv4_in_ipv4_packets", "sent_packets", V4_IN_V4, SENT),
    labelled("sent_ipv4_in_ipv6_packets", "sent_packets", V4_IN_V6, SENT),
    labelled("sent_ipv6_in_ipv4_packets", "sent_packets", V6_IN_V4, SENT),
    labelled("sent_ipv6_in_ipv6_packets", "sent_packets", V6_IN_V6, SENT),
    called(gauge("held", "Packets held for a mapping right now."), "held_packets"),
    counter(
        "core_bursts",
        "Sends that took LISP packets to the core: packets per send tell how well bursts form.",
    ),
    counter("native_writes", "Writes that took packets to the native side."),
    counter(
        "ring_frames",
        "Packets and super-packets that came by the ring of an interface, not by the TUN.",
    ),
    counter("icmp_errors", "ICMP errors sent to the source of a packet."),
    counter("icmp_suppressed", "ICMP errors not sent: rate limit, or a rule forbids one."),
    counter("fragments_created", "Pieces beyond the first, over all split packets."),
    counter("path_mtu_lowered", "Reports from the path that lowered the MTU of a locator."),
    counter(
        "ecn_unused_combination",
        "Combinations of outer and inner ECN that RFC 6040 marks as unused.",
    ),
    counter(
        "control_in_data",
        "Control messages that came behind LISP headers and were handed to the control plane.",
    ),
];

/// Counters of a tunnel router's control plane; they are there from the first time on.
pub const CONTROL: &[Meaning] = &[
    counter("messages_received", "Control messages received."),
    counter("map_requests_sent", "Map-Requests sent, to Map-Resolvers and to ETRs."),
    counter(
        "map_requests_received",
        "Map-Requests received, RLOC-probes included where the role answers them.",
    ),
    counter("map_replies_sent", "Map-Replies sent."),
    counter("map_replies_received", "Map-Replies that answered a lookup."),
    counter("map_registers_sent", "Map-Registers sent."),
    counter("map_notifies_received", "Map-Notifies that acknowledged a Map-Register."),
    counter("map_notifies_unsolicited", "Map-Notifies that a Map-Server sent unasked."),
    counter("map_notify_acks_sent", "Map-Notify-Acks sent."),
    counter("smrs_sent", "Solicit-Map-Requests sent: an own mapping changed."),
    counter("smrs_not_sent", "Solicit-Map-Requests not sent: too many were waiting."),
    counter("smrs_received", "Solicit-Map-Requests received."),
    counter("probes_sent", "RLOC-probes sent."),
    counter("probe_replies_received", "RLOC-probes answered."),
    counter("path_probes_sent", "Padded RLOC-probes sent, for the path MTU."),
    counter("path_probe_replies_received", "Padded RLOC-probes answered."),
    counter("resolver_checks_sent", "Map-Requests sent to see whether a Map-Resolver answers."),
    counter("resolver_checks_answered", "Such Map-Requests answered."),
    counter("map_cache_added", "EID-prefixes that came into the map-cache."),
    counter("map_cache_updated", "Map-cache entries confirmed or changed."),
    counter("map_cache_removed", "EID-prefixes that left the map-cache."),
    counter("map_cache_evictions", "Map-cache entries that made room, among those that left."),
    counter("locators_rerouted", "Remote RLOCs reached from another own RLOC from then on."),
    counter(
        "unreachable_reports",
        "ICMP errors that took a remote RLOC down until a probe says better.",
    ),
    counter(
        "unreachable_reports_doubted",
        "Such ICMP errors not believed: a probe had just been answered.",
    ),
    counter("unassigned_actions", "Negative mappings with an action that no RFC assigns."),
    counter("protected_map_requests_sent", "Map-Requests sent with LISP-SEC."),
    counter("protected_map_replies_sent", "Map-Replies sent with LISP-SEC."),
    counter("protected_map_replies_received", "Map-Replies verified by LISP-SEC."),
    called(
        counter(
            "lisp_sec_downgrades",
            "Lookups repeated without LISP-SEC: no ETR of the EID-prefix can sign.",
        ),
        "lisp_security_downgrades",
    ),
    counter("subscriptions_acknowledged", "Subscriptions acknowledged by a Map-Server."),
    counter("subscriptions_refused", "Subscriptions refused by a Map-Server."),
    counter("subscriptions_lost", "Subscriptions that ended without being given up."),
    counter("unsubscriptions_sent", "Map-Requests that give up a subscription."),
    counter("publications_received", "Publications of changed mappings accepted."),
    counter("publications_repeated", "Publications received again."),
    counter("dynamic_eids_detected", "Hosts of dynamic-EID ranges that came here."),
    counter(
        "dynamic_eids_expired",
        "Hosts of dynamic-EID ranges that gave no sign of life any more.",
    ),
    counter("dynamic_eids_moved_away", "Hosts of dynamic-EID ranges that are at another site now."),
    counter(
        "dynamic_eids_away_removed",
        "Hosts that were at another site and are no longer known there.",
    ),
    counter(
        "dynamic_eids_away_over_limit",
        "Hosts at other sites that are not watched: the range is at its limit.",
    ),
    counter("dynamic_eids_over_limit", "Hosts not registered: the range is at its limit."),
    counter(
        "dynamic_eids_contested",
        "Hosts that a Map-Server has elsewhere while they are here: told once more.",
    ),
    counter(
        "dynamic_eids_disowned",
        "Withdrawals of hosts that the mapping system has here although they are not.",
    ),
    counter(
        "dynamic_eids_held_down",
        "Hosts that came back too often and are left where they are for a while.",
    ),
    counter(
        "dynamic_eids_unconfigured",
        "Hosts let go: no range of the configuration that was reloaded holds them.",
    ),
    counter(
        "mappings_doubted",
        "Mappings of no use, such as those without a usable locator, asked for anew before their TTL is over.",
    ),
    counter(
        "json_lengths_mended",
        "Messages of lispers.net whose JSON LCAFs have a wrong Length, read by the length of their parts.",
    ),
    counter("host_moves_refused", "Moves of such hosts not heeded."),
    counter("moved_hosts_sent_to", "Packets' senders told that a host is elsewhere."),
    counter(
        "moved_hosts_sent_back",
        "Packets for a host that each of two routers has at the other.",
    ),
    counter(
        "hosts_on_other_interfaces",
        "Hosts of a dynamic-EID range seen on an interface that is none of its own.",
    ),
    counter(
        "hosts_ignored_rate_limited",
        "Sightings of hosts beyond what is looked at in a second.",
    ),
    counter("hosts_heard", "Sightings of hosts on the links of dynamic-EID ranges."),
    counter("host_frames_not_sane", "ARP and Neighbor Discovery messages that no host sends."),
    counter(
        "host_frames_rate_limited",
        "ARP and Neighbor Discovery messages beyond what is looked at in a second.",
    ),
    counter("proxy_answers_sent", "Answers given to hosts in place of a host that is elsewhere."),
    counter(
        "host_changes_failed",
        "Routes and neighbour entries of hosts that the kernel refused.",
    ),
    counter("info_requests_sent", "Info-Requests sent, to find a NAT."),
    counter("info_replies_received", "Info-Replies received."),
    counter("map_registers_through_rtr", "Map-Registers sent through an RTR."),
    counter("data_map_notifies_received", "Data-Map-Notifies that an RTR brought."),
    counter("map_registers_relayed", "Map-Registers relayed to a Map-Server, by an RTR."),
    counter("data_map_notifies_sent", "Data-Map-Notifies sent to xTRs behind NATs, by an RTR."),
    called(
        counter("status_bits_changes", "Changes of Locator-Status-Bits heeded, in a trusted core."),
        "locator_status_changes",
    ),
    counter(
        "stale_map_versions",
        "Packets with an old version of an own mapping, in a trusted core.",
    ),
    counter(
        "stale_map_versions_untracked",
        "ITRs with old map-versions that were solicited but, beyond 4096 of them, not refused afterwards.",
    ),
    counter(
        "newer_map_versions",
        "Packets with a newer version of a cached mapping, in a trusted core.",
    ),
    counter(
        "echo_nonces_requested",
        "Nonces that remote RLOCs were asked to echo, in a trusted core.",
    ),
    counter("echo_nonces_received", "Nonces echoed."),
    counter("echo_nonces_missing", "Nonces that were not echoed although packets came."),
    gauge("map_cache_entries", "Entries of the map-cache."),
    gauge("lookups_outstanding", "Lookups that wait for their Map-Reply."),
    gauge("remote_rlocs", "Remote RLOCs in use."),
];

/// What a Map-Server has beside [`Count`].
pub const MAPPING: &[Meaning] = &[
    gauge("eid_prefixes_registered", "EID-prefixes registered."),
    gauge("registrations", "Registrations: EID-prefixes by xTR."),
    gauge("names_registered", "Distinguished names registered."),
    called(gauge("nonces", "Nonces remembered against replay."), "nonces_remembered"),
    gauge("map_notifies_pending", "Unsolicited Map-Notifies that wait for their Map-Notify-Ack."),
    gauge("subscriptions", "Subscriptions."),
    gauge("publications_queued", "Publications that wait for their turn."),
    gauge("publications_pending", "Publications that wait for their Map-Notify-Ack."),
    counter("messages_discarded", "Messages and records discarded, for all reasons together."),
    counter("ddt_map_requests_sent", "DDT Map-Requests sent."),
    counter("ddt_map_requests_retransmitted", "DDT Map-Requests sent again."),
    counter("ddt_map_requests_held_back", "DDT Map-Requests held back by the rate limit."),
    counter("map_referrals_received", "Map-Referrals received."),
    counter("ddt_lookups_completed", "Lookups that came through the Delegated Database Tree."),
    gauge("ddt_lookups_pending", "Lookups on their way through the Delegated Database Tree."),
    gauge("referrals_cached", "Entries of the referral cache."),
    counter("receive_bursts", "Bursts of messages read from a socket."),
    counter("receive_bursts_full", "Bursts that were as long as a burst may be."),
    counter(
        "receive_queue_drops",
        "Messages that the kernel dropped: the receive queue of a socket was full.",
    ),
    gauge("messages_waiting_for_store", "Messages that wait until what they acknowledge is kept."),
    counter("send_bursts", "Bursts of messages written to a socket."),
    counter("messages_sent", "Messages sent."),
    counter("send_queue_full", "Times that the send queue of a socket was full."),
];

/// A metric with a value per locator, registration or site, without `isthmus_`.
pub const SERIES: &[(&str, Kind, &str)] = &[
    ("locator_up", Kind::Gauge, "Whether a remote RLOC is up: 1, else 0."),
    (
        "locator_rtt_seconds",
        Kind::Gauge,
        "Round-trip time of RLOC-probes to a remote RLOC, smoothed.",
    ),
    ("locator_probes_sent", Kind::Counter, "RLOC-probes sent to a remote RLOC."),
    ("locator_probes_answered", Kind::Counter, "RLOC-probes that a remote RLOC answered."),
    ("locator_mappings", Kind::Gauge, "EID-prefixes that use a remote RLOC."),
    ("locator_mtu_bytes", Kind::Gauge, "Largest outer packet towards a remote RLOC."),
    (
        "registration_up",
        Kind::Gauge,
        "Whether a Map-Server has an own EID-prefix registered: 1, else 0.",
    ),
    ("site_registrations", Kind::Gauge, "EID-prefixes that a site has registered."),
    (
        "site_records_accepted",
        Kind::Counter,
        "Records of a site's Map-Registers that were accepted.",
    ),
    ("site_records_refused", Kind::Counter, "Messages and records of a site that were refused."),
    (
        "site_last_register_age_seconds",
        Kind::Gauge,
        "Time since a site's last accepted Map-Register.",
    ),
];

/// Histograms, without `isthmus_` and `_seconds`.
pub const HISTOGRAMS: &[(&str, &str)] = &[
    (
        "map_request_resolution",
        "From the first Map-Request of a lookup to the Map-Reply that answered it.",
    ),
    ("forwarding_convergence", "From hearing of a change to the forwarding table that knows it."),
];

/// What the counter `name` means; `None` of the drops, and of what is not in any list.
pub fn meaning(name: &str) -> Option<Meaning> {
    let listed = [DATA, CONTROL, MAPPING].into_iter().flatten();
    let listed = listed.copied().find(|meaning| meaning.counter == name);
    let of_server = || Count::ALL.iter().find(|count| count.name() == name);
    listed.or_else(|| of_server().map(|count| counter(count.name(), count.help())))
}
