//! Site policy: which site an EID-prefix belongs to, and what that site may register.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::auth::{self, AuthError, Covered};
use crate::config::{Algorithm, Profile, Secret, Site, SiteKey};
use crate::discard::Discard;
use crate::eid::{EidPrefix, EidTable, NamePrefix, NameTable};
use crate::resolver::negative::Occupied;
use crate::wire::{Address, AuthenticationData, EidField, EidRecord, Lcaf};

use super::event::Refusal;

/// A site's place in [`Sites`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SiteIndex(u32);

impl SiteIndex {
    /// The site at this place of the configuration.
    #[cfg(test)]
    pub(super) const fn at(place: u32) -> Self {
        Self(place)
    }

    /// Its place in the configuration.
    pub(super) const fn place(self) -> usize {
        self.0 as usize
    }
}

/// Who may register one configured EID-prefix. Several sites may share a prefix, so that EIDs can move between them.
#[derive(Clone, Copy, Debug)]
struct Permission {
    site: SiteIndex,
    accept_more_specifics: bool,
}

/// The configured sites.
#[derive(Debug)]
pub(super) struct Sites {
    sites: Vec<SiteState>,
    by_name: HashMap<Arc<str>, SiteIndex>,
    profiles: HashSet<Profile>,
    prefixes: EidTable<Vec<Permission>>,
    names: NameTable<Vec<Permission>>,
}

/// A site and what became of its registrations.
#[derive(Debug)]
pub(super) struct SiteState {
    pub(super) name: Arc<str>,
    pub(super) config: Site,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Of those, how many by which rule.
    pub(super) refused_by: Vec<(Discard, u64)>,
    pub(super) last_register: Option<Instant>,
    pub(super) last_refusal: Option<Refusal>,
}

/// The key that a message was signed with, and how its sender signs: answers to it are signed alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signer {
    pub(super) secret: Secret,
    pub(super) key_id: u8,
    pub(super) algorithm: Algorithm,
    /// Octets of the Authentication Data (AU-14).
    pub(super) mac_len: usize,
    pub(super) covered: Covered,
}

/// A [`Signer`] as a registration remembers it: the place of its key among those of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signing {
    key: u8,
    pub(super) key_id: u8,
    pub(super) algorithm: Algorithm,
    pub(super) mac_len: u8,
    pub(super) covered: Covered,
}

impl Occupied for Sites {
    fn within(&self, prefix: &EidPrefix) -> bool {
        self.prefixes.within(prefix)
    }
}

/// The EID-prefixes of sites that are not all shut down.
#[derive(Debug)]
pub(super) struct Open<'a>(&'a Sites);

impl Occupied for Open<'_> {
    fn within(&self, prefix: &EidPrefix) -> bool {
        let mut configured = self.0.prefixes.covered_by(prefix);
        configured.any(|(_, permissions)| !self.0.all_down(permissions))
    }
}

impl Sites {
    pub(super) fn new(sites: Vec<Site>) -> Self {
        let mut prefixes: EidTable<Vec<Permission>> = EidTable::default();
        let mut by_name = HashMap::with_capacity(sites.len());
        for (index, site) in (0..).zip(&sites) {
            by_name.insert(site.name.as_str().into(), SiteIndex(index));
            for configured in &site.eid_prefixes {
                let permission = Permission {
                    site: SiteIndex(index),
                    accept_more_specifics: configured.accept_more_specifics,
                };
                match prefixes.get_mut(&configured.prefix) {
                    Some(permissions) => permissions.push(permission),
                    None => drop(prefixes.insert(configured.prefix, vec![permission])),
                }
            }
        }
        let mut names: NameTable<Vec<Permission>> = NameTable::default();
        for (index, site) in (0..).zip(&sites) {
            for configured in &site.eid_names {
                let permission = Permission {
                    site: SiteIndex(index),
                    accept_more_specifics: configured.accept_more_specifics,
                };
                match names.get_mut(&configured.name) {
                    Some(permissions) => permissions.push(permission),
                    None => drop(names.insert(configured.name.clone(), vec![permission])),
                }
            }
        }
        let profiles = sites.iter().map(|site| site.profile).collect();
        let sites = sites.into_iter().map(SiteState::new).collect();
        Self { sites, by_name, profiles, prefixes, names }
    }

    pub(super) fn get(&self, index: SiteIndex) -> &SiteState {
        &self.sites[index.0 as usize]
    }

    pub(super) fn get_mut(&mut self, index: SiteIndex) -> &mut SiteState {
        &mut self.sites[index.0 as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SiteIndex, &SiteState)> {
        (0..).map(SiteIndex).zip(&self.sites)
    }

    /// Whether `site` is one of those that `configured` belongs to.
    pub(super) fn owns(&self, site: SiteIndex, configured: &EidPrefix) -> bool {
        self.prefixes
            .get(configured)
            .is_some_and(|permissions| permissions.iter().any(|p| p.site == site))
    }

    /// The longest configured EID-prefix that covers `prefix` (MS-22).
    pub(super) fn configured(&self, prefix: &EidPrefix) -> Option<EidPrefix> {
        self.prefixes.longest_match(prefix).map(|(found, _)| found)
    }

    /// [`Self::configured`], and whether it [`Self::is_down`].
    pub(super) fn state_of(&self, prefix: &EidPrefix) -> (Option<EidPrefix>, bool) {
        match self.prefixes.longest_match(prefix) {
            Some((found, permissions)) => (Some(found), self.all_down(permissions)),
            None => (None, false),
        }
    }

    /// The site that a message most likely belongs to: the first of those of its first record.
    pub(super) fn likeliest(&self, records: &[EidRecord]) -> Option<SiteIndex> {
        let (_, permissions) = self.permissions(&records.first()?.eid)?;
        permissions.first().map(|permission| permission.site)
    }

    /// Who may register what belongs to `eid`, by the longest configured EID-prefix or name; and whether that is `eid` itself.
    fn permissions(&self, eid: &EidField) -> Option<(bool, &[Permission])> {
        if let Some(prefix) = eid.prefix() {
            let (configured, permissions) = self.prefixes.longest_match(&prefix)?;
            return Some((configured == prefix, permissions));
        }
        let name = eid.name()?;
        let (configured, permissions) = self.names.longest_match(&name)?;
        Some((*configured == name, permissions))
    }

    /// Whether `name` or a beginning of it belongs to a site.
    pub(super) fn has_name(&self, name: &NamePrefix) -> bool {
        self.names.longest_match(name).is_some()
    }

    /// Whether every site that `configured` belongs to is shut down (MS-13).
    pub(super) fn is_down(&self, configured: &EidPrefix) -> bool {
        self.prefixes.get(configured).is_some_and(|permissions| self.all_down(permissions))
    }

    /// What is left when the sites that are shut down are taken away.
    pub(super) fn open(&self) -> Open<'_> {
        Open(self)
    }

    fn all_down(&self, permissions: &[Permission]) -> bool {
        permissions.iter().all(|permission| self.get(permission.site).config.admin_down)
    }

    /// The sites that the records of a message may belong to, in the order of the records, each once: all those of the first
    /// `limit` configured EID-prefixes.
    pub(super) fn candidates(&self, records: &[EidRecord], limit: usize) -> Vec<SiteIndex> {
        let (mut looked_at, mut candidates) = (Vec::new(), Vec::new());
        for record in records {
            let Some((_, permissions)) = self.permissions(&record.eid) else { continue };
            // The list of one configured EID-prefix is one place in memory.
            if looked_at.contains(&permissions.as_ptr()) {
                continue;
            }
            if looked_at.len() >= limit {
                break;
            }
            looked_at.push(permissions.as_ptr());
            for permission in permissions {
                if !candidates.contains(&permission.site) {
                    candidates.push(permission.site);
                }
            }
        }
        candidates
    }

    /// Finds the key of `site` that signed the message.
    ///
    /// A Key ID may name two secrets while one replaces the other (AU-09).
    pub(super) fn authenticate(
        &self,
        site: SiteIndex,
        authentication: &AuthenticationData,
        octets: &[u8],
    ) -> Result<Signing, Discard> {
        let legacy = self.get(site).config.profile != Profile::Rfc9301;
        if authentication.algorithm_id == Algorithm::HmacSha1.id() && !legacy {
            return Err(Discard::AlgorithmRefused);
        }
        let mut outcome = Discard::KeyUnknown;
        for (at, key) in self.keys(site) {
            if key.id != authentication.key_id {
                continue;
            }
            match verify(at, key, authentication, octets) {
                Ok(signing) => return Ok(signing),
                Err(reason) => outcome = reason,
            }
        }
        Err(outcome)
    }

    fn keys(&self, site: SiteIndex) -> impl Iterator<Item = (u8, &SiteKey)> {
        (0..=u8::MAX).zip(&self.get(site).config.keys)
    }

    /// What answers to messages signed like `signing` are signed with.
    pub(super) fn signer(&self, site: SiteIndex, signing: Signing) -> Option<Signer> {
        let key = self.get(site).config.keys.get(usize::from(signing.key))?;
        let Signing { key_id, algorithm, mac_len, covered, .. } = signing;
        Some(Signer {
            secret: key.secret.clone(),
            key_id,
            algorithm,
            mac_len: mac_len.into(),
            covered,
        })
    }

    /// The key of `site` that once signed so; `None` if the site has no such key now.
    pub(super) fn rejoin(
        &self,
        site: SiteIndex,
        key_id: u8,
        algorithm: Algorithm,
        mac_len: u8,
        covered: Covered,
    ) -> Option<Signing> {
        self.keys(site)
            .find(|(_, key)| key.id == key_id && key.algorithms.contains(&algorithm))
            .map(|(key, _)| Signing { key, key_id, algorithm, mac_len, covered })
    }

    /// Whether any site has this profile.
    pub(super) fn has_profile(&self, profile: Profile) -> bool {
        self.profiles.contains(&profile)
    }

    /// The site of this name.
    pub(super) fn named(&self, name: &str) -> Option<SiteIndex> {
        self.by_name.get(name).copied()
    }

    /// Whether `site` may register the EID of a record with these locators (MS-01, MS-02, MS-22).
    pub(super) fn judge(&self, site: SiteIndex, record: &EidRecord) -> Result<(), Discard> {
        let (exact, permissions) =
            self.permissions(&record.eid).ok_or_else(|| nobodys(&record.eid))?;
        let permission = permissions
            .iter()
            .find(|permission| permission.site == site)
            .ok_or(Discard::OtherSite)?;
        if !exact && !permission.accept_more_specifics {
            return Err(Discard::MoreSpecificRefused);
        }
        match self.refused_locator(site, record) {
            Some(_) => Err(Discard::LocatorRefused),
            None => Ok(()),
        }
    }

    /// The first locator of `record` that `site` may not register.
    pub(super) fn refused_locator(&self, site: SiteIndex, record: &EidRecord) -> Option<IpAddr> {
        let allowed = &self.get(site).config.allowed_locators;
        let permitted = |rloc: IpAddr| {
            !never_a_locator(rloc)
                && (allowed.is_empty() || allowed.iter().any(|net| net.contains(&rloc)))
        };
        record.usable_locators().map(|(rloc, _)| rloc).find(|&rloc| !permitted(rloc))
    }
}

/// Why an EID belongs to no site.
pub(super) fn nobodys(eid: &EidField) -> Discard {
    match eid {
        EidField::Prefix(_) => Discard::NotASite,
        EidField::Other { address: Address::Lcaf(Lcaf::InstanceId { address, .. }), .. }
            if matches!(**address, Address::None | Address::Ipv4(_) | Address::Ipv6(_)) =>
        {
            Discard::InstanceUnsupported
        }
        EidField::Other { .. } if eid.name().is_some() => Discard::NotASite,
        EidField::Other { .. } => Discard::UnsupportedEid,
    }
}

impl SiteState {
    pub(super) fn count_refusal(&mut self, reason: Discard) {
        self.refused += 1;
        match self.refused_by.iter_mut().find(|(rule, _)| *rule == reason) {
            Some((_, count)) => *count += 1,
            None => self.refused_by.push((reason, 1)),
        }
    }

    /// Whether one of its keys may sign with HMAC-SHA-1 (AU-03).
    pub(super) fn allows_sha1(&self) -> bool {
        let allowed = |key: &SiteKey| key.algorithms.contains(&Algorithm::HmacSha1);
        self.config.profile != Profile::Rfc9301 && self.config.keys.iter().any(allowed)
    }

    fn new(config: Site) -> Self {
        Self {
            name: config.name.as_str().into(),
            config,
            accepted: 0,
            refused: 0,
            refused_by: Vec::new(),
            last_register: None,
            last_refusal: None,
        }
    }
}

fn verify(
    at: u8,
    key: &SiteKey,
    authentication: &AuthenticationData,
    octets: &[u8],
) -> Result<Signing, Discard> {
    let covered =
        auth::verify(octets, &key.secret, &key.algorithms).map_err(|error| match error {
            // It was read, so that nothing but the end of its records can be in doubt: of lispers.net with JSON of a wrong Length.
            AuthError::Malformed(_) => Discard::AuthenticationFailed,
            other => other.into(),
        })?;
    Ok(Signing {
        key: at,
        key_id: key.id,
        algorithm: Algorithm::from_id(authentication.algorithm_id)
            .ok_or(Discard::AlgorithmRefused)?,
        mac_len: u8::try_from(authentication.mac.len())
            .map_err(|_| Discard::AuthenticationFailed)?,
        covered,
    })
}

/// Addresses that no packet can be sent to as a locator (CW-33). Multicast ones beyond the link are locators of multicast EIDs.
fn never_a_locator(rloc: IpAddr) -> bool {
    let never = match rloc {
        IpAddr::V4(address) => address.is_broadcast() || address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    };
    never || rloc.is_unspecified()
}
