//! Why a packet was dropped: the one list that counters, `show drops`, metrics and explanations share.

mapping::named! {
    /// Why the data plane dropped a packet.
    DropReason;

    InnerMalformed "inner_malformed" "Not a well-formed IPv4 or IPv6 packet: version, header length or total length is wrong (RFC 1812 §5.2.2).";
    InnerSourceMartian "inner_source_martian" "The inner source can be nobody's: unspecified, loopback, link-local, multicast, reserved (RFC 1812 §5.3.7).";
    InnerDestinationMartian "inner_destination_martian" "The inner destination is loopback, link-local, multicast, broadcast or unspecified (RFC 1812 §5.3.7, §5.3.4).";
    NativeCutOff "native_cut_off" "Larger than a frame of the ring, and its socket's buffer was full: the worker is overloaded, or net.core.rmem_max too small.";
    NativeRingFull "native_ring_full" "The ring of a native interface was full (intake = \"ring\"): the worker is overloaded, or the kernel could not describe a super-packet.";
    HopLimitExceeded "hop_limit_exceeded" "TTL or Hop Limit ran out (RFC 9300 §5.3).";
    SourceNotEid "source_not_eid" "The packet came from the site side with a source outside every configured EID-prefix: check [[eid]] or the host's address.";
    DynEidNotAllowed "dyn_eid_not_allowed" "The packet came from the site side with a source outside every [[eid]] and every [[dynamic-eid]] range: a host that is not allowed to move here.";
    DestinationNotAggregate "destination_not_aggregate" "The destination lies in no configured EID aggregate, so the PITR must not encapsulate it (RFC 6832 §5).";
    SourceInAggregate "source_in_aggregate" "A LISP site's source arrived from the native side (RFC 3704 §2): a spoofed packet or a routing loop.";
    MapCacheMissHoldFull "miss_hold_full" "The mapping is being resolved and the packets held for it are at their bound (RFC 9300 §6, RFC 7835 §3.7).";
    MapCacheMissTimeout "miss_timeout" "The mapping was not resolved in time: check the map-resolvers with `isthmus lig`.";
    PuntQueueFull "punt_queue_full" "The control plane is behind: the miss could not be reported.";
    ActionNoAction "action_no_action" "The mapping says No-Action: the prefix has no usable locator (RFC 9301 §5.4).";
    ActionDrop "action_drop" "The mapping says Drop/No-Reason (RFC 9301 §5.4).";
    ActionPolicyDenied "action_policy_denied" "The mapping says Drop/Policy-Denied (RFC 9301 §5.4).";
    ActionAuthFailure "action_auth_failure" "The mapping says Drop/Auth-Failure (RFC 9301 §5.4).";
    NativeWouldLoop "native_would_loop" "The mapping says forward natively, but the native route leads back to this proxy (RFC 6832 §5.2).";
    NoCommonRlocFamily "no_common_rloc_family" "The destination has locators, none in an address family of ours, and no PETR/RTR bridges them (RFC 9301 §7): configure use-petr.";
    NoUsableLocator "no_usable_locator" "Every locator of the mapping is down, unreachable or has priority 255 (RFC 9301 §7).";
    FollowedToSender "followed_to_sender" "The packet's host, of a [[dynamic-eid]] range, is said to be at the tunnel router that sent the packet here: two routers have it at the other, until the mapping system tells both.";
    EncapsulationLoop "encapsulation_loop" "The chosen locator is one of our own addresses (RFC 2473 §4.1.2).";
    NestedTooDeep "nested_too_deep" "The packet already carries two LISP headers (RFC 9300 §4).";
    PacketTooBig "packet_too_big" "Larger than the path allows and not to be fragmented; the source is told by ICMP (RFC 9300 §7.1).";
    OuterSourceMartian "outer_source_martian" "The outer source is multicast, unspecified, loopback, or one of our own addresses (RFC 9301 §5.4).";
    LispHeaderTruncated "lisp_header_truncated" "Shorter than a LISP header and a minimal inner packet (RFC 1812 §5.2.2).";
    KeyIdUnknown "key_id_unknown" "KK is set but no key exists: an encrypted packet we cannot read (RFC 9300 §5.3).";
    InstanceUnknown "instance_unknown" "The Instance ID is not configured here (RFC 9300 §8).";
    EcnNotEctCe "ecn_not_ect_ce" "Outer CE over an inner Not-ECT packet must be dropped (RFC 6040 §4.2).";
    DestinationNotLocalEid "destination_not_local_eid" "Decapsulated, but the inner destination is none of our EIDs: a stale mapping at the sender (RFC 9300 §4.2(7)).";
    PetrSourceNotAccepted "petr_source_not_accepted" "The inner source lies in no EID-prefix of petr.accept-from.eids (RFC 6832 §6.1).";
    PetrRlocNotAccepted "petr_rloc_not_accepted" "The outer source lies in no prefix of petr.accept-from.rlocs (RFC 9300 §16).";
    PetrSourceNotRegistered "petr_source_not_registered" "The mapping system knows no site with the inner source, and petr.accept-from takes registered ones only (RFC 6832 §6.1, RFC 9300 §16).";
    PetrRlocNotOfSite "petr_rloc_not_of_site" "The outer source is no locator of the inner source's mapping (RFC 9300 §16): forged, or the site has just moved.";
    PetrDestinationIsEid "petr_destination_is_eid" "The inner destination is an EID and this gateway is no RTR for it (RFC 6832 §6): configure [rtr].";
    PetrDestinationPrivate "petr_destination_private" "The inner destination is private, shared, or this gateway's own address (RFC 1812 §5.3.7): set petr.allow-private-destinations if it is meant.";
    PitrSourceNotAccepted "pitr_source_not_accepted" "The source lies in no prefix of pitr.accept-from (RFC 6832 §9).";
    LocatorRateLimited "locator_rate_limited" "More packets to or from one RLOC than data.rate-limit.per-locator allows.";
    SiteRateLimited "site_rate_limited" "More packets to or from one site than data.rate-limit.per-site allows.";
    MapVersionUnexpected "map_version_unexpected" "From the trusted core: the header has map-versions, but our mapping has none, or it names version 0 (RFC 9302 §6.1, §7.1).";
    MapVersionNewer "map_version_newer" "From the trusted core: a newer version of our mapping than there is (RFC 9302 §7.1): forged, or our versions were lost in a restart; keep them with xtr.state-dir.";
    MapVersionStale "map_version_stale" "From the trusted core: an old version of our mapping, whose TTL has passed or after ten Solicit-Map-Requests (RFC 9302 §7.1): the ITR does not look it up.";
    SourceVersionOlder "source_version_older" "From the trusted core: an older version of the source's mapping than the map-cache has (RFC 9302 §7.2): forged, or its site's tunnel routers disagree.";
    OuterTruncated "outer_truncated" "The datagram did not fit its buffer or its control data was missing.";
    BuffersExhausted "buffers_exhausted" "No send slot or socket buffer was free: the worker or its interface is overloaded.";
    SendFailed "send_failed" "The kernel refused to send the encapsulated packet: no route to the RLOC, or the interface is down.";
    TunWriteFailed "tun_write_failed" "The kernel refused the decapsulated packet.";
    WorkerFailed "worker_failed" "The worker that had the packet ended: `isthmus show status` says why; the other workers go on.";
}
