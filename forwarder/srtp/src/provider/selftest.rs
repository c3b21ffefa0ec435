//! Known answers a provider must give before it touches media. They were computed with another implementation
//! (Python's `cryptography` on OpenSSL) from master keys whose bytes count up from zero.

use crate::index::{PacketIndex, Seq, Ssrc};
use crate::job::{OpenError, OpenJob, SealJob};
use crate::key::{MasterKey, SessionKeys};
use crate::profile::Profile;
use crate::provider::Provider;
use crate::window::SentWindow;

/// Sealed payload and tag, and the SRTCP packet behind its 8 clear bytes, in hex.
struct KnownAnswer {
    profile: Profile,
    rtp: &'static str,
    rtcp: &'static str,
}

const ANSWERS: [KnownAnswer; 4] = [
    KnownAnswer {
        profile: Profile::AeadAes128Gcm,
        rtp: "d8eaa0b33664f848044b90b91a133bca48636c054364c2ee0a2ac0957c4929ade1b19b1701bee35b04561e0805e1636d2f2e\
          75f144",
        rtcp: "beec1e2204ba26506e82034604663bba3d3531142d257cdb88084e3bd9642616cbc52b47a48ef52c80001234",
    },
    KnownAnswer {
        profile: Profile::AeadAes256Gcm,
        rtp: "ce26536bfb48e4db65340fd32b7c0e067b549cd7a5e639e1890034565d16bdc2c09f3d02bedefe9324f416a60afb25b2a9be\
          66aa61",
        rtcp: "1e958cfa222afd00f9d8126f08781f2c6466a192484e7a94ba99a7d73570e6b221f3db2ce172f50f80001234",
    },
    KnownAnswer {
        profile: Profile::Aes128CmSha1_80,
        rtp: "7834c3b96d35a878eb5890b65e9be68c3a5117dcc0c0d47e6530ceab5fcefdeb852aafad0df91da9ad223158102769",
        rtcp: "4f87b9c6245b74b2d59bfb741dc56e9989f8e5522068e1628000123413cdd8db312d56f61406",
    },
    KnownAnswer {
        profile: Profile::Aes128CmSha1_32,
        rtp: "7834c3b96d35a878eb5890b65e9be68c3a5117dcc0c0d47e6530ceab5fcefdeb852aafad0df91da9ad",
        rtcp: "4f87b9c6245b74b2d59bfb741dc56e9989f8e5522068e1628000123413cdd8db312d56f61406",
    },
];

const SSRC: Ssrc = Ssrc(0xcafe_babe);
const INDEX: PacketIndex = PacketIndex::new(1, Seq(0x1234));
const RTCP_INDEX: u32 = 0x1234;
const HEADER: [u8; 20] =
    [0x90, 0x60, 0x12, 0x34, 0, 1, 2, 3, 0xca, 0xfe, 0xba, 0xbe, 0xbe, 0xde, 0, 1, 0x10, 0xa5, 0, 0];
const RTCP_HEADER: [u8; 8] = [0x81, 0xc9, 0, 7, 0xca, 0xfe, 0xba, 0xbe];
/// More than the lanes of any provider, so that a full burst and its tail are both tried.
const COPIES: usize = 19;

/// Seals and opens the known answers of every profile; the name of the first that differs.
pub(super) fn run(provider: &mut impl Provider) -> Result<(), &'static str> {
    for answer in &ANSWERS {
        let length = answer.profile.key_len() + answer.profile.salt_len();
        let bytes: Vec<u8> = (0..length as u8).collect();
        let master = MasterKey::from_bytes(answer.profile, &bytes).map_err(|_| "master key")?;
        let keys = provider.expand(&master);
        let sealed = unhex(answer.rtp);
        rtp(provider, &keys, &sealed)?;
        rtcp(provider, &keys, &unhex(answer.rtcp))?;
    }
    Ok(())
}

fn rtp(provider: &mut impl Provider, keys: &SessionKeys, sealed: &[u8]) -> Result<(), &'static str> {
    let profile = keys.profile();
    let plain: Vec<u8> = (0..37u8).map(|byte| byte.wrapping_mul(3)).collect();
    let wanted = [&HEADER[..], sealed].concat();
    let mut frames = vec![[HEADER.as_slice(), &[0; 64]].concat(); COPIES];
    let mut jobs = Vec::new();
    for frame in &mut frames {
        let index = SentWindow::new(INDEX).issue(INDEX).map_err(|_| "sent window")?;
        jobs.push(SealJob { keys, ssrc: SSRC, index, plain: &plain, frame, header_len: HEADER.len() });
    }
    provider.seal(&mut jobs);
    if frames.iter().any(|frame| !frame.starts_with(&wanted)) {
        return Err(named(profile, "seal"));
    }
    let mut forged = wanted.clone();
    *forged.last_mut().ok_or("empty answer")? ^= 1;
    let mut outs = [[0; 64]; COPIES];
    let mut jobs = Vec::new();
    for (count, out) in outs.iter_mut().enumerate() {
        let packet = if count % 2 == 0 { &wanted[..] } else { &forged[..] };
        let result = Err(OpenError::Pending);
        jobs.push(OpenJob { keys, ssrc: SSRC, index: INDEX, packet, header_len: HEADER.len(), out, result });
    }
    provider.open(&mut jobs);
    for (count, job) in jobs.iter().enumerate() {
        let right = if count % 2 == 0 {
            job.result == Ok(plain.len()) && job.out.starts_with(&plain)
        } else {
            job.result == Err(OpenError::Tag) && job.out[..plain.len()].iter().all(|byte| *byte == 0)
        };
        if !right {
            return Err(named(profile, "open"));
        }
    }
    Ok(())
}

fn rtcp(provider: &mut impl Provider, keys: &SessionKeys, sealed: &[u8]) -> Result<(), &'static str> {
    let clear: Vec<u8> = RTCP_HEADER.into_iter().chain(0..24).collect();
    let wanted = [&RTCP_HEADER[..], sealed].concat();
    let mut packet = [0; 64];
    packet[..clear.len()].copy_from_slice(&clear);
    let len = provider.seal_rtcp(keys, SSRC, RTCP_INDEX, &mut packet, clear.len());
    if packet[..len] != wanted {
        return Err("SRTCP seal");
    }
    if provider.open_rtcp(keys, &mut packet[..len]) != Ok((clear.len(), RTCP_INDEX)) || !packet.starts_with(&clear) {
        return Err("SRTCP open");
    }
    Ok(())
}

fn named(profile: Profile, what: &'static str) -> &'static str {
    match (profile, what) {
        (Profile::AeadAes128Gcm, "seal") => "aes128-gcm seal",
        (Profile::AeadAes128Gcm, _) => "aes128-gcm open",
        (Profile::AeadAes256Gcm, "seal") => "aes256-gcm seal",
        (Profile::AeadAes256Gcm, _) => "aes256-gcm open",
        (_, "seal") => "aes128-cm-sha1 seal",
        (_, _) => "aes128-cm-sha1 open",
    }
}

/// The constants above are even in length and hex; anything else reads as zero and fails the test.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|digit| (digit as char).to_digit(16).unwrap_or(0) as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{AnyProvider, NullProvider, ProviderKind};

    #[test]
    fn every_real_provider_gives_the_known_answers() {
        for kind in [ProviderKind::Portable, ProviderKind::IpsecMb] {
            if cfg!(ipsec_mb) || kind == ProviderKind::Portable {
                assert_eq!(AnyProvider::new(kind).map(|provider| provider.kind()), Ok(kind));
            }
        }
    }

    #[test]
    fn the_null_provider_would_fail() {
        assert_eq!(run(&mut NullProvider::new()), Err("aes128-gcm seal"));
    }
}
