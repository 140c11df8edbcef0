//! Why a packet was dropped: the one list that counters, `show drops`, metrics and explanations share.

mapping::named! {
    /// Why the data plane dropped a packet.
    DropReason;

    InnerMalformed "inner_malformed" "Not a well-formed IPv4 or IPv6 packet: version, header length or total length is wrong (DE-05).";
    InnerSourceMartian "inner_source_martian" "The inner source can be nobody's: unspecified, loopback, link-local, multicast, reserved (DE-20).";
    InnerDestinationMartian "inner_destination_martian" "The inner destination is loopback, link-local, multicast, broadcast or unspecified (DE-22, EN-31).";
    NativeCutOff "native_cut_off" "Larger than a frame of the ring, and its socket's buffer was full: the worker is overloaded, or net.core.rmem_max too small.";
    NativeRingFull "native_ring_full" "The ring of a native interface was full (intake = \"ring\"): the worker is overloaded, or the kernel could not describe a super-packet.";
    HopLimitExceeded "hop_limit_exceeded" "TTL or Hop Limit ran out (EN-05).";
    SourceNotEid "source_not_eid" "The packet came from the site side with a source outside every configured EID-prefix: check [[eid]] or the host's address.";
    DestinationNotAggregate "destination_not_aggregate" "The destination lies in no configured EID aggregate, so the PITR must not encapsulate it (PI-03).";
    SourceInAggregate "source_in_aggregate" "A LISP site's source arrived from the native side (PI-08): a spoofed packet or a routing loop.";
    MapCacheMissHoldFull "miss_hold_full" "The mapping is being resolved and the packets held for it are at their bound (MC-02, MC-27).";
    MapCacheMissTimeout "miss_timeout" "The mapping was not resolved in time: check the map-resolvers with `isthmus lig`.";
    PuntQueueFull "punt_queue_full" "The control plane is behind: the miss could not be reported.";
    ActionNoAction "action_no_action" "The mapping says No-Action: the prefix has no usable locator (MC-10).";
    ActionDrop "action_drop" "The mapping says Drop/No-Reason (MC-13).";
    ActionPolicyDenied "action_policy_denied" "The mapping says Drop/Policy-Denied (MC-14).";
    ActionAuthFailure "action_auth_failure" "The mapping says Drop/Auth-Failure (MC-14).";
    NativeWouldLoop "native_would_loop" "The mapping says forward natively, but the native route leads back to this proxy (PI-05).";
    NoCommonRlocFamily "no_common_rloc_family" "The destination has locators, none in an address family of ours, and no PETR/RTR bridges them (EN-25): configure use-petr.";
    NoUsableLocator "no_usable_locator" "Every locator of the mapping is down, unreachable or has priority 255 (PB-19).";
    EncapsulationLoop "encapsulation_loop" "The chosen locator is one of our own addresses (EN-24).";
    NestedTooDeep "nested_too_deep" "The packet already carries two LISP headers (EN-23, DE-24).";
    PacketTooBig "packet_too_big" "Larger than the path allows and not to be fragmented; the source was told by ICMP (MT-06, MT-07).";
    OuterSourceMartian "outer_source_martian" "The outer source is multicast, unspecified, loopback, or one of our own addresses (DE-21).";
    LispHeaderTruncated "lisp_header_truncated" "Shorter than a LISP header and a minimal inner packet (DE-05).";
    KeyIdUnknown "key_id_unknown" "KK is set but no key exists: an encrypted packet we cannot read (DH-12).";
    InstanceUnknown "instance_unknown" "The Instance ID is not configured here (DE-16, DE-25).";
    EcnNotEctCe "ecn_not_ect_ce" "Outer CE over an inner Not-ECT packet must be dropped (DE-11, RFC 6040 §4.2).";
    DestinationNotLocalEid "destination_not_local_eid" "Decapsulated, but the inner destination is none of our EIDs: a stale mapping at the sender (DE-19).";
    PetrSourceNotAccepted "petr_source_not_accepted" "The inner source lies in no EID-prefix of petr.accept-from.eids (PE-02, PE-03).";
    PetrRlocNotAccepted "petr_rloc_not_accepted" "The outer source lies in no prefix of petr.accept-from.rlocs (PE-04).";
    PetrSourceNotRegistered "petr_source_not_registered" "The mapping system knows no site with the inner source, and petr.accept-from takes registered ones only (PE-02, PE-04).";
    PetrRlocNotOfSite "petr_rloc_not_of_site" "The outer source is no locator of the inner source's mapping (PE-04, DE-23): forged, or the site has just moved.";
    PetrDestinationIsEid "petr_destination_is_eid" "The inner destination is an EID and this gateway is no RTR for it (PE-06): configure [rtr].";
    PetrDestinationPrivate "petr_destination_private" "The inner destination is private, shared, or this gateway's own address (PE-07): set petr.allow-private-destinations if it is meant.";
    PitrSourceNotAccepted "pitr_source_not_accepted" "The source lies in no prefix of pitr.accept-from (PI-09).";
    LocatorRateLimited "locator_rate_limited" "More packets to or from one RLOC than data.rate-limit.per-locator allows.";
    SiteRateLimited "site_rate_limited" "More packets to or from one site than data.rate-limit.per-site allows.";
    OuterTruncated "outer_truncated" "The datagram did not fit its buffer or its control data was missing.";
    BuffersExhausted "buffers_exhausted" "No send slot or socket buffer was free: the worker or its interface is overloaded.";
    SendFailed "send_failed" "The kernel refused to send the encapsulated packet: no route to the RLOC, or the interface is down.";
    TunWriteFailed "tun_write_failed" "The kernel refused the decapsulated packet.";
    WorkerFailed "worker_failed" "The worker that had the packet ended: `isthmus show status` says why; the other workers go on.";
}
