//! What a description says about the peer's transport. Sections bundled together share one; the first one's counts.

use std::collections::HashMap;

use super::attribute::Attribute;
use super::description::SessionDescription;
use super::error::SdpError;
use super::media::{Media, MediaKind};
use crate::transport::{Candidate, Credentials, Fingerprint, RemoteDescription, Setup};

/// What a peer takes that says nothing (RFC 8841 §6.1).
const MAX_MESSAGE_SIZE: u64 = 65_536;

/// ICE and DTLS attributes of one level.
#[derive(Default)]
struct Level<'a> {
    ufrag: Option<&'a str>,
    password: Option<&'a str>,
    fingerprints: Vec<&'a Fingerprint>,
    setup: Option<Setup>,
    lite: bool,
}

impl<'a> Level<'a> {
    fn of(attributes: &'a [Attribute]) -> Level<'a> {
        let mut level = Level::default();
        for attribute in attributes {
            match attribute {
                Attribute::IceUfrag(ufrag) => level.ufrag = level.ufrag.or(Some(ufrag)),
                Attribute::IcePassword(password) => level.password = level.password.or(Some(&password.0)),
                Attribute::Fingerprint(fingerprint) => level.fingerprints.push(fingerprint),
                Attribute::Setup(setup) => level.setup = level.setup.or(Some(*setup)),
                Attribute::IceLite => level.lite = true,
                _ => {}
            }
        }
        level
    }
}

impl SessionDescription {
    /// Sections on the bundled transport, the one that speaks for it first (RFC 9143 §7.2): those of the BUNDLE group
    /// that are not rejected, or without a group the first section that is not.
    pub fn bundled(&self) -> Vec<&Media> {
        let accepted = |media: &&Media| !media.rejected();
        let group = self.attributes.iter().find_map(|attribute| match attribute {
            Attribute::Group(group) if group.semantics == "BUNDLE" => Some(group),
            _ => None,
        });
        match group {
            Some(group) => {
                // Taken out once found: a group may repeat a mid as often as it likes.
                let mut sections = HashMap::new();
                for media in self.media.iter().rev() {
                    media.mid().map(|mid| sections.insert(mid, media));
                }
                group.mids.iter().filter_map(|mid| sections.remove(mid.as_str())).filter(accepted).collect()
            }
            None => self.media.iter().filter(accepted).take(1).collect(),
        }
    }

    /// How to reach the peer that wrote the description. What the first bundled section does not say is taken from the
    /// session, then from the other bundled sections. UDP candidates with addresses count, in whichever section they
    /// are; those of TCP, of RTCP's own component and with names are left out, and a description without any is fine:
    /// checks of the peer tell its address.
    ///
    /// Without `a=setup` the peer is active as RFC 4145 §4 has it for an answer, so an offerer that forgot it is too.
    ///
    /// # Errors
    /// Credentials or fingerprints are missing, no section is accepted, or bundled sections disagree.
    pub fn remote_description(&self) -> Result<RemoteDescription, SdpError> {
        const PLACE: &str = "the session or the first section";
        let bundled = self.bundled();
        if bundled.is_empty() {
            let place = "a=group:BUNDLE with the mid of at least one section whose port is not 0";
            return Err(SdpError::Missing { what: "an accepted section", place });
        }
        let session = Level::of(&self.attributes);
        let levels: Vec<Level<'_>> = bundled.iter().map(|media| Level::of(&media.attributes)).collect();
        // The order in which levels are asked.
        let order: Vec<&Level<'_>> = levels[..1].iter().chain([&session]).chain(&levels[1..]).collect();

        let ufrag = order.iter().find_map(|level| level.ufrag);
        let ufrag = ufrag.ok_or(SdpError::Missing { what: "a=ice-ufrag", place: PLACE })?;
        let password = order.iter().find_map(|level| level.password);
        let password = password.ok_or(SdpError::Missing { what: "a=ice-pwd", place: PLACE })?;
        let setup = order.iter().find_map(|level| level.setup).unwrap_or(Setup::Active);
        let fingerprints = order.iter().map(|level| &level.fingerprints).find(|fingerprints| !fingerprints.is_empty());
        let what = "a=fingerprint with sha-256, sha-384 or sha-512";
        let fingerprints = fingerprints.ok_or(SdpError::Missing { what, place: PLACE })?;

        for (media, level) in bundled.iter().zip(&levels) {
            let other = [
                ("a=ice-ufrag", level.ufrag.is_some_and(|other| other != ufrag)),
                ("a=ice-pwd", level.password.is_some_and(|other| other != password)),
                ("a=setup", level.setup.is_some_and(|other| other != setup)),
                ("a=fingerprint", !level.fingerprints.is_empty() && level.fingerprints != *fingerprints),
            ];
            if let Some((what, _)) = other.into_iter().find(|(_, differs)| *differs) {
                return Err(SdpError::Contradiction { mid: media.mid().unwrap_or_default().to_owned(), what });
            }
        }
        Ok(RemoteDescription {
            credentials: Credentials { ufrag: ufrag.to_owned(), password: password.to_owned() },
            fingerprints: fingerprints.iter().map(|fingerprint| (*fingerprint).clone()).collect(),
            setup,
            ice_lite: session.lite || levels.iter().any(|level| level.lite),
            candidates: self.candidates(),
            max_message_size: self.max_message_size(),
        })
    }

    fn candidates(&self) -> Vec<Candidate> {
        let sections = self.media.iter().map(|media| &media.attributes);
        let mut candidates: Vec<Candidate> = Vec::new();
        for attribute in [&self.attributes].into_iter().chain(sections).flatten() {
            let Attribute::Candidate(line) = attribute else { continue };
            let Some(candidate) = line.candidate() else { continue };
            if !candidates.iter().any(|known| known.address == candidate.address && known.kind == candidate.kind) {
                candidates.push(candidate);
            }
        }
        candidates
    }

    fn max_message_size(&self) -> u64 {
        let sections = self.media.iter().filter(|media| media.kind == MediaKind::Application && !media.rejected());
        let given = sections.flat_map(|media| &media.attributes).find_map(|attribute| match attribute {
            Attribute::MaxMessageSize(size) => Some(*size),
            _ => None,
        });
        given.unwrap_or(MAX_MESSAGE_SIZE)
    }
}
