//! Every interval, retry and limit of the control plane, in one place, for every role.

use std::time::Duration;

// Registration: ETR side.

/// Between two Map-Registers of a registration (RFC 9301 §8.2, RG-02).
pub const REGISTRATION_INTERVAL: Duration = Duration::from_secs(60);
/// Between two Map-Registers after a start or a mapping change (RFC 9301 §8.2, RG-03).
pub const QUICK_REGISTRATION_INTERVAL: Duration = Duration::from_secs(20);
/// How long quick registration may last (RFC 9301 §8.2, RG-03).
pub const QUICK_REGISTRATION_PERIOD: Duration = Duration::from_secs(300);
/// First wait for a Map-Notify before the same Map-Register is sent again; doubles (RFC 9301 §5.7, RG-04).
pub const REGISTER_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait between retransmissions of a Map-Register (RFC 9301 §5.7, RG-04).
pub const REGISTER_RETRY_MAX: Duration = Duration::from_secs(60);

// Registration: Map-Server side.

/// How long a registration lives without refresh (RFC 9301 §8.2, MS-03).
pub const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(180);
/// For how long an identical Map-Register counts as a retransmission: longer than any retry of the ETR (RFC 9301 §5.7, AU-18).
pub const RETRANSMISSION_WINDOW: Duration = Duration::from_secs(90);
/// Between the first retransmissions of an unsolicited Map-Notify (RFC 9301 §5.7, MS-08).
pub const MAP_NOTIFY_RETRY: Duration = Duration::from_secs(3);
/// How many retransmissions go at [`MAP_NOTIFY_RETRY`] (RFC 9301 §5.7, MS-08).
pub const MAP_NOTIFY_STEADY_RETRIES: u32 = 3;
/// How many more go at doubling intervals (RFC 9301 §5.7, MS-08).
pub const MAP_NOTIFY_BACKOFF_RETRIES: u32 = 3;

// Subscriptions.

/// How long a subscription to what is not registered lives (RFC 9437 §5, PS-10).
pub const TEMPORARY_SUBSCRIPTION: Duration = Duration::from_secs(15 * 60);
/// Between two subscriptions to the same EID-prefix while it stays in the map-cache: bounds for how long a Map-Server that lost its
/// state goes unnoticed.
pub const SUBSCRIPTION_RENEWAL: Duration = Duration::from_secs(10 * 60);
/// Subscriptions held, over all xTRs, unless configured otherwise (PS-19).
pub const MAX_SUBSCRIPTIONS: usize = 262_144;
/// Publications per second, unless configured otherwise (PS-19).
pub const PUBLICATIONS_PER_SECOND: u32 = 5_000;
/// How often a paced Map-Server looks whether it may publish again.
pub const PUBLICATION_PACE: Duration = Duration::from_millis(10);
/// Publications waiting for their turn; more are left out until the next change.
pub const MAX_QUEUED_PUBLICATIONS: usize = 1_000_000;
/// Publications awaiting their Map-Notify-Ack.
pub const MAX_PENDING_PUBLICATIONS: usize = 65_536;
/// Subscriptions per second accepted of one xTR-ID (PS-19).
pub const SUBSCRIPTIONS_PER_SECOND: u32 = 500;
/// Burst of [`SUBSCRIPTIONS_PER_SECOND`].
pub const SUBSCRIPTIONS_BURST: u32 = 5_000;
/// Halves of buckets in which xTR-IDs are counted.
pub const TRACKED_SUBSCRIBERS: usize = 8_192;
/// (xTR-ID, EID-prefix) pairs whose last nonce is remembered beyond the subscription (PS-17).
pub const MAX_SUBSCRIPTION_NONCES: usize = 262_144;
/// One-time keys remembered as used (PS-22); beyond, the oldest are forgotten.
pub const MAX_USED_KEYS: usize = 1_000_000;

// Lookups.

/// Between two Map-Requests for one EID-prefix (RFC 9301 §5.3, RQ-12).
pub const MAP_REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Retransmissions of a Map-Request before a pause (RFC 9301 §5.3, RQ-13).
pub const MAP_REQUEST_RETRIES: u32 = 10;
/// The pause after [`MAP_REQUEST_RETRIES`] without a reply (RFC 9301 §5.3, RQ-13).
pub const MAP_REQUEST_PAUSE: Duration = Duration::from_secs(30);
/// Map-Requests per second of one node in total (RFC 9301 §9, RQ-23).
pub const MAP_REQUESTS_PER_SECOND: u32 = 1_000;
/// Outstanding lookups of one node (MC-27).
pub const PENDING_LOOKUPS: usize = 16_384;

// NAT traversal.

/// For how many minutes the RTRs of an Info-Reply may be kept, and so how often an xTR asks again (draft-ermagan-lisp-nat-traversal §4.1).
pub const RTR_LIST_TTL_MINUTES: u32 = 10;
/// Between two Map-Registers through an RTR, which keep the NAT's binding (§5.1.1: less than two minutes; RFC 4787 §4.3 allows a NAT
/// as little as two, deployed ones take 30 s).
pub const NAT_KEEPALIVE: Duration = Duration::from_secs(20);
/// The first wait for an Info-Reply; it doubles up to [`INFO_RETRY_MAX`].
pub const INFO_RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait for an Info-Reply.
pub const INFO_RETRY_MAX: Duration = Duration::from_secs(30);
/// How long an RTR waits for the Map-Notify of a Map-Register that it relayed.
pub const RTR_PENDING: Duration = Duration::from_secs(10);
/// Relayed Map-Registers without Map-Notify that an RTR remembers; half of them are for xTRs it knows.
pub const RTR_PENDING_LIMIT: usize = 8_192;
/// EID-prefixes of xTRs behind NATs that one RTR serves.
pub const RTR_REGISTRATIONS_LIMIT: usize = 65_536;
/// Map-Registers per second that an RTR relays for one address, behind which there may be many xTRs.
pub const RTR_REGISTERS_PER_SECOND: u32 = 100;
/// Data-Map-Notifies per second that an xTR verifies.
pub const DATA_MAP_NOTIFIES_PER_SECOND: u32 = 100;

// Replies.

/// Between two Map-Replies to one RLOC about one EID-prefix (RFC 9301 §5.4, RP-15).
pub const MAP_REPLY_INTERVAL: Duration = Duration::from_secs(3);
/// Map-Replies to one RLOC about one EID-prefix that may go ahead of [`MAP_REPLY_INTERVAL`]: an ITR whose answers are lost asks that often,
/// once per second, before it pauses (RFC 9301 §5.3, RQ-12, RQ-13), and over that pause the interval holds.
///
/// RFC 9301 §5.4 recommends one reply per 3 s. Taken without a burst, it answers about every third of the 11 tries of a lookup: where each hop
/// loses 30 %, some 3.5 replies, of which all are lost with 0.3^3.5 = 1.5 %. With the burst each try is answered, and a lookup fails with
/// (1 - 0.7^2)^11 = 0.06 %, or through the ETR, a hop more, with (1 - 0.7^3)^11 = 0.98 %. On average it is one per 3 s all the same: 11
/// replies are paid for in 33 s, and an ITR that keeps asking begins again after 10 s of tries and a pause of 30 s.
pub const MAP_REPLY_BURST: u32 = MAP_REQUEST_RETRIES + 1;
/// Record TTL in minutes of a Negative Map-Reply for an EID of no site (RFC 9301 §8.1, MS-10).
pub const NEGATIVE_TTL_MINUTES: u32 = 15;
/// Record TTL in minutes of a Negative Map-Reply for a configured but unregistered EID-prefix (RFC 9301 §8.1, MS-11).
pub const UNREGISTERED_TTL_MINUTES: u32 = 1;
/// Record TTL in minutes of own mappings (RFC 9301 §5.4: a day).
pub const RECORD_TTL_MINUTES: u32 = 1_440;
/// Record TTL on the wire that lets the receiver choose (RFC 9301 §5.4, MC-05).
pub const TTL_RECEIVER_CHOOSES: u32 = u32::MAX;
/// What a receiver chooses for [`TTL_RECEIVER_CHOOSES`] (MC-05).
pub const RECEIVER_CHOSEN_TTL: Duration = Duration::from_secs(24 * 3_600);

// The Delegated Database Tree.

/// Record TTL in minutes of NODE-REFERRAL, MS-REFERRAL and MS-ACK, and the longest that a referral is kept (RFC 8111 §6.4, DD-08).
pub const REFERRAL_TTL_MINUTES: u32 = 1_440;
/// Before an unanswered DDT Map-Request goes to the next RLOC (RFC 8111 §7.3.2, DD-18).
pub const DDT_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// DDT Map-Requests to one RLOC of a referral set (RFC 8111 §7.3.2, DD-18).
pub const DDT_TRIES: u32 = 3;
/// How long an RLOC that did not answer is asked last.
pub const DDT_SILENCE: Duration = Duration::from_secs(60);

// SMR and probing.

/// Between two SMRs to one RLOC (RFC 9301 §6.1, SM-03).
pub const SMR_INTERVAL: Duration = Duration::from_secs(3);
/// Between two SMR-invoked Map-Requests for one EID-prefix (RFC 9301 §6.1, SM-05).
pub const SMR_INVOKED_INTERVAL: Duration = Duration::from_secs(3);
/// How far back a remote RLOC counts as active when a mapping changes (RFC 9301 §6.1, SM-01).
pub const SMR_ACTIVE_PERIOD: Duration = Duration::from_secs(60);
/// Between two RLOC-probes of a locator that carries no traffic (RFC 9301 §7.1, PB-10).
pub const IDLE_PROBE_INTERVAL: Duration = Duration::from_secs(60);
/// Between two RLOC-probes of a locator that carries traffic.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Jitter of [`PROBE_INTERVAL`] and [`IDLE_PROBE_INTERVAL`], in percent either way (PB-10).
pub const PROBE_JITTER_PERCENT: u32 = 10;
/// Before an unanswered RLOC-probe is repeated, while its round-trip time is not known; at most the interval (PB-10).
pub const PROBE_RETRY: Duration = Duration::from_secs(1);
/// RLOC-probes that a locator that was down has to answer before it takes traffic from another one.
pub const PROBE_HOLD_DOWN: u32 = 3;
/// RLOC-probes without answer that declare a locator down (PB-10).
pub const PROBE_TRIES: u32 = 3;

// Marks of the data header, in trusted cores only.

/// How long Locator-Status-Bits stay away after a locator came or went (RFC 9300 §13.1, DH-22).
pub const USE_LSB_TIMER: Duration = Duration::from_secs(300);
/// Between two changes that the Locator-Status-Bits of one mapping may cause (DH-20).
pub const STATUS_BITS_INTERVAL: Duration = Duration::from_secs(1);
/// SMRs to an ITR with an old version of a mapping before its packets are dropped (RFC 9302 §7.1, MV-11).
pub const STALE_VERSION_SMRS: u32 = 10;
/// Between two SMRs to such an ITR after that (RFC 9302 §7.1).
pub const STALE_VERSION_PAUSE: Duration = Duration::from_secs(30);
/// ITRs with an old version of a mapping that are remembered.
pub const TRACKED_STALE_ITRS: usize = 4_096;
/// Between two requests for a nonce to be echoed by a locator (RFC 9300 §10.1).
pub const ECHO_NONCE_INTERVAL: Duration = Duration::from_secs(30);
/// How often a request is looked after.
pub const ECHO_NONCE_CHECK: Duration = Duration::from_secs(1);
/// A request that nothing came back for, neither echo nor packets without it, ends after this time.
pub const ECHO_NONCE_PATIENCE: Duration = Duration::from_secs(10);

// Sizes (CW-06): the largest control packet sent without knowledge of the path MTU, IP header included.

/// Over IPv4 (RFC 8085 §3.2).
pub const CONTROL_PACKET_IPV4: usize = 576;
/// Over IPv6 (RFC 8085 §3.2).
pub const CONTROL_PACKET_IPV6: usize = 1_280;
/// IPv4 header without options and UDP header.
pub const OVERHEAD_IPV4: usize = 28;
/// IPv6 and UDP header.
pub const OVERHEAD_IPV6: usize = 48;

/// The largest UDP payload of a control message to `destination` (CW-06).
pub const fn control_payload_limit(destination: std::net::IpAddr) -> usize {
    match destination {
        std::net::IpAddr::V4(_) => CONTROL_PACKET_IPV4 - OVERHEAD_IPV4,
        std::net::IpAddr::V6(_) => CONTROL_PACKET_IPV6 - OVERHEAD_IPV6,
    }
}

// Bounds of the Map-Server and Map-Resolver.

/// Map-Registers per second accepted of one source, before any MAC (MS-23).
pub const REGISTERS_PER_SECOND: u32 = 2_000;
/// Burst of [`REGISTERS_PER_SECOND`].
pub const REGISTERS_BURST: u32 = 10_000;
/// Other control messages, and records of a Map-Request beyond its first, per second accepted of one source (MS-23).
pub const REQUESTS_PER_SECOND: u32 = 2_000;
/// Burst of [`REQUESTS_PER_SECOND`].
pub const REQUESTS_BURST: u32 = 10_000;
/// Buckets that sources have for their rates (MS-23).
pub const TRACKED_SOURCES: usize = 65_536;
/// Map-Registers per second from all sources together that have not registered before: a MAC is computed for each.
pub const STRANGERS_REGISTERS_PER_SECOND: u32 = 50_000;
/// Burst of [`STRANGERS_REGISTERS_PER_SECOND`].
pub const STRANGERS_REGISTERS_BURST: u32 = 100_000;
/// Other control messages per second from all sources together that have not registered or asked before.
pub const STRANGERS_REQUESTS_PER_SECOND: u32 = 100_000;
/// Burst of [`STRANGERS_REQUESTS_PER_SECOND`].
pub const STRANGERS_REQUESTS_BURST: u32 = 200_000;
/// Map-Registers per second that name one site, before any MAC: a million EID-prefixes a minute, and as much again.
pub const SITE_REGISTERS_PER_SECOND: u32 = 40_000;
/// Burst of [`SITE_REGISTERS_PER_SECOND`].
pub const SITE_REGISTERS_BURST: u32 = 80_000;
/// The same from sources that have not registered before.
pub const SITE_STRANGERS_PER_SECOND: u32 = 5_000;
/// Burst of [`SITE_STRANGERS_PER_SECOND`].
pub const SITE_STRANGERS_BURST: u32 = 20_000;
/// Sources remembered that registered: as many as ETRs.
pub const KNOWN_ETRS: usize = 262_144;
/// Sources remembered that asked.
pub const KNOWN_ITRS: usize = 65_536;
/// For how long a source is remembered after it was heard last.
pub const ACQUAINTANCE: Duration = Duration::from_secs(3_600);
/// How long after a source asked first it has to ask again to be remembered.
pub const PROBATION: Duration = Duration::from_secs(1);
/// Map-Replies per second to one ITR-RLOC (RP-20).
pub const REPLIES_PER_SECOND: u32 = 1_000;
/// Burst of [`REPLIES_PER_SECOND`].
pub const REPLIES_BURST: u32 = 5_000;
/// (ITR-RLOC, EID-prefix) pairs whose last Map-Reply is remembered (RP-15).
pub const TRACKED_REPLIES: usize = 262_144;
/// How often a Map-Request is passed on to an ETR; beyond it, it is going in a circle.
pub const MAX_FORWARDS: u8 = 4;
/// For how long passing on is remembered, at least.
pub const FORWARD_MEMORY: Duration = Duration::from_secs(5);
/// Map-Requests whose passing on is remembered.
pub const TRACKED_FORWARDS: usize = 262_144;
/// EID-prefixes that one protected answer vouches for (RFC 9303 §6.1): what fits beside the records.
pub const MAX_VOUCHED_PREFIXES: usize = 8;
/// Registrations held, over all sites: one per EID-prefix and xTR.
pub const MAX_REGISTRATIONS: usize = 2_000_000;
/// Distinguished names registered, over all sites.
pub const MAX_NAMES: usize = 65_536;
/// Registrations of one site, unless configured otherwise.
pub const MAX_SITE_REGISTRATIONS: usize = 1_000_000;
/// Octets of the locators of all registrations as on the wire: ten IPv4 locators for each of [`MAX_REGISTRATIONS`].
pub const MAX_REGISTERED_OCTETS: usize = 256 << 20;
/// xTRs of one EID-prefix whose registrations are merged (MS-17).
pub const MAX_REGISTRANTS: usize = 64;
/// Locators of one EID-prefix: Locator Count is 8 bits (RFC 9301 §5.4).
pub const MAX_LOCATORS: usize = 255;
/// Peers whose last nonce is remembered (AU-16).
pub const MAX_NONCES: usize = MAX_REGISTRATIONS;
/// Unsolicited Map-Notifies awaiting their Map-Notify-Ack (MS-08).
pub const MAX_PENDING_NOTIFIES: usize = 65_536;
/// Messages that may wait for their changes to be kept before Map-Registers are refused.
pub const MAX_WAITING_FOR_STORE: usize = 131_072;
/// Payloads of sent datagrams kept to be filled again.
pub const SPARE_PAYLOADS: usize = 4_096;
/// Refused registrations that `show` can tell of, the newest.
pub const MAX_REFUSALS: usize = 256;
/// Lookups that one client may have under way through the tree (RFC 8111 §7.3.1).
pub const PENDING_LOOKUPS_PER_SOURCE: usize = 2_048;
/// Lookups under way with one nonce: the records of one Map-Request, or ITRs that happened to choose the same.
pub const PENDING_LOOKUPS_PER_NONCE: usize = 64;
/// DDT Map-Requests per second to one DDT node (RQ-23).
pub const DDT_REQUESTS_PER_SECOND: u32 = 2_000;
/// Burst of [`DDT_REQUESTS_PER_SECOND`].
pub const DDT_REQUESTS_BURST: u32 = 4_000;
/// Referrals followed for one lookup (RFC 8111 §7.3.4, DD-19).
pub const MAX_REFERRALS: u32 = 32;
/// RLOCs of a referral set that are asked.
pub const MAX_REFERRAL_RLOCS: usize = 8;
/// Referrals learned and kept (RFC 8111 §7.3.1).
pub const MAX_REFERRALS_CACHED: usize = 65_536;
/// DDT nodes remembered for not answering.
pub const MAX_SILENT_RLOCS: usize = 4_096;
/// Events kept for the daemon to log; older ones make room.
pub const MAX_EVENTS: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn cw_06_payload_limits_leave_room_for_the_headers() {
        assert_eq!(control_payload_limit(Ipv4Addr::LOCALHOST.into()), 548);
        assert_eq!(control_payload_limit(Ipv6Addr::LOCALHOST.into()), 1_232);
    }
}
