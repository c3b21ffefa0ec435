//! Who takes part in a lab run: publishers, receivers that cost nothing, and one real receiver that measures latency.
//! Turns that into a session for generator and sink and into the forwarder's table.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sluice_srtp::Ssrc;
use sluice_table::{Egress, Endpoint, ExtensionIds, Ingress, Kind, Leg, LegKind, Limits, Name, Remote, Table};

use super::net::{MEDIA, PEER_IP, SFU_DEVICE, free_receiver};
use crate::error::BenchError;
use crate::keys::{KeyText, Protection, Publisher, Receiver, Session, VIDEO_TYPE, stream};
use crate::random::Random;

/// Packets per second of the probe.
pub(crate) const PROBE_RATE: f64 = 1_000.0;
/// From this fan-out on, one of the receivers is real and no probe is needed.
const REAL_FROM: u32 = 10;
/// SSRC of egress streams less the receiver's number.
const SSRC_OUT: u32 = 0x2000_0000;

/// Everybody in one run.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    /// Publishers and every receiver. Only receivers at [`PEER_IP`] exist.
    pub(crate) session: Session,
    /// Copies made of a packet of each stream, by stream number.
    pub(crate) copies: Vec<u32>,
    /// Whether the last publisher is a probe with a rate of its own.
    pub(crate) probe: bool,
}

impl Cast {
    /// `publishers` of one stream each, every one with `fanout` receivers of its own.
    pub(crate) fn new(publishers: u32, fanout: u32, inbound: Protection, outbound: Protection, seed: u64) -> Cast {
        let mut random = Random::new(seed, 0x006c_6162);
        let probe = fanout < REAL_FROM;
        let total = publishers + u32::from(probe);
        let mut session = Session { forwarder: MEDIA, publishers: Vec::new(), receivers: Vec::new() };
        let mut copies = Vec::new();
        for number in 0..total {
            let key = inbound.0.map(|profile| KeyText::draw(profile, &mut random));
            let local = SocketAddr::new(PEER_IP, 20_000 + number as u16);
            session.publishers.push(Publisher { local, to: None, key, streams: vec![stream(Kind::Video, number, 1)] });
            let is_probe = probe && number == publishers;
            let mine = if is_probe { 1 } else { fanout };
            copies.push(mine);
            for _ in 0..mine {
                let at = session.receivers.len() as u32;
                let last = session.receivers.len() + 1 == (fanout * publishers + u32::from(probe)) as usize;
                let local = if last { SocketAddr::new(PEER_IP, 30_000) } else { free_receiver(at) };
                let key = outbound.0.map(|profile| KeyText::draw(profile, &mut random));
                session.receivers.push(Receiver { local, key, expects: vec![(SSRC_OUT + at, number)] });
            }
        }
        Cast { session, copies, probe }
    }

    /// What comes back from a forwarder that only turns packets around: the probe's own packets.
    pub(crate) fn turned_around(&self) -> Session {
        let mut session = self.session.clone();
        session.receivers.clear();
        if self.probe
            && let Some(one) = self.session.publishers.last()
        {
            let number = self.session.publishers.len() as u32 - 1;
            let expects = one.streams.iter().map(|stream| (stream.ssrc, number)).collect();
            session.receivers.push(Receiver { local: one.local, key: one.key.clone(), expects });
        }
        session
    }

    /// The receivers that exist.
    pub(crate) fn real(&self) -> Session {
        let mut session = self.session.clone();
        session.receivers.retain(|one| one.local.ip() == PEER_IP);
        session
    }

    /// The forwarder's table.
    pub(crate) fn table(&self) -> Result<Table, BenchError> {
        let mut table = Table::default();
        let endpoint = name("media")?;
        table.endpoints.insert(endpoint.clone(), Endpoint { interface: SFU_DEVICE.to_owned(), address: MEDIA });
        for (number, one) in self.session.publishers.iter().enumerate() {
            let own = name(&format!("publisher{number}"))?;
            let stream = &one.streams[0];
            table.legs.insert(own.clone(), leg(&endpoint, one.local, one.key.as_ref(), None)?);
            let ingress = Ingress {
                leg: own,
                ssrc: Ssrc(stream.ssrc),
                kind: stream.kind,
                clock_rate: 90_000,
                payload_types: vec![VIDEO_TYPE],
                role: sluice_table::StreamRole::default(),
            };
            table.ingress.insert(name(&format!("stream{number}"))?, ingress);
        }
        let mut egress = BTreeMap::new();
        for (number, one) in self.session.receivers.iter().enumerate() {
            let own = name(&format!("receiver{number}"))?;
            table.legs.insert(own.clone(), leg(&endpoint, one.local, None, one.key.as_ref())?);
            for (ssrc, carries) in &one.expects {
                let row = Egress {
                    leg: own.clone(),
                    ssrc: Ssrc(*ssrc),
                    source: name(&format!("stream{carries}"))?,
                    payload_types: Vec::new(),
                    first_sequence: Some(1),
                    mid: None,
                    csrc: false,
                    dscp: None,
                    layer: None,
                    rtx: None,
                    history: 0,
                };
                egress.insert(name(&format!("receiver{number}/{carries}"))?, row);
            }
        }
        table.egress = egress;
        Ok(table)
    }
}

fn name(text: &str) -> Result<Name, BenchError> {
    Name::new(text).map_err(BenchError::refused(format!("naming {text}")))
}

fn leg(
    endpoint: &Name,
    remote: SocketAddr,
    inbound: Option<&KeyText>,
    outbound: Option<&KeyText>,
) -> Result<Leg, BenchError> {
    let plain = inbound.is_none() && outbound.is_none();
    Ok(Leg {
        endpoint: endpoint.clone(),
        kind: if plain { LegKind::Plain } else { LegKind::Client },
        remote: Remote::Fixed(remote),
        inbound: inbound.map(KeyText::master).transpose()?,
        outbound: outbound.map(KeyText::master).transpose()?,
        accept_key_reuse: true,
        extensions: ExtensionIds::default(),
        // A generator is no client: nothing of it is policed away.
        limits: Limits {
            bits_per_second: 1_000_000_000_000,
            packets_per_second: 1_000_000_000,
            audio_bits_per_second: 1_000_000_000_000,
            video_bits_per_second: 1_000_000_000_000,
        },
        ice: None,
        feedback: sluice_table::Feedback::default(),
        member: None,
        hears: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_srtp::Profile;

    const GCM: Protection = Protection(Some(Profile::AeadAes128Gcm));

    #[test]
    fn small_fanouts_have_a_probe_and_large_ones_a_real_receiver() {
        let cast = Cast::new(1, 1, GCM, GCM, 1);
        assert_eq!((cast.copies.as_slice(), cast.probe), ([1, 1].as_slice(), true));
        let real = cast.real();
        assert_eq!((real.receivers.len(), real.receivers[0].expects[0].1), (1, 1));
        let cast = Cast::new(2, 50, GCM, GCM, 1);
        assert_eq!((cast.copies.as_slice(), cast.probe), ([50, 50].as_slice(), false));
        assert_eq!((cast.session.receivers.len(), cast.real().receivers.len()), (100, 1));
    }

    #[test]
    fn tables_are_valid() {
        for (publishers, fanout, protection) in [(1, 1, GCM), (3, 50, GCM), (2, 4, Protection(None))] {
            let cast = Cast::new(publishers, fanout, protection, protection, 1);
            let table = cast.table().unwrap();
            assert_eq!(table.validate(), Ok(()));
            assert_eq!(table.egress.len() as u32, cast.copies.iter().sum::<u32>());
        }
    }

    #[test]
    fn a_turned_around_probe_is_expected_back() {
        let session = Cast::new(1, 1, GCM, GCM, 1).turned_around();
        let (probe, back) = (session.publishers.last().unwrap(), &session.receivers[0]);
        assert_eq!((back.local, &back.key), (probe.local, &probe.key));
        assert_eq!(back.expects, [(probe.streams[0].ssrc, 1)]);
    }
}
