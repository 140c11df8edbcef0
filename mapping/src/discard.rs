//! Why a control message was discarded: the one list that counters, `show drops`, metrics and events of every role share.

use std::fmt;

use crate::admin::DropCount;
use crate::auth::AuthError;
use crate::sec::SecError;
use crate::wire::WireError;

crate::named! {
    /// Why a control message, or one record of it, was discarded.
    Discard;

    Truncated "truncated" "The message ends inside a field: counts or lengths point beyond its end (RFC 9301 §5).";
    UnsupportedType "unsupported_type" "A message type this node does not handle (RFC 9301 §5.1).";
    UnknownAfi "unknown_afi" "An address family without a known length makes the message unreadable (RFC 9301 §5.1).";
    MaskLength "mask_length" "A mask length beyond the width of its address family (RFC 9301 §5.2).";
    JsonLength "json_length" "The Length of a JSON LCAF is not that of its parts (RFC 8060 §4.15), as lispers.net writes it for telemetry: give the [[site]], in a router the entry of `peers`, profile = \"lispers.net\".";
    RegisterEncrypted "register_encrypted" "The Map-Register is encrypted as only lispers.net does, with one key stream for all messages: take `encryption-key` out of its `lisp map-server`; `authentication-key` stays.";
    NestedLcaf "nested_lcaf" "LCAF nested deeper than the limit (RFC 8060 §3).";
    Malformed "malformed" "A field does not hold together: a wrong length, inner port or nested message (RFC 9301 §5.8).";
    InnerChecksum "inner_checksum" "A checksum inside an Encapsulated Control Message is wrong, or zero as lispers.net sends it (RFC 9301 §5.8).";
    UnknownVendor "unknown_vendor" "A Vendor-Specific LCAF of an organisation that is not understood (RFC 9306 §4).";
    WrongPort "wrong_port" "Neither the source nor the destination UDP port is 4342 (RFC 9301 §5).";
    UnexpectedMessage "unexpected_message" "A well-formed message that this role has no use for, such as a Map-Register at an ETR or a Map-Reply at a Map-Server (RFC 9301 §8.3).";
    UnexpectedInner "unexpected_inner" "An Encapsulated Control Message carries something other than a Map-Request (RFC 9301 §5.8).";
    SourceMartian "source_martian" "The source address of the message can be nobody's: unspecified, multicast or broadcast.";
    SourceRateLimited "source_rate_limited" "The source sends more control messages, or asks for more EIDs in them, than its share; dropped before any MAC was computed (RFC 9301 §9).";
    StrangersRateLimited "strangers_rate_limited" "All sources together that never registered nor asked before send more than their share: a flood from spoofed sources. Known sources are served still.";
    SiteRateLimited "site_rate_limited" "More Map-Registers name EID-prefixes of this site than its share; dropped before any MAC was computed.";
    StoreBehind "store_behind" "The Map-Register came while too many others wait to be kept: the disk or the cluster is too slow, or does not work.";
    UnsupportedEid "unsupported_eid" "The EID of the record is no IP prefix of a supported instance (RFC 9306 §3).";
    InstanceUnsupported "instance_unsupported" "An Instance ID above 24 bits, which no data header carries, or a range of instances: register each instance (RFC 8060 §4.1).";
    NotASite "not_a_site" "No configured site has an EID-prefix that covers this record: add it to a [[site]] (RFC 9301 §8.2).";
    MoreSpecificRefused "more_specific_refused" "A more-specific of a configured EID-prefix: set accept-more-specifics on the prefix to allow it (RFC 9301 §8.2).";
    OtherSite "other_site" "The record belongs to another site than the one whose key signed the message (RFC 9301 §8.2, §8.3).";
    LocatorRefused "locator_refused" "A locator of the record lies outside the site's allowed-locators (RFC 9301 §8.2), or is unspecified, broadcast or link-local multicast (RFC 9301 §5.4).";
    KeyUnknown "key_unknown" "There is no key with this Key ID: compare key-id at both ends; for Map-Notifies to a subscriber, give `subscribe` the key that the Map-Server has (RFC 9301 §5.6).";
    AlgorithmRefused "algorithm_refused" "The authentication algorithm is unknown or not allowed with this key: compare `algorithm` at the peer with `algorithms` and `profile` of the site (RFC 9301 §1.1, §5.6).";
    AuthenticationFailed "authentication_failed" "The Authentication Data does not verify: compare the keys at both ends (RFC 9301 §5.7).";
    Replayed "replayed" "The nonce is not greater than the last accepted one of this xTR and key: a replay, or a peer that does not count its nonces (RFC 9301 §5.6).";
    MapVersionOlder "map_version_older" "The Map-Version is older than the registered one (RFC 9302 §5).";
    RegistryFull "registry_full" "The registration would exceed the bound on registrations or on their locators.";
    SiteFull "site_full" "The registration would exceed the site's max-registrations.";
    SiteDown "site_down" "The site is shut down by the operator: remove admin-down to let it register (RFC 9301 §8.3).";
    AckNotExpected "ack_not_expected" "A Map-Notify-Ack that answers no outstanding Map-Notify (RFC 9301 §5.7).";
    SubscriptionReplayed "subscription_replayed" "The nonce of a subscription is not greater than the last one of this xTR-ID and EID-prefix: a replay, or an xTR that lost its nonces (RFC 9437 §5).";
    SubscriptionRefused "subscription_refused" "An ITR-RLOC of a subscription lies outside the allowed-locators of its site or subscriber: answered with ACT 4 (RFC 9437 §5).";
    SubscriptionKeyReused "subscription_key_reused" "The one-time key of a subscription was used before: answered with ACT 5 (RFC 9437 §7.1).";
    SubscriptionUnkeyed "subscription_unkeyed" "A subscription without LISP-SEC by a Site-ID that no [[site]] or [[subscriber]] has: answered by Map-Reply (RFC 9437 §3).";
    SubscriptionLimit "subscription_limit" "The bound on subscriptions or on their rate is reached: answered by Map-Reply (RFC 9437 §5).";
    PublicationReplayed "publication_replayed" "A publication whose nonce is not greater than the last one of its EID-prefix: a replay, or a Map-Server that lost its state (RFC 9437 §6).";
    PublicationUnsubscribed "publication_unsubscribed" "A publication of an EID-prefix that was not subscribed to: see accept-unsubscribed (RFC 9437 §5).";
    PlainMapRequest "plain_map_request" "A Map-Request outside an Encapsulated Control Message, which is no lookup (RFC 9301 §8.4).";
    ProbeRefused "probe_refused" "A Map-Request with the P-bit came through the mapping system (RFC 9301 §5.2, §5.8).";
    SmrRefused "smr_refused" "A Map-Request with the S-bit came to the mapping system, where it is no lookup (RFC 9301 §6.1).";
    ClientUnknown "client_unknown" "A Map-Request from a source outside every prefix of `clients` (RFC 9301 §9): add it there.";
    ForwardLoop "forward_loop" "The same Map-Request came again and again: a registered locator leads to a Map-Resolver, not to an ETR.";
    SecurityMissing "lisp_sec_missing" "A Map-Request, or the Map-Reply to a protected one, without LISP-SEC data, which is required here (RFC 9303 §6.9, RFC 9301 §9): an older peer, or somebody took it out.";
    SecurityMalformed "lisp_sec_malformed" "LISP-SEC data that does not hold together (RFC 9303 §6.1, §6.2).";
    KeyUnwrapped "otk_not_wrapped" "A one-time key in the clear or in an unknown wrapping (RFC 9303 §6.4): the peer has no key-id and key for LISP-SEC.";
    OtkKeyUnknown "otk_key_unknown" "The one-time key is wrapped with a Key ID that is not configured here: compare key-id at both ends (RFC 9303 §6.5).";
    OtkForged "otk_unwrap_failed" "The one-time key does not unwrap: compare the keys at both ends (RFC 9303 §6.5).";
    EidAdForged "eid_ad_failed" "The EID-AD of a Map-Reply does not verify with our one-time key: it was changed on the way (RFC 9303 §6.9).";
    PacketAdForged "pkt_ad_failed" "The PKT-AD of a Map-Reply does not verify: it was changed on the way, or is not from the ETR (RFC 9303 §6.9).";
    SecurityDowngraded "lisp_sec_other_ids" "A Map-Reply with another HMAC or KDF ID than asked for; asked again with other IDs (RFC 9303 §6.9).";
    PrefixOverclaimed "prefix_overclaimed" "A record of a protected Map-Reply for an EID-prefix that the Map-Server did not vouch for (RFC 9303 §6.9).";
    NoItrRloc "no_itr_rloc" "No ITR-RLOC of an address family of ours can be answered (RFC 9301 §5.3, §5.5).";
    ItrRlocMartian "itr_rloc_martian" "Every ITR-RLOC is multicast, broadcast, loopback, link-local, reserved or the answering node itself (RFC 9301 §9).";
    ReplyRateLimited "reply_rate_limited" "The same EID-prefix was just answered to the same RLOC (RFC 9301 §5.4).";
    DontMapReply "dont_map_reply" "The Map-Request has the D-bit: no Map-Reply is wanted (RFC 9301 §5.2).";
    NotAuthoritative "not_authoritative" "A Map-Request for an EID in none of our EID-prefixes (RFC 9300 §4.2(4)).";
    MapDataIgnored "map_data_ignored" "Mapping data carried in a Map-Request is never used unverified (RFC 9301 §5.3).";
    NonceUnknown "nonce_unknown" "A reply whose nonce matches nothing outstanding: late, duplicate or spoofed (RFC 9301 §5.3, §5.7).";
    ReplyPrefixMismatch "reply_prefix_mismatch" "A record of a Map-Reply does not cover the requested EID (RFC 9301 §5.5).";
    ProbeNotAuthoritative "probe_not_authoritative" "A probe reply with a record without the A-bit (RFC 9301 §5.4).";
    ProbeUnknownLocator "probe_unknown_locator" "A probe reply for a locator that the map-cache no longer has.";
    SmrWithoutCacheEntry "smr_without_cache_entry" "An SMR for an EID that is not in the map-cache (RFC 9301 §6.1).";
    SmrRateLimited "smr_rate_limited" "An SMR for an EID-prefix that was just asked for (RFC 9301 §6.1).";
    MapRequestRateLimited "map_request_rate_limited" "Lookups exceed the bound on Map-Requests: a scan of the EID space (RFC 9301 §9).";
    MapServerUnknown "map_server_unknown" "A Map-Notify from an address that is none of our Map-Servers.";
    NotifyMismatch "notify_mismatch" "A Map-Notify whose records are none of our registrations (RFC 9301 §5.7).";
    PendingFull "pending_full" "The bound on outstanding lookups is reached (RFC 7835 §3.7).";
    RequestTooLong "request_too_long" "A Map-Request too long to be passed on without knowing the path MTU (RFC 9301 §5).";
    NotAResolver "not_a_resolver" "A lookup for an EID that is delegated to others, or that the tree has elsewhere: add roots to [ddt] to follow it.";
    ReferralNotAsked "referral_not_asked" "A Map-Referral from an address that was not asked: late, or spoofed.";
    ReferralMismatch "referral_mismatch" "A Map-Referral about a prefix without the EID asked for, or wider than its sender was asked about (RFC 8111 §8.2).";
    ReferralLoop "referral_loop" "A Map-Referral to a prefix that is no longer than the last one: DDT nodes delegate in a circle (RFC 8111 §7.3.2).";
    ReferralLimit "referral_limit" "More referrals than a lookup may take (RFC 8111 §7.3.4).";
    ReferralUnusable "referral_unusable" "A Map-Referral, or a configured referral, with an unassigned action or without an RLOC that can be asked (RFC 8111 §6.2).";
    ReferralNotAuthoritative "referral_not_authoritative" "A DDT node that others refer to says it is not authoritative: its parent's delegation and its own configuration differ (RFC 8111 §7.3.2).";
    DdtUnanswered "ddt_unanswered" "No DDT node of a referral set answered, so the lookup was given up without a reply (RFC 8111 §7.3.2).";
    NatNotConfigured "nat_not_configured" "An Info-Request of an xTR that wants to know of RTRs, but there are none: add rtrs to [nat].";
    RtrUnknown "rtr_unknown" "A Map-Register in an Encapsulated Control Message, from somebody who is none of nat.rtrs: add the router there if it is yours.";
    XtrOther "xtr_other" "A Data-Map-Notify with another xTR-ID than ours: the RTR or the NAT confuses two xTRs, or two have the same RLOC behind one NAT.";
    NatBindingUnknown "nat_binding_unknown" "A Data-Map-Notify from somebody who is not the RTR that an own RLOC uses: late, or spoofed.";
    XtrUnidentified "xtr_unidentified" "A Map-Register to relay without xTR-ID, or that wants no Map-Notify: set xtr-id at the xTR.";
    RelayRefused "relay_refused" "A Map-Register to relay to somebody who is none of the map-servers in rtr.nat: add the Map-Server there if it serves your sites.";
    NatEidRefused "nat_eid_refused" "A Map-Register to relay for an EID-prefix outside of rtr.eid-prefixes.";
    NatFull "nat_full" "The bound on Map-Registers under way, or on EID-prefixes behind NATs, is reached.";
    NatUnproved "nat_unproved" "A Map-Notify to relay without the authentication data that Map-Server and RTR share: give the Map-Server the key in its nat.rtrs.";
    SendFailed "send_failed" "The kernel refused to send a control message: no route, or the interface is down.";
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<WireError> for Discard {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Truncated(_) => Self::Truncated,
            WireError::UnsupportedType(_) => Self::UnsupportedType,
            WireError::UnknownAfi(_) => Self::UnknownAfi,
            WireError::MaskLength(_) => Self::MaskLength,
            WireError::JsonLength => Self::JsonLength,
            WireError::EncryptedRegister => Self::RegisterEncrypted,
            WireError::Nesting => Self::NestedLcaf,
            WireError::UnknownEid(_) => Self::UnsupportedEid,
            WireError::UnknownVendor(_) => Self::UnknownVendor,
            WireError::Checksum(_) | WireError::ZeroChecksum => Self::InnerChecksum,
            WireError::EncapsulatedProbe => Self::ProbeRefused,
            WireError::DataPort | WireError::NestedEncapsulation | WireError::Malformed(_) => {
                Self::Malformed
            }
        }
    }
}

impl From<AuthError> for Discard {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Malformed(error) => error.into(),
            AuthError::Algorithm(_) => Self::AlgorithmRefused,
            AuthError::Length(_) | AuthError::Mismatch => Self::AuthenticationFailed,
        }
    }
}

impl From<SecError> for Discard {
    fn from(error: SecError) -> Self {
        match error {
            SecError::Malformed(_) => Self::SecurityMalformed,
            SecError::Wrapping(_) | SecError::Unencrypted => Self::KeyUnwrapped,
            SecError::Unwrap => Self::OtkForged,
            SecError::Unprotected => Self::SecurityMissing,
            SecError::EidMismatch => Self::EidAdForged,
            SecError::PacketMismatch => Self::PacketAdForged,
            SecError::Hmac(_)
            | SecError::Kdf(_)
            | SecError::OtherHmac(_)
            | SecError::OtherKdf(_) => Self::SecurityDowngraded,
        }
    }
}

/// One counter per [`Discard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscardCounters([u64; Discard::COUNT]);

impl Default for DiscardCounters {
    fn default() -> Self {
        Self([0; Discard::COUNT])
    }
}

impl DiscardCounters {
    /// Counts one discarded message or record.
    pub fn count(&mut self, reason: Discard) {
        self.0[reason as usize] += 1;
    }

    /// How many were discarded for `reason`.
    pub fn get(&self, reason: Discard) -> u64 {
        self.0[reason as usize]
    }

    /// How many were discarded for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count, zero ones too.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> {
        Discard::ALL.iter().map(|&reason| (reason, self.get(reason)))
    }

    /// The counters above zero, as `show drops` prints them.
    pub fn non_zero(&self) -> Vec<DropCount> {
        let mut all = self.all();
        all.retain(|drop| drop.count > 0);
        all
    }

    /// By name, beside other counters: with `control_` before it.
    pub fn as_counters(&self) -> impl Iterator<Item = (String, u64)> {
        self.iter().map(|(reason, count)| (format!("control_{reason}"), count))
    }

    /// Every counter.
    pub fn all(&self) -> Vec<DropCount> {
        self.iter()
            .map(|(reason, count)| DropCount {
                reason: reason.name().to_owned(),
                count,
                help: reason.help().to_owned(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_helps_are_sentences() {
        let names: BTreeSet<_> = Discard::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Discard::COUNT);
        for reason in Discard::ALL {
            assert!(reason.help().ends_with('.'), "{reason}");
            // An operator has the RFCs, not the list of requirements.
            let mut words = reason.help().split(|c: char| !(c.is_alphanumeric() || c == '-'));
            let is_id = |word: &str| {
                word.len() == 5
                    && word.as_bytes()[2] == b'-'
                    && word[..2].chars().all(|c| c.is_ascii_uppercase())
            };
            assert!(!words.any(is_id), "{reason}");
        }
    }

    #[test]
    fn counters_count_each_reason_on_its_own() {
        let mut counters = DiscardCounters::default();
        counters.count(Discard::Replayed);
        counters.count(Discard::Replayed);
        counters.count(WireError::Nesting.into());
        assert_eq!(counters.get(Discard::Replayed), 2);
        assert_eq!(counters.total(), 3);
        let shown: Vec<_> = counters.non_zero().into_iter().map(|d| (d.reason, d.count)).collect();
        assert_eq!(shown, [("nested_lcaf".to_owned(), 1), ("replayed".to_owned(), 2)]);
    }
}
