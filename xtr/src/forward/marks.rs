//! PURE. Marks of the LISP header in a trusted core: put on what leaves, checked on what comes (RFC 9302 §7, RFC 9300 §10).
//!
//! The workers only read what the control plane knows, and drop what RFC 9302 says to drop. Whatever else a header says goes to the
//! control plane, rarely.
use super::notices::Notices;
use super::{Carrier, Forwarder, Output, Step};
use crate::config::TrustedCore;
use crate::drops::DropReason;
use crate::fib::{FibView, LocatorSet, Verdict};
use crate::marks::{HeaderMarks, SharedMarks, Tag, TrustedMarks};
use crate::packet::{Inner, lisp};
use crate::policy::{Policy, PrefixSet};
use crate::punt::Punt;
use mapping::eid::{Eid, InstanceId, MapVersion};
use std::net::IpAddr;
use std::sync::Arc;

/// What a worker has in a trusted core.
#[derive(Debug)]
pub(super) struct Trusted {
    rlocs: PrefixSet,
    map_versioning: bool,
    status_bits: bool,
    shared: Arc<SharedMarks>,
    notices: Notices<NOTICES_PER_SECOND>,
}

/// What of a header there is to tell the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    /// An old, or impossibly new, version of an own mapping.
    destination: bool,
    /// A newer version of the source's mapping, or other Locator-Status-Bits.
    source: bool,
}

impl<P: Policy> Forwarder<P> {
    /// Sends and heeds marks from and to the RLOCs of `core`, as `shared` says.
    #[must_use]
    pub fn trust_core(mut self, core: &TrustedCore, shared: Arc<SharedMarks>) -> Self {
        self.trusted = Some(Box::new(Trusted {
            rlocs: core.rlocs.iter().copied().collect(),
            map_versioning: core.map_versioning,
            status_bits: core.status_bits,
            shared,
            notices: Notices::new(),
        }));
        self
    }

    /// The LISP header of a packet from `source` to a locator of `set`.
    #[inline]
    pub(super) fn lisp_header<O: Output>(
        &self,
        (set, rloc): (&LocatorSet, IpAddr),
        instance_id: InstanceId,
        source: IpAddr,
        out: &mut O,
    ) -> [u8; lisp::HEADER_LEN] {
        match &self.trusted {
            None => lisp::encode(instance_id),
            Some(trusted) => {
                let source = Eid::new(instance_id, source);
                let marks = trusted.marks_to(set, rloc, source, self.clock, O::IS_LIVE);
                out.step(Step::Marked(&marks));
                lisp::encode_marked(instance_id, &marks)
            }
        }
    }

    /// The marks of a packet from the core that are to be heeded: those of the outermost header, from a trusted RLOC.
    #[inline]
    pub(super) fn heeded_marks(
        &self,
        source: IpAddr,
        depth: usize,
        datagram: &[u8],
    ) -> Option<HeaderMarks> {
        let trusted = self.trusted.as_ref()?;
        (depth == 1 && trusted.rlocs.contains(source)).then(|| lisp::marks(datagram))
    }

    /// Acts on the marks of a packet that the policy lets in; an error says that it is to be dropped.
    pub(super) fn heed<O: Output>(
        &mut self,
        fib: &mut FibView<'_>,
        carrier: &Carrier,
        instance_id: InstanceId,
        inner: &Inner,
        marks: &HeaderMarks,
        out: &mut O,
    ) -> Result<(), DropReason> {
        let Some(trusted) = &mut self.trusted else { return Ok(()) };
        out.step(Step::Marked(marks));
        let shared = trusted.shared.load();
        if O::IS_LIVE {
            if let Tag::Nonce { nonce, request: false } = marks.tag
                && let Some(nonces) = shared.requests.get(&nonce)
            {
                nonces.echoed(nonce);
            } else if let Some(nonces) = shared.peers.get(&carrier.source) {
                nonces.received(self.clock, marks.tag);
            }
        }
        let (source, destination) =
            (Eid::new(instance_id, inner.source), Eid::new(instance_id, inner.destination));
        let mut news = News::default();
        let judged = trusted
            .of_destination(&shared, carrier.source, destination, marks.tag, &mut news)
            .and_then(|()| {
                trusted.of_source(fib.lookup(instance_id, inner.source), marks, &mut news)
            });
        for (is_news, eid) in [(news.destination, destination), (news.source, source)] {
            // What concerns the destination and what concerns the source come apart by the rotation.
            let key = || {
                let rloc = self.hasher.hash_address(carrier.source);
                rloc.rotate_left(u32::from(eid == source)) ^ self.hasher.hash_address(eid.address)
            };
            if is_news && O::IS_LIVE && trusted.notices.is_due(key(), self.clock) {
                let (rloc, destination) = (carrier.source, inner.destination);
                // A full queue is for the next second's packet to try again.
                let _ = self.punts.send(Punt::Marked { rloc, source, destination, marks: *marks });
            }
        }
        judged
    }
}

impl Trusted {
    /// The marks of a packet from `source` to a locator of `set`: none to a locator outside the core; a nonce before versions, as there is
    /// room for one of them only (DH-02, DH-05); versions where the mapping has one (MV-05, MV-07), with the Null Map-Version for a
    /// source that has none, as a proxy's (PI-12); with versions in use, Locator-Status-Bits only beside the version they go with (DH-21).
    fn marks_to(
        &self,
        set: &LocatorSet,
        rloc: IpAddr,
        source: Eid,
        clock: u32,
        is_sent: bool,
    ) -> HeaderMarks {
        let Some(entry) = &set.marks else { return HeaderMarks::default() };
        let Some(nonces) = entry.nonces(rloc) else { return HeaderMarks::default() };
        let own = self.shared.load().own.lookup(source).map(|(_, own)| *own);
        let version = own.map_or(MapVersion::NULL, |own| own.version);
        let versions = || {
            let has_version = self.map_versioning && !entry.version.is_null();
            has_version.then_some(Tag::Versions { source: version, destination: entry.version })
        };
        let nonce = entry.nonce(nonces, clock, is_sent);
        let tag = nonce.or_else(versions).unwrap_or_default();
        let goes_with = !self.map_versioning
            || matches!(tag, Tag::Versions { source, .. } if !source.is_null());
        let status_bits = own.and_then(|own| own.status_bits).filter(|_| goes_with);
        HeaderMarks { tag, status_bits }
    }

    /// Dest Map-Version against the own mapping (MV-06, MV-08 to MV-12); that of a proxy is nobody's business here (RFC 9302 §A.2.3).
    fn of_destination(
        &self,
        shared: &TrustedMarks,
        rloc: IpAddr,
        destination: Eid,
        tag: Tag,
        news: &mut News,
    ) -> Result<(), DropReason> {
        let Tag::Versions { destination: version, .. } = tag else { return Ok(()) };
        if !self.map_versioning {
            return Ok(());
        }
        let Some((prefix, own)) = shared.own.lookup(destination) else { return Ok(()) };
        if own.version == version && !version.is_null() {
            return Ok(());
        }
        if own.version.is_null() || version.is_null() {
            return Err(DropReason::MapVersionUnexpected);
        }
        news.destination = true;
        if version.is_newer_than(own.version) {
            Err(DropReason::MapVersionNewer)
        } else if own.refuses_older {
            news.destination = false;
            Err(DropReason::MapVersionStale)
        } else if shared.refused.contains(&(rloc, prefix)) {
            Err(DropReason::MapVersionStale)
        } else {
            Ok(())
        }
    }

    /// Source Map-Version and Locator-Status-Bits against the map-cache entry of the source (MV-13 to MV-16, DH-19, DH-21).
    fn of_source(
        &self,
        entry: &Verdict,
        marks: &HeaderMarks,
        news: &mut News,
    ) -> Result<(), DropReason> {
        let version = match marks.tag {
            Tag::Versions { source, .. } if self.map_versioning => source,
            _ => MapVersion::NULL,
        };
        let known = match entry {
            Verdict::Encapsulate(set) => match &set.marks {
                Some(known) => known,
                None => return Ok(()),
            },
            Verdict::Drop(_) => {
                // An entry without usable locators, say: the control plane knows its version and its bits.
                news.source =
                    !version.is_null() || (self.status_bits && marks.status_bits.is_some());
                return Ok(());
            }
            Verdict::Native | Verdict::Miss => return Ok(()),
        };
        if known.version.is_newer_than(version) {
            return Err(DropReason::SourceVersionOlder);
        }
        news.source = version.is_newer_than(known.version);
        let goes_with = !self.map_versioning || (!version.is_null() && version == known.version);
        if let (Some(received), Some(status)) = (marks.status_bits, known.status_bits)
            && self.status_bits
            && goes_with
        {
            news.source |= status.difference(received) != 0;
        }
        Ok(())
    }
}

/// Notices of one worker in a second (DH-20, MV-10, MV-14).
const NOTICES_PER_SECOND: usize = 64;
