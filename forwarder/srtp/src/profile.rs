//! The SRTP protection profiles Sluice speaks and their sizes (RFC 3711 §5, RFC 7714 §12).

use serde::{Deserialize, Serialize};

/// An SRTP protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Profile {
    /// `AEAD_AES_128_GCM`.
    #[serde(rename = "aes128-gcm")]
    AeadAes128Gcm,
    /// `AEAD_AES_256_GCM`.
    #[serde(rename = "aes256-gcm")]
    AeadAes256Gcm,
    /// `AES_CM_128_HMAC_SHA1_80`.
    #[serde(rename = "aes128-cm-sha1-80")]
    Aes128CmSha1_80,
    /// `AES_CM_128_HMAC_SHA1_32`: 4-byte RTP tags, 10-byte RTCP tags.
    #[serde(rename = "aes128-cm-sha1-32")]
    Aes128CmSha1_32,
}

impl Profile {
    /// Every profile, in the order browsers are offered them.
    pub const ALL: [Profile; 4] =
        [Profile::AeadAes256Gcm, Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80, Profile::Aes128CmSha1_32];

    /// The largest tag any profile appends to an RTP or RTCP packet, in bytes.
    pub const MAX_TAG: usize = 16;

    /// Master key length in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Profile::AeadAes256Gcm => 32,
            _ => 16,
        }
    }

    /// Master salt length in bytes.
    pub const fn salt_len(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Authentication tag appended to an RTP packet, in bytes.
    pub const fn rtp_tag_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 16,
            Profile::Aes128CmSha1_80 => 10,
            Profile::Aes128CmSha1_32 => 4,
        }
    }

    /// Authentication tag of an RTCP packet, in bytes, without the 4-byte index word.
    pub const fn rtcp_tag_len(self) -> usize {
        if self.is_aead() { 16 } else { 10 }
    }

    /// Whether the profile is one of the two GCM profiles.
    pub const fn is_aead(self) -> bool {
        matches!(self, Profile::AeadAes128Gcm | Profile::AeadAes256Gcm)
    }

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::AeadAes128Gcm => "aes128-gcm",
            Profile::AeadAes256Gcm => "aes256-gcm",
            Profile::Aes128CmSha1_80 => "aes128-cm-sha1-80",
            Profile::Aes128CmSha1_32 => "aes128-cm-sha1-32",
        }
    }
}
