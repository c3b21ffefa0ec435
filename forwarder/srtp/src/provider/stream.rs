//! The keys of one stream kind (RTP or RTCP) on aws-lc and `RustCrypto`, and what is done with them. `portable` uses
//! it for everything; `ipsec-mb` for SRTCP, where a few packets a second do not pay for a second kibibyte of keys.

use aes::Aes128Enc;
use aes::cipher::{Array, InnerIvInit, KeyInit, StreamCipher};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ctr::{Ctr128BE, CtrCore};
use zeroize::Zeroize;

use crate::index::{PacketIndex, Ssrc};
use crate::iv;
use crate::job::OpenError;
use crate::kdf::StreamSecrets;
use crate::profile::Profile;
use crate::provider::check::tags_match;
use crate::provider::hmac::HmacKey;
use crate::srtcp::MAX_SRTCP_INDEX;

/// Tag bytes of both GCM profiles.
const GCM_TAG: usize = 16;
/// RTCP header bytes that stay in clear.
const RTCP_CLEAR: usize = 8;
/// "Encrypted" in the SRTCP index word.
const E_FLAG: u32 = 1 << 31;

/// Expanded keys of RTP or of RTCP. aws-lc clears its key on free, `RustCrypto` on drop (feature `zeroize`).
pub(crate) enum StreamKeys {
    Gcm(GcmKeys),
    Cm(CmKeys),
}

pub(crate) struct GcmKeys {
    key: LessSafeKey,
    salt: [u8; 12],
}

pub(crate) struct CmKeys {
    cipher: Aes128Enc,
    mac: HmacKey,
    salt: [u8; 14],
}

impl Drop for GcmKeys {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl Drop for CmKeys {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl StreamKeys {
    pub(crate) fn new(profile: Profile, secrets: &StreamSecrets) -> Self {
        let algorithm = match profile {
            Profile::AeadAes128Gcm => &AES_128_GCM,
            Profile::AeadAes256Gcm => &AES_256_GCM,
            Profile::Aes128CmSha1_80 | Profile::Aes128CmSha1_32 => return StreamKeys::Cm(CmKeys::new(secrets)),
        };
        // The only error is a wrong length, and the length is the profile's own.
        #[expect(clippy::expect_used)]
        let key = UnboundKey::new(algorithm, &secrets.key[..profile.key_len()]).expect("GCM key of its own length");
        let mut salt = [0; 12];
        salt.copy_from_slice(&secrets.salt[..12]);
        StreamKeys::Gcm(GcmKeys { key: LessSafeKey::new(key), salt })
    }

    /// Seals `clear[..len]` of an RTCP packet in place; the caller has checked lengths and index.
    pub(crate) fn seal_rtcp(&self, ssrc: Ssrc, index: u32, packet: &mut [u8], len: usize) -> usize {
        let word = (index | E_FLAG).to_be_bytes();
        let (header, rest) = packet.split_at_mut(RTCP_CLEAR);
        let (body, tail) = rest.split_at_mut(len - RTCP_CLEAR);
        match self {
            StreamKeys::Gcm(keys) => {
                let mut aad = [0; RTCP_CLEAR + 4];
                aad[..RTCP_CLEAR].copy_from_slice(header);
                aad[RTCP_CLEAR..].copy_from_slice(&word);
                let tag = keys.seal(iv::gcm_rtcp(&keys.salt, ssrc, index), &aad, body);
                tail[..GCM_TAG].copy_from_slice(&tag);
                tail[GCM_TAG..GCM_TAG + 4].copy_from_slice(&word);
                len + GCM_TAG + 4
            }
            StreamKeys::Cm(keys) => {
                keys.apply(&iv::counter_mode(&keys.salt, ssrc, index as u64), body);
                tail[..4].copy_from_slice(&word);
                let tag = keys.mac.tag(&packet[..len + 4], &[]);
                packet[len + 4..len + 14].copy_from_slice(&tag[..10]);
                len + 14
            }
        }
    }

    /// Opens an SRTCP packet in place; the clear packet is then `packet[..len]`.
    pub(crate) fn open_rtcp(&self, packet: &mut [u8]) -> Result<(usize, u32), OpenError> {
        match self {
            StreamKeys::Gcm(keys) => keys.open_rtcp(packet),
            StreamKeys::Cm(keys) => keys.open_rtcp(packet),
        }
    }
}

fn be32(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[..4]);
    u32::from_be_bytes(word)
}

impl GcmKeys {
    /// Encrypts `body` in place and returns the tag; on the impossible failure (a body of 64 GiB) the body is zeroed
    /// and the tag is one no receiver accepts.
    #[inline]
    fn seal(&self, iv: [u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; GCM_TAG] {
        let mut tag = [0; GCM_TAG];
        match self.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(aad), body) {
            Ok(made) => tag.copy_from_slice(made.as_ref()),
            Err(_) => body.fill(0),
        }
        tag
    }

    /// Seals an RTP packet: header in `frame`, payload from `plain`; `frame` ends with the tag.
    #[inline]
    pub(crate) fn seal_rtp(&self, ssrc: Ssrc, index: PacketIndex, plain: &[u8], frame: &mut [u8], header_len: usize) {
        let (header, body) = frame.split_at_mut(header_len);
        let (body, tag) = body.split_at_mut(plain.len());
        body.copy_from_slice(plain);
        tag.copy_from_slice(&self.seal(iv::gcm_rtp(&self.salt, ssrc, index), header, body));
    }

    /// Opens an RTP packet into `out`, whose length is the payload's; zeroed when the tag is wrong.
    #[inline]
    pub(crate) fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: PacketIndex,
        packet: &[u8],
        header_len: usize,
        out: &mut [u8],
    ) -> Result<usize, OpenError> {
        let (header, body) = packet.split_at(header_len);
        let (body, tag) = body.split_at(out.len());
        let nonce = Nonce::assume_unique_for_key(iv::gcm_rtp(&self.salt, ssrc, index));
        if self.key.open_separate_gather(nonce, Aad::from(header), body, tag, out).is_err() {
            out.fill(0);
            return Err(OpenError::Tag);
        }
        Ok(out.len())
    }

    fn open_rtcp(&self, packet: &mut [u8]) -> Result<(usize, u32), OpenError> {
        let total = packet.len();
        let len = total.checked_sub(GCM_TAG + 4).filter(|len| *len >= RTCP_CLEAR).ok_or(OpenError::Short)?;
        let word = be32(&packet[total - 4..]);
        let index = word & MAX_SRTCP_INDEX;
        let nonce = Nonce::assume_unique_for_key(iv::gcm_rtcp(&self.salt, Ssrc(be32(&packet[4..])), index));
        let opened = if word & E_FLAG != 0 {
            let mut aad = [0; RTCP_CLEAR + 4];
            aad[..RTCP_CLEAR].copy_from_slice(&packet[..RTCP_CLEAR]);
            aad[RTCP_CLEAR..].copy_from_slice(&word.to_be_bytes());
            self.key.open_in_place(nonce, Aad::from(aad), &mut packet[RTCP_CLEAR..total - 4]).is_ok()
        } else {
            // Authenticated only (RFC 7714 §9.3): the index word follows the packet in the AAD, the tag comes between.
            let mut tag = [0; GCM_TAG];
            tag.copy_from_slice(&packet[len..len + GCM_TAG]);
            packet[len..len + 4].copy_from_slice(&word.to_be_bytes());
            self.key.open_separate_gather(nonce, Aad::from(&packet[..len + 4]), &[], &tag, &mut []).is_ok()
        };
        if opened {
            return Ok((len, index));
        }
        packet[RTCP_CLEAR..].fill(0);
        Err(OpenError::Tag)
    }
}

impl CmKeys {
    fn new(secrets: &StreamSecrets) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&secrets.key[..16]);
        let cipher = Aes128Enc::new(&Array::from(key));
        key.zeroize();
        CmKeys { cipher, mac: HmacKey::new(&secrets.auth), salt: secrets.salt }
    }

    #[inline]
    fn keystream(&self, iv: &[u8; 16]) -> Ctr128BE<&Aes128Enc> {
        Ctr128BE::from_core(CtrCore::inner_iv_init(&self.cipher, &Array::from(*iv)))
    }

    fn apply(&self, iv: &[u8; 16], body: &mut [u8]) {
        self.keystream(iv).apply_keystream(body);
    }

    /// Seals an RTP packet: header in `frame`, payload from `plain`; `frame` ends with the tag (4 or 10 bytes).
    #[inline]
    pub(crate) fn seal_rtp(&self, ssrc: Ssrc, index: PacketIndex, plain: &[u8], frame: &mut [u8], header_len: usize) {
        let (signed, tag) = frame.split_at_mut(header_len + plain.len());
        let body = &mut signed[header_len..];
        let iv = iv::counter_mode(&self.salt, ssrc, index.as_u64());
        self.keystream(&iv).apply_keystream_b2b(plain, body);
        let made = self.mac.tag(signed, &index.roc().to_be_bytes());
        tag.copy_from_slice(&made[..tag.len()]);
    }

    /// Opens an RTP packet into `out`, whose length is the payload's. Nothing is written when the tag is wrong.
    #[inline]
    pub(crate) fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: PacketIndex,
        packet: &[u8],
        header_len: usize,
        out: &mut [u8],
    ) -> Result<usize, OpenError> {
        let (signed, tag) = packet.split_at(header_len + out.len());
        let made = self.mac.tag(signed, &index.roc().to_be_bytes());
        if !tags_match(&made[..tag.len()], tag) {
            out.fill(0);
            return Err(OpenError::Tag);
        }
        let iv = iv::counter_mode(&self.salt, ssrc, index.as_u64());
        self.keystream(&iv).apply_keystream_b2b(&signed[header_len..], out);
        Ok(out.len())
    }

    fn open_rtcp(&self, packet: &mut [u8]) -> Result<(usize, u32), OpenError> {
        let len = packet.len().checked_sub(14).filter(|len| *len >= RTCP_CLEAR).ok_or(OpenError::Short)?;
        let (signed, tag) = packet.split_at_mut(len + 4);
        if !tags_match(&self.mac.tag(signed, &[])[..10], tag) {
            return Err(OpenError::Tag);
        }
        let word = be32(&signed[len..]);
        let index = word & MAX_SRTCP_INDEX;
        if word & E_FLAG != 0 {
            let iv = iv::counter_mode(&self.salt, Ssrc(be32(&signed[4..])), index as u64);
            self.apply(&iv, &mut signed[RTCP_CLEAR..len]);
        }
        Ok((len, index))
    }
}
