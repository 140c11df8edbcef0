//! The gateway's admission rules as the data plane asks them: PITR, PETR and RTR in one process.

use std::net::IpAddr;

use mapping::eid::InstanceId;
use xtr::drops::DropReason;
use xtr::policy::{Onward, Policy};

use crate::petr::{Petr, PetrConfig};
use crate::pitr::{Pitr, PitrConfig};
use crate::rtr::{Rtr, RtrConfig};

/// The roles of a gateway; a role that is not configured lets nothing through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Own RLOCs: never a destination to forward to.
    pub own: Vec<IpAddr>,
    /// The instance that the native side belongs to (PI-15); packets of any other are not taken.
    pub instance_id: InstanceId,
    /// Native to LISP.
    pub pitr: Option<PitrConfig>,
    /// LISP to native.
    pub petr: Option<PetrConfig>,
    /// LISP to LISP.
    pub rtr: Option<RtrConfig>,
}

/// The rules of [`ProxyConfig`]. Everything happens in one instance: another one is another gateway, in a VRF of its own.
#[derive(Clone, Debug)]
pub struct ProxyPolicy {
    own: Box<[IpAddr]>,
    instance_id: InstanceId,
    pitr: Option<Pitr>,
    petr: Option<Petr>,
    rtr: Option<Rtr>,
}

impl ProxyPolicy {
    /// The rules of `config`.
    pub fn new(config: &ProxyConfig) -> Self {
        Self {
            own: config.own.clone().into_boxed_slice(),
            instance_id: config.instance_id,
            pitr: config.pitr.as_ref().map(Pitr::new),
            petr: config.petr.as_ref().map(Petr::new),
            rtr: config.rtr.as_ref().map(Rtr::new),
        }
    }

    /// Whether `address` is an EID of a site this gateway knows of.
    fn is_eid(&self, address: IpAddr) -> bool {
        self.pitr.as_ref().is_some_and(|pitr| pitr.is_eid(address))
            || self.petr.as_ref().is_some_and(|petr| petr.is_eid(address))
    }
}

impl Policy for ProxyPolicy {
    fn admit_native(&self, source: IpAddr, destination: IpAddr) -> Result<InstanceId, DropReason> {
        match &self.pitr {
            Some(pitr) => pitr.admit(source, destination).map(|()| self.instance_id),
            None => Err(DropReason::DestinationNotAggregate),
        }
    }

    /// Who sends is judged before where it goes: a stranger learns nothing of the rules behind.
    fn admit_decapsulated(
        &self,
        outer_source: IpAddr,
        instance_id: InstanceId,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Onward, DropReason> {
        if instance_id != self.instance_id {
            return Err(DropReason::InstanceUnknown);
        }
        let Some(petr) = &self.petr else { return Err(DropReason::PetrSourceNotAccepted) };
        petr.admit_source(outer_source, source)?;
        if self.rtr.as_ref().is_some_and(|rtr| rtr.serves(destination)) {
            return Ok(Onward::Reencapsulate);
        }
        if self.is_eid(destination) {
            return Err(DropReason::PetrDestinationIsEid);
        }
        if self.own.contains(&destination) {
            return Err(DropReason::PetrDestinationPrivate);
        }
        petr.admit_destination(destination)?;
        Ok(Onward::Deliver)
    }

    fn checks_registration(&self) -> bool {
        self.petr.as_ref().is_some_and(Petr::checks_registration)
    }

    /// The native route of an EID aggregate is the one this gateway announces: it leads back here (PI-05).
    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Err(DropReason::NativeWouldLoop)
    }

    fn native_rule(&self, source: IpAddr, destination: IpAddr) -> String {
        match &self.pitr {
            Some(pitr) => pitr.rule(source, destination),
            None => "there is no [pitr]".to_owned(),
        }
    }

    fn decapsulated_rule(
        &self,
        outer_source: IpAddr,
        instance_id: InstanceId,
        source: IpAddr,
        destination: IpAddr,
    ) -> String {
        if instance_id != self.instance_id {
            return format!("instance {instance_id} is not known here");
        }
        let Some(petr) = &self.petr else { return "there is no [petr]".to_owned() };
        let sender = petr.source_rule(outer_source, source);
        if petr.admit_source(outer_source, source).is_err() {
            return sender;
        }
        let destination =
            match self.admit_decapsulated(outer_source, instance_id, source, destination) {
                Ok(Onward::Reencapsulate | Onward::Follow(_)) => {
                    format!("{destination} is in rtr.eid-prefixes")
                }
                Ok(Onward::Deliver | Onward::DeliverOwn(_)) => format!("{destination} is no EID"),
                Err(DropReason::PetrDestinationIsEid) => {
                    format!("but {destination} is an EID outside of rtr.eid-prefixes")
                }
                Err(_) => format!("but {destination} is private or an own address"),
            };
        format!("{sender}, {destination}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    const A_RLOC: &str = "198.51.100.11";
    const A_EID: &str = "2001:db8:e001::1";
    const C6_RLOC: &str = "2001:db8:c0::13";
    const N: &str = "2001:db8:ffff::80";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("prefix")).collect()
    }

    /// The gateway of use case B.
    fn config() -> ProxyConfig {
        let eids = nets(&["2001:db8:e000::/36", "203.0.113.0/24"]);
        ProxyConfig {
            own: vec![ip("198.51.100.1"), ip("2001:db8:c0::1")],
            instance_id: InstanceId::DEFAULT,
            pitr: Some(PitrConfig {
                eid_aggregates: eids.clone(),
                accept_from: Vec::new(),
                reject_source_in_aggregates: true,
            }),
            petr: Some(PetrConfig {
                accept_from_rlocs: nets(&["198.51.100.0/24", "2001:db8:c0::/48"]),
                accept_from_eids: eids,
                registered: false,
                allow_private_destinations: false,
            }),
            rtr: None,
        }
    }

    fn native(config: &ProxyConfig, from: &str, to: &str) -> Result<InstanceId, DropReason> {
        ProxyPolicy::new(config).admit_native(ip(from), ip(to))
    }

    fn tunnelled(
        config: &ProxyConfig,
        rloc: &str,
        from: &str,
        to: &str,
    ) -> Result<Onward, DropReason> {
        ProxyPolicy::new(config).admit_decapsulated(ip(rloc), InstanceId::DEFAULT, ip(from), ip(to))
    }

    #[test]
    fn the_rule_names_what_decided() {
        let policy = ProxyPolicy::new(&config());
        let native = |from, to| policy.native_rule(ip(from), ip(to));
        assert_eq!(native(N, A_EID), "2001:db8:e001::1 is in EID aggregate 2001:db8:e000::/36");
        assert_eq!(native(N, N), "2001:db8:ffff::80 is in none of pitr.eid-aggregates");
        assert_eq!(
            native("203.0.113.9", "203.0.113.1"),
            "source 203.0.113.9 is in EID aggregate 203.0.113.0/24"
        );
        let inside = |rloc, from, to| {
            policy.decapsulated_rule(ip(rloc), InstanceId::DEFAULT, ip(from), ip(to))
        };
        let sender =
            "RLOC 198.51.100.11 is in 198.51.100.0/24, source 203.0.113.1 in 203.0.113.0/24";
        for (to, rest) in [
            ("192.0.2.80", "192.0.2.80 is no EID"),
            ("203.0.113.9", "but 203.0.113.9 is an EID outside of rtr.eid-prefixes"),
            ("10.0.0.1", "but 10.0.0.1 is private or an own address"),
        ] {
            assert_eq!(inside(A_RLOC, "203.0.113.1", to), format!("{sender}, {rest}"));
        }
        assert_eq!(
            inside("192.0.2.66", "203.0.113.1", "192.0.2.80"),
            "RLOC 192.0.2.66 is in none of petr.accept-from.rlocs"
        );
        assert!(inside(A_RLOC, "192.0.2.1", "192.0.2.80").ends_with("petr.accept-from.eids"));
    }

    #[test]
    fn pi_15_the_rule_knows_the_instance_of_the_gateway() {
        let own = InstanceId::new(7).expect("24 bits");
        let policy = ProxyPolicy::new(&ProxyConfig { instance_id: own, ..config() });
        let rule = |instance| {
            policy.decapsulated_rule(ip(A_RLOC), instance, ip("203.0.113.1"), ip("192.0.2.80"))
        };
        assert!(rule(own).ends_with("192.0.2.80 is no EID"), "{}", rule(own));
        assert_eq!(rule(InstanceId::DEFAULT), "instance 0 is not known here");
    }

    #[test]
    fn pi_02_destinations_in_the_aggregates_are_looked_up() {
        assert_eq!(native(&config(), N, A_EID), Ok(InstanceId::DEFAULT));
        assert_eq!(native(&config(), "192.0.2.80", "203.0.113.200"), Ok(InstanceId::DEFAULT));
    }

    #[test]
    fn pi_03_destinations_outside_the_aggregates_are_never_looked_up() {
        for to in [N, "2001:db8:f000::1", "192.0.2.80", "203.0.112.255"] {
            let verdict = native(&config(), "192.0.2.1", to);
            assert_eq!(verdict, Err(DropReason::DestinationNotAggregate), "{to}");
        }
        let no_pitr = ProxyConfig { pitr: None, ..config() };
        assert_eq!(native(&no_pitr, N, A_EID), Err(DropReason::DestinationNotAggregate));
    }

    #[test]
    fn pi_05_native_forward_of_an_aggregate_would_loop() {
        let verdict = ProxyPolicy::new(&config()).admit_native_forward();
        assert_eq!(verdict, Err(DropReason::NativeWouldLoop));
    }

    #[test]
    fn pi_08_a_lisp_source_from_outside_is_dropped_unless_switched_off() {
        let from = "2001:db8:e002::1";
        assert_eq!(native(&config(), from, A_EID), Err(DropReason::SourceInAggregate));
        let mut lenient = config();
        lenient.pitr.as_mut().expect("pitr").reject_source_in_aggregates = false;
        assert_eq!(native(&lenient, from, A_EID), Ok(InstanceId::DEFAULT));
    }

    #[test]
    fn pi_10_the_answer_depends_on_the_two_addresses_only() {
        let policy = ProxyPolicy::new(&config());
        let ask = || policy.admit_native(ip(N), ip(A_EID));
        let before = ask();
        // Neither earlier packets of the flow nor its return path change anything.
        let _ = policy.admit_native(ip(A_EID), ip(N));
        let _ = policy.admit_decapsulated(ip(A_RLOC), InstanceId::DEFAULT, ip(A_EID), ip(N));
        assert_eq!(ask(), before);
    }

    #[test]
    fn pe_01_a_site_reaches_non_lisp_destinations() {
        assert_eq!(tunnelled(&config(), A_RLOC, A_EID, N), Ok(Onward::Deliver));
    }

    #[test]
    fn pe_02_inner_sources_of_no_configured_site_are_dropped() {
        for from in ["2001:db8:f000::1", "192.0.2.1", "203.0.114.1"] {
            let verdict = tunnelled(&config(), A_RLOC, from, N);
            assert_eq!(verdict, Err(DropReason::PetrSourceNotAccepted), "{from}");
        }
    }

    #[test]
    fn pe_03_without_a_site_nothing_is_forwarded() {
        let refused = Err(DropReason::PetrSourceNotAccepted);
        let no_petr = ProxyConfig { petr: None, ..config() };
        assert_eq!(tunnelled(&no_petr, A_RLOC, A_EID, N), refused);
        let mut no_site = config();
        no_site.petr.as_mut().expect("petr").accept_from_eids.clear();
        assert_eq!(tunnelled(&no_site, A_RLOC, A_EID, N), refused);
    }

    #[test]
    fn pe_04_rlocs_outside_the_list_are_dropped() {
        let verdict = tunnelled(&config(), "192.0.2.66", A_EID, N);
        assert_eq!(verdict, Err(DropReason::PetrRlocNotAccepted));
        let mut any = config();
        any.petr.as_mut().expect("petr").accept_from_rlocs.clear();
        assert_eq!(tunnelled(&any, "192.0.2.66", A_EID, N), Ok(Onward::Deliver));
    }

    #[test]
    fn pe_05_inner_and_outer_families_are_independent() {
        for (rloc, from, to) in [
            (A_RLOC, A_EID, N),
            (C6_RLOC, A_EID, N),
            (A_RLOC, "203.0.113.1", "192.0.2.80"),
            (C6_RLOC, "203.0.113.129", "192.0.2.80"),
        ] {
            assert_eq!(tunnelled(&config(), rloc, from, to), Ok(Onward::Deliver), "{rloc} {from}");
        }
    }

    #[test]
    fn pe_06_an_eid_destination_needs_an_rtr() {
        let to = "203.0.113.129";
        let verdict = tunnelled(&config(), A_RLOC, "203.0.113.1", to);
        assert_eq!(verdict, Err(DropReason::PetrDestinationIsEid));
        // The PETR's own list of sites is enough to know an EID.
        let petr_only = ProxyConfig { pitr: None, ..config() };
        let verdict = tunnelled(&petr_only, A_RLOC, "203.0.113.1", to);
        assert_eq!(verdict, Err(DropReason::PetrDestinationIsEid));
    }

    #[test]
    fn x1_an_rtr_reencapsulates_between_families() {
        let mut rtr = config();
        rtr.rtr = Some(RtrConfig { eid_prefixes: nets(&["203.0.113.128/25"]) });
        let again = Ok(Onward::Reencapsulate);
        assert_eq!(tunnelled(&rtr, A_RLOC, "203.0.113.1", "203.0.113.129"), again);
        // Other EIDs stay refused, strangers too.
        let to_b = tunnelled(&rtr, A_RLOC, "203.0.113.1", "203.0.113.65");
        assert_eq!(to_b, Err(DropReason::PetrDestinationIsEid));
        let stranger = tunnelled(&rtr, A_RLOC, "192.0.2.9", "203.0.113.129");
        assert_eq!(stranger, Err(DropReason::PetrSourceNotAccepted));
        assert_eq!(tunnelled(&rtr, A_RLOC, "203.0.113.1", "192.0.2.80"), Ok(Onward::Deliver));
    }

    #[test]
    fn pe_07_private_and_own_destinations_are_dropped() {
        let refused = Err(DropReason::PetrDestinationPrivate);
        for to in ["10.1.2.3", "192.168.0.1", "172.31.0.1", "100.64.0.1", "198.51.100.1"] {
            assert_eq!(tunnelled(&config(), A_RLOC, "203.0.113.1", to), refused, "{to}");
        }
        for to in ["fd00::1", "2001:db8:c0::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1"] {
            assert_eq!(tunnelled(&config(), A_RLOC, A_EID, to), refused, "{to}");
        }
        let mut allowed = config();
        allowed.petr.as_mut().expect("petr").allow_private_destinations = true;
        assert_eq!(tunnelled(&allowed, A_RLOC, "203.0.113.1", "10.1.2.3"), Ok(Onward::Deliver));
        assert_eq!(tunnelled(&allowed, A_RLOC, "203.0.113.1", "198.51.100.1"), refused);
    }

    #[test]
    fn pe_08_no_return_traffic_is_needed() {
        let policy = ProxyPolicy::new(&config());
        for _ in 0..3 {
            let verdict =
                policy.admit_decapsulated(ip(A_RLOC), InstanceId::DEFAULT, ip(A_EID), ip(N));
            assert_eq!(verdict, Ok(Onward::Deliver));
        }
    }

    #[test]
    fn de_16_a_gateway_knows_instance_zero_only() {
        let verdict = ProxyPolicy::new(&config()).admit_decapsulated(
            ip(A_RLOC),
            InstanceId::new(7).expect("24 bits"),
            ip(A_EID),
            ip(N),
        );
        assert_eq!(verdict, Err(DropReason::InstanceUnknown));
    }

    #[test]
    fn pi_06_a_drop_action_is_not_the_policy_s_to_overrule() {
        // The verdict of the mapping comes after admission; what is native there is dropped here.
        assert_eq!(native(&config(), N, A_EID), Ok(InstanceId::DEFAULT));
        let verdict = ProxyPolicy::new(&config()).admit_native_forward();
        assert_eq!(verdict, Err(DropReason::NativeWouldLoop));
    }

    #[test]
    fn pi_09_a_list_of_sources_says_who_may_use_the_pitr() {
        let mut config = config();
        config.pitr.as_mut().expect("pitr").accept_from = nets(&["2001:db8:ffff::/48"]);
        assert_eq!(native(&config, N, A_EID), Ok(InstanceId::DEFAULT));
        for from in ["2001:db8:fffe::80", "192.0.2.80"] {
            let verdict = native(&config, from, A_EID);
            assert_eq!(verdict, Err(DropReason::PitrSourceNotAccepted), "{from}");
        }
    }

    #[test]
    fn pi_11_pitrs_that_announce_the_same_need_not_know_of_each_other() {
        let [one, other] = [ProxyPolicy::new(&config()), ProxyPolicy::new(&config())];
        for from in [N, "192.0.2.80", "2001:db8:e002::1"] {
            for to in [A_EID, "203.0.113.200", N] {
                let [one, other] = [&one, &other].map(|pitr| pitr.admit_native(ip(from), ip(to)));
                assert_eq!(one, other, "{from} {to}");
            }
        }
    }

    #[test]
    fn pi_15_the_native_side_belongs_to_one_instance() {
        let instance_id = InstanceId::new(7).expect("24 bits");
        let config = ProxyConfig { instance_id, ..config() };
        assert_eq!(native(&config, N, A_EID), Ok(instance_id));
        let policy = ProxyPolicy::new(&config);
        let taken = |id| policy.admit_decapsulated(ip(A_RLOC), id, ip(A_EID), ip(N));
        assert_eq!(taken(instance_id), Ok(Onward::Deliver));
        assert_eq!(taken(InstanceId::DEFAULT), Err(DropReason::InstanceUnknown));
    }

    #[test]
    fn pe_04_registered_takes_any_source_to_the_look_up_unless_lists_say_otherwise() {
        let mut config = config();
        assert!(!ProxyPolicy::new(&config).checks_registration());
        let petr = config.petr.as_mut().expect("petr");
        petr.registered = true;
        assert!(ProxyPolicy::new(&config).checks_registration());
        let verdict = tunnelled(&config, A_RLOC, "2001:db8:f000::1", N);
        assert_eq!(verdict, Err(DropReason::PetrSourceNotAccepted), "the list counts as well");
        let petr = config.petr.as_mut().expect("petr");
        (petr.accept_from_eids, petr.accept_from_rlocs) = (Vec::new(), Vec::new());
        assert_eq!(tunnelled(&config, "192.0.2.66", "2001:db8:f000::1", N), Ok(Onward::Deliver));
        // Whose EIDs these are is not known here; the announced ones are.
        let verdict = tunnelled(&config, A_RLOC, A_EID, "203.0.113.1");
        assert_eq!(verdict, Err(DropReason::PetrDestinationIsEid));
    }

    #[test]
    fn no_packet_goes_round_between_pitr_and_petr() {
        let policy = ProxyPolicy::new(&config());
        for to in [N, A_EID, "192.0.2.80", "203.0.113.1", "198.51.100.1", "10.0.0.1"] {
            let out = policy.admit_decapsulated(ip(A_RLOC), InstanceId::DEFAULT, ip(A_EID), ip(to));
            if out == Ok(Onward::Deliver) {
                // What the PETR lets out, the PITR does not take in, should the kernel bring it back.
                assert!(policy.admit_native(ip(A_EID), ip(to)).is_err(), "{to}");
            }
        }
        // And what a site sends to a PITR's aggregates through another network looks like a site's, not like a stranger's.
        assert_eq!(native(&config(), A_EID, "203.0.113.1"), Err(DropReason::SourceInAggregate));
    }
}
