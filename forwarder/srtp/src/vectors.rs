//! Known answers of RFC 3711 (appendix B) and RFC 7714 (§16, §17), at the level of session keys.

use crate::index::{PacketIndex, Seq, Ssrc};
use crate::iv;
use crate::job::{OpenError, OpenJob, SealJob};
use crate::kdf::{self, SessionSecrets, StreamSecrets};
use crate::key::{MasterKey, SessionKeys};
use crate::profile::Profile;
use crate::provider::{PortableProvider, Provider};
use crate::window::SentWindow;

fn hex(text: &str) -> Vec<u8> {
    let text: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    text.chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit.to_digit(16).unwrap() as u8))
        .collect()
}

fn secrets(key: &[u8], salt: &[u8]) -> SessionSecrets {
    let one = || {
        let mut stream = StreamSecrets::default();
        stream.key[..key.len()].copy_from_slice(key);
        stream.salt[..salt.len()].copy_from_slice(salt);
        stream
    };
    SessionSecrets { rtp: one(), rtcp: one() }
}

/// The same secrets expanded by every provider of this build.
fn providers(profile: Profile, secrets: &SessionSecrets) -> Vec<(Box<dyn Provider>, SessionKeys)> {
    let portable = PortableProvider::expand_secrets(profile, secrets);
    #[cfg_attr(not(ipsec_mb), expect(unused_mut, reason = "one provider only"))]
    let mut all: Vec<(Box<dyn Provider>, SessionKeys)> = vec![(Box::new(PortableProvider::new()), portable)];
    #[cfg(ipsec_mb)]
    {
        let provider = crate::provider::IpsecMbProvider::new().unwrap();
        let keys = provider.expand_secrets(profile, secrets);
        all.push((Box::new(provider), keys));
    }
    all
}

#[test]
fn rfc3711_b3_key_derivation() {
    let master = MasterKey::new(
        Profile::Aes128CmSha1_80,
        &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
        &hex("0EC675AD498AFEEBB6960B3AABE6"),
    )
    .unwrap();
    let derived = kdf::derive(&master);
    assert_eq!(derived.rtp.key[..16], hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(derived.rtp.salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(derived.rtp.auth[..], hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

#[test]
fn rfc3711_b2_keystream() {
    let keys = secrets(&hex("2B7E151628AED2A6ABF7158809CF4F3C"), &hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"));
    let wanted =
        hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0");
    let index = PacketIndex::new(0, Seq(0));
    for (mut provider, keys) in providers(Profile::Aes128CmSha1_80, &keys) {
        let mut frame = vec![0; 12 + 48 + 16];
        let plain = [0; 48];
        let issued = SentWindow::new(index).issue(index).unwrap();
        let job =
            SealJob { keys: &keys, ssrc: Ssrc(0), index: issued, plain: &plain, frame: &mut frame, header_len: 12 };
        provider.seal(&mut [job]);
        assert_eq!(frame[12..60], wanted, "{:?}", keys.provider());
    }
}

const SALT_7714: &str = "51756964 2070726f 2071756f";

#[test]
fn rfc7714_16_rtp() {
    let header = hex("8040f17b 8041f8d3 5501a0b2");
    let plain = b"Gallia est omnis divisa in partes tres";
    let ssrc = Ssrc(0x5501_a0b2);
    let index = PacketIndex::new(0, Seq(0xf17b));
    let mut salt = [0; 12];
    salt.copy_from_slice(&hex(SALT_7714));
    assert_eq!(iv::gcm_rtp(&salt, ssrc, index)[..], hex("51753c65 80c2726f 20718414"));
    let cases = [
        (
            Profile::AeadAes128Gcm,
            "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833
             899d7f27 beb16a91 52cf765e e4390cce",
        ),
        (
            Profile::AeadAes256Gcm,
            "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b
             7aa3db36 dfffd6b0 f9bb7878 d7a76c13",
        ),
    ];
    for (profile, sealed) in cases {
        let key: Vec<u8> = (0..profile.key_len() as u8).collect();
        let wanted = [header.clone(), hex(sealed)].concat();
        for (mut provider, keys) in providers(profile, &secrets(&key, &salt)) {
            let mut frame = [header.clone(), vec![0; plain.len() + 16]].concat();
            let issued = SentWindow::new(index).issue(index).unwrap();
            provider.seal(&mut [SealJob {
                keys: &keys,
                ssrc,
                index: issued,
                plain,
                frame: &mut frame,
                header_len: 12,
            }]);
            assert_eq!(frame, wanted, "{:?}", keys.provider());
            let mut out = vec![0; plain.len()];
            let result = Err(OpenError::Pending);
            let job = OpenJob { keys: &keys, ssrc, index, packet: &wanted, header_len: 12, out: &mut out, result };
            let mut jobs = [job];
            provider.open(&mut jobs);
            assert_eq!(jobs[0].result, Ok(plain.len()));
            assert_eq!(out, plain);
        }
    }
}

#[test]
fn rfc7714_17_rtcp() {
    let clear = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
         deadbeef deadbeef deadbeef deadbeef deadbeef");
    let salt = hex(SALT_7714);
    // Encrypted and authenticated; then authenticated only.
    let cases = [
        (
            Profile::AeadAes128Gcm,
            "63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded
             0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
            "841dd968 3dd78ec9 2ae58790 125f62b3 000005d4",
        ),
        (
            Profile::AeadAes256Gcm,
            "d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be 8415f658 c61de047
             6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
            "91db4afb feee5a97 8fab4393 ed2615fe 000005d4",
        ),
    ];
    for (profile, encrypted, signed) in cases {
        let key: Vec<u8> = (0..profile.key_len() as u8).collect();
        for (mut provider, keys) in providers(profile, &secrets(&key, &salt)) {
            let wanted = [clear[..8].to_vec(), hex(encrypted)].concat();
            let mut packet = [clear.clone(), vec![0; 20]].concat();
            let len = provider.seal_rtcp(&keys, Ssrc(0x4d61_7273), 0x5d4, &mut packet, clear.len());
            assert_eq!(packet[..len], wanted, "{:?}", keys.provider());
            assert_eq!(provider.open_rtcp(&keys, &mut packet), Ok((clear.len(), 0x5d4)));
            assert_eq!(packet[..clear.len()], clear);

            let signed = [clear.clone(), hex(signed)].concat();
            assert_eq!(provider.open_rtcp(&keys, &mut signed.clone()), Ok((clear.len(), 0x5d4)));
            for at in 0..signed.len() {
                let mut forged = signed.clone();
                forged[at] ^= 4;
                assert_eq!(provider.open_rtcp(&keys, &mut forged), Err(OpenError::Tag), "byte {at}");
            }
        }
    }
}
