//! Session keys from a master key (RFC 3711 §4.3, RFC 6188 §3.1 for AES-256, RFC 7714 §11 and §12), always at key
//! derivation rate 0: once per master key.

use aes::cipher::{Array, BlockCipherEncrypt, Key, KeyInit};
use aes::{Aes128Enc, Aes256Enc};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::MasterKey;
use crate::profile::Profile;

/// Session secrets of RTP or of RTCP.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub(crate) struct StreamSecrets {
    /// The first [`Profile::key_len`] bytes count.
    pub(crate) key: [u8; 32],
    /// The first [`Profile::salt_len`] bytes count.
    pub(crate) salt: [u8; 14],
    /// HMAC-SHA1 key; zero for GCM.
    pub(crate) auth: [u8; 20],
}

/// Everything derived from one master key.
pub(crate) struct SessionSecrets {
    pub(crate) rtp: StreamSecrets,
    pub(crate) rtcp: StreamSecrets,
}

/// Derives the session secrets of a master key.
pub(crate) fn derive(master: &MasterKey) -> SessionSecrets {
    match master.profile() {
        Profile::AeadAes256Gcm => both(&cipher::<Aes256Enc>(master), master),
        _ => both(&cipher::<Aes128Enc>(master), master),
    }
}

/// The block cipher under a master key; the caller picks the one of the key's length.
fn cipher<C: KeyInit>(master: &MasterKey) -> C {
    let mut key = Key::<C>::default();
    key.copy_from_slice(master.key());
    let cipher = C::new(&key);
    key.as_mut_slice().zeroize();
    cipher
}

fn both<C: BlockCipherEncrypt>(cipher: &C, master: &MasterKey) -> SessionSecrets {
    SessionSecrets { rtp: stream(cipher, master, 0), rtcp: stream(cipher, master, 3) }
}

/// Labels: `first` encryption, `first + 1` authentication, `first + 2` salt.
fn stream<C: BlockCipherEncrypt>(cipher: &C, master: &MasterKey, first: u8) -> StreamSecrets {
    let profile = master.profile();
    let mut secrets = StreamSecrets::default();
    prf(cipher, master.salt(), first, &mut secrets.key[..profile.key_len()]);
    if !profile.is_aead() {
        prf(cipher, master.salt(), first + 1, &mut secrets.auth);
    }
    prf(cipher, master.salt(), first + 2, &mut secrets.salt[..profile.salt_len()]);
    secrets
}

/// AES-CM keystream at `(label * 2^48 XOR salt) * 2^16`; a 12-byte salt is padded with zeros at its end.
fn prf<C: BlockCipherEncrypt>(cipher: &C, salt: &[u8], label: u8, out: &mut [u8]) {
    for (count, chunk) in out.chunks_mut(16).enumerate() {
        let mut block = Array::<u8, C::BlockSize>::default();
        block[..salt.len()].copy_from_slice(salt);
        block[7] ^= label;
        block[15] = count as u8;
        cipher.encrypt_block(&mut block);
        chunk.copy_from_slice(&block[..chunk.len()]);
        block.as_mut_slice().zeroize();
    }
}
