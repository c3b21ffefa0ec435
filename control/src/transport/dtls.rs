//! One DTLS association: handshake, the peer's certificate against its description, SRTP keys, records.
//! Hands keys out only after a fingerprint matched.

use std::time::{Duration, Instant};

use dimpl::{Dtls, Error, Output, ProtocolVersion, SrtpProfile, UnexpectedMessageError};
use sluice_srtp::key::MasterKey;
use sluice_srtp::profile::Profile;

use super::config::{CloseReason, DtlsVersion};
use super::{Fingerprint, Identity, identity};

/// `id-ecPublicKey` (RFC 5480 §2.1.1) in DER; no other kind of key can be verified.
const EC_PUBLIC_KEY: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// What records brought.
#[derive(Debug)]
pub(super) enum DtlsEvent {
    /// The peer proved to have the key of a listed fingerprint.
    Keys { inbound: MasterKey, outbound: MasterKey },
    /// Application data: an SCTP packet.
    Data(Vec<u8>),
    /// `close_notify`.
    Closed,
}

/// An association; made when the first record arrives or is to be sent.
#[derive(Debug)]
pub(super) struct Association {
    dtls: Box<Dtls>,
    fingerprints: Vec<Fingerprint>,
    verified: bool,
    keyed: bool,
    /// Whether anything was sent.
    spoke: bool,
    next: Option<Instant>,
}

impl Association {
    /// `rtt` is ICE's; the first retransmission comes after twice that.
    pub(super) fn new(
        now: Instant,
        identity: &Identity,
        version: DtlsVersion,
        active: bool,
        fingerprints: Vec<Fingerprint>,
        rtt: Option<Duration>,
    ) -> Result<Association, CloseReason> {
        let config = identity.config(rtt).map_err(|_| CloseReason::Dtls)?;
        let make = match version {
            DtlsVersion::V1_2 => Dtls::new_12,
            DtlsVersion::V1_3 => Dtls::new_13,
            DtlsVersion::Auto => Dtls::new_auto,
        };
        let mut dtls = Box::new(make(config, identity.certificate(), now));
        if active {
            dtls.set_active(true);
        }
        dtls.handle_timeout(now).map_err(|error| reason(&error))?;
        Ok(Association { dtls, fingerprints, verified: false, keyed: false, spoke: false, next: None })
    }

    /// The version, once known.
    pub(super) fn version(&self) -> Option<&'static str> {
        match self.dtls.protocol_version()? {
            ProtocolVersion::DTLS1_2 => Some("1.2"),
            ProtocolVersion::DTLS1_3 => Some("1.3"),
            _ => None,
        }
    }

    /// Whether the peer has seen anything of this association.
    pub(super) fn spoke(&self) -> bool {
        self.spoke
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), CloseReason> {
        settle(self.dtls.handle_timeout(now))
    }

    /// Takes a datagram; [`Association::drain`] has to follow.
    pub(super) fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<(), CloseReason> {
        settle(self.dtls.handle_timeout(now))?;
        settle(self.dtls.handle_packet(datagram))
    }

    /// Seals an SCTP packet; [`Association::drain`] has to follow before the next one, since `dimpl` queues ten.
    pub(super) fn send(&mut self, packet: &[u8]) -> Result<(), CloseReason> {
        settle(self.dtls.send_application_data(packet).map(|_| ()))
    }

    /// Queues `close_notify`.
    pub(super) fn close(&mut self) {
        // It only fails where there is no association to close.
        let _ = self.dtls.close();
    }

    /// Takes everything `dimpl` has to say, in order: datagrams to send, then what the last one brought.
    pub(super) fn drain(
        &mut self,
        datagrams: &mut Vec<Vec<u8>>,
        events: &mut Vec<DtlsEvent>,
    ) -> Result<(), CloseReason> {
        let mut short = [0; 2_048];
        let mut long = Vec::new();
        loop {
            let buffer: &mut [u8] = if long.is_empty() { &mut short } else { &mut long };
            match self.dtls.poll_output(buffer) {
                Output::Packet(datagram) => {
                    self.spoke = true;
                    datagrams.push(datagram.to_vec());
                }
                Output::BufferTooSmall { needed } => long.resize(needed, 0),
                Output::Timeout(at) => {
                    self.next = Some(at);
                    return Ok(());
                }
                Output::PeerCert(der) => {
                    let listed = |listed: &Fingerprint| identity::fingerprint(der, listed.hash) == *listed;
                    if !self.fingerprints.iter().any(listed) {
                        return Err(CloseReason::Fingerprint);
                    }
                    if !der.windows(EC_PUBLIC_KEY.len()).any(|part| part == EC_PUBLIC_KEY) {
                        return Err(CloseReason::Certificate);
                    }
                    self.verified = true;
                }
                Output::KeyingMaterial(material, profile) => {
                    if !self.verified {
                        return Err(CloseReason::Certificate);
                    }
                    let (inbound, outbound) =
                        split(&material, profile, self.dtls.is_active()).ok_or(CloseReason::SrtpProfile)?;
                    self.keyed = true;
                    events.push(DtlsEvent::Keys { inbound, outbound });
                }
                Output::ApplicationData(data) if self.keyed => events.push(DtlsEvent::Data(data.to_vec())),
                Output::ApplicationData(_) => return Err(CloseReason::SrtpProfile),
                Output::CloseNotify => events.push(DtlsEvent::Closed),
                _ => {}
            }
        }
    }
}

/// Keying material in the order of RFC 5764 §4.2, client's and server's keys and then their salts, as inbound and
/// outbound key.
fn split(material: &[u8], profile: SrtpProfile, active: bool) -> Option<(MasterKey, MasterKey)> {
    let profile = match profile {
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
        _ => return None,
    };
    let (client, rest) = material.split_at_checked(profile.key_len())?;
    let (server, rest) = rest.split_at_checked(profile.key_len())?;
    let (client_salt, server_salt) = rest.split_at_checked(profile.salt_len())?;
    let client = MasterKey::new(profile, client, client_salt).ok()?;
    let server = MasterKey::new(profile, server, server_salt).ok()?;
    Some(if active { (server, client) } else { (client, server) })
}

/// Full queues pass; any other error of `dimpl` ends the association.
fn settle(result: Result<(), Error>) -> Result<(), CloseReason> {
    match result {
        Ok(())
        | Err(
            Error::TransmitQueueFull
            | Error::ReceiveQueueFull
            | Error::TransmitHistoryFull
            // Not an answer to our hello; the right one may still come.
            | Error::UnexpectedMessage(UnexpectedMessageError::UnrecognizedAutoServerResponse),
        ) => Ok(()),
        Err(error) => Err(reason(&error)),
    }
}

fn reason(error: &Error) -> CloseReason {
    match error {
        Error::CertificateError(_) => CloseReason::Certificate,
        Error::SecurityError(_) => CloseReason::DtlsParameters,
        Error::Timeout(_) => CloseReason::DtlsTimeout,
        Error::ConnectionClosed => CloseReason::Peer,
        _ => CloseReason::Dtls,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dimpl::{Config, DtlsCertificate};

    use super::*;
    use crate::transport::HashFunction;

    #[test]
    fn keys_follow_the_role() {
        let profiles = [SrtpProfile::AEAD_AES_256_GCM, SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AES128_CM_SHA1_80];
        for profile in profiles {
            let material: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
            let (server_in, server_out) = split(&material, profile, false).unwrap();
            let (client_in, client_out) = split(&material, profile, true).unwrap();
            assert_eq!((&server_in, &server_out), (&client_out, &client_in));
            let key = server_in.profile().key_len();
            assert_eq!(server_in.key(), &material[..key]);
            assert_eq!(server_in.salt(), &material[2 * key..][..server_in.profile().salt_len()]);
            assert_eq!(server_out.key(), &material[key..2 * key]);
            assert!(split(&material[1..], profile, false).is_none());
        }
    }

    /// A client of small datagrams, so that its hello takes several, and the server it talks to.
    struct Talk {
        client: Dtls,
        server: Association,
        now: Instant,
        keys: bool,
        sent: usize,
    }

    impl Talk {
        fn new(version: DtlsVersion, certificate: DtlsCertificate) -> Talk {
            let now = Instant::now();
            let config = Config::builder()
                .mtu(110)
                .use_server_cookie(false)
                .flight_start_rto(Duration::from_millis(50))
                .max_queue_tx(64);
            let config = Arc::new(config.build().unwrap());
            let listed = identity::fingerprint(&certificate.certificate, HashFunction::Sha256);
            let mut client = match version {
                DtlsVersion::V1_3 => Dtls::new_13(config, certificate, now),
                _ => Dtls::new_12(config, certificate, now),
            };
            client.set_active(true);
            client.handle_timeout(now).unwrap();
            let identity = Identity::generate().unwrap();
            let server = Association::new(now, &identity, version, false, vec![listed], None).unwrap();
            Talk { client, server, now, keys: false, sent: 0 }
        }

        /// One exchange; `lose` says which of the client's datagrams get lost, by their number.
        fn turn(&mut self, lose: impl Fn(usize) -> bool) -> Result<(), CloseReason> {
            self.now += Duration::from_millis(30);
            self.client.handle_timeout(self.now).unwrap();
            let mut buffer = [0; 4_096];
            let mut handled = Ok(());
            loop {
                match self.client.poll_output(&mut buffer) {
                    Output::Packet(datagram) => {
                        self.sent += 1;
                        if !lose(self.sent - 1) {
                            handled = handled.and(self.server.handle(self.now, datagram));
                        }
                    }
                    Output::Timeout(_) => break,
                    _ => {}
                }
            }
            handled = handled.and(self.server.handle_timeout(self.now));
            let (mut datagrams, mut events) = (Vec::new(), Vec::new());
            self.server.drain(&mut datagrams, &mut events).and(handled)?;
            self.keys |= events.iter().any(|event| matches!(event, DtlsEvent::Keys { .. }));
            for datagram in datagrams {
                self.client.handle_packet(&datagram).unwrap();
            }
            Ok(())
        }
    }

    #[test]
    fn a_hello_in_pieces_survives_the_loss_of_any_of_them() {
        for version in [DtlsVersion::V1_2, DtlsVersion::V1_3] {
            for lost in 0..6 {
                let mut talk = Talk::new(version, dimpl::certificate::generate_self_signed_certificate().unwrap());
                talk.turn(|at| at == lost).unwrap();
                assert!(talk.sent >= 2, "the hello was not in pieces");
                for _ in 0..60 {
                    talk.turn(|at| at == lost).unwrap();
                }
                assert!(talk.keys, "{version:?} {lost}");
            }
        }
    }

    #[test]
    fn an_rsa_certificate_is_refused_at_once_and_by_name() {
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let der = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&rsa).unwrap().der().to_vec();
        let mut certificate = dimpl::certificate::generate_self_signed_certificate().unwrap();
        certificate.certificate = der;
        let mut talk = Talk::new(DtlsVersion::V1_2, certificate);
        let result = (0..10).find_map(|_| talk.turn(|_| false).err());
        assert_eq!(result, Some(CloseReason::Certificate));
        assert!(!talk.keys);
    }
}
