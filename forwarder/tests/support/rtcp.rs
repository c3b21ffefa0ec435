//! A peer's SRTCP.

use sluice_srtp::{AnyProvider, MasterKey, Provider, ProviderKind, SessionKeys, Ssrc};

/// Seals to the engine and opens what comes from it.
pub struct RtcpPeer {
    crypto: AnyProvider,
    to_us: SessionKeys,
    from_us: SessionKeys,
}

impl RtcpPeer {
    pub fn new(to_us: &MasterKey, from_us: &MasterKey) -> Self {
        let mut crypto = AnyProvider::new(ProviderKind::Portable).unwrap();
        let (to_us, from_us) = (crypto.expand(to_us), crypto.expand(from_us));
        RtcpPeer { crypto, to_us, from_us }
    }

    pub fn seal(&mut self, clear: &[u8], index: u32) -> Vec<u8> {
        let mut packet = vec![0; clear.len() + 32];
        packet[..clear.len()].copy_from_slice(clear);
        let ssrc = Ssrc(u32::from_be_bytes(clear[4..8].try_into().unwrap()));
        let len = self.crypto.seal_rtcp(&self.to_us, ssrc, index, &mut packet, clear.len());
        assert!(len > clear.len());
        packet.truncate(len);
        packet
    }

    pub fn open(&mut self, mut packet: Vec<u8>) -> (Vec<u8>, u32) {
        let (len, index) = self.crypto.open_rtcp(&self.from_us, &mut packet).unwrap();
        packet.truncate(len);
        (packet, index)
    }
}
