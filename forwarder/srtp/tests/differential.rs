//! Every provider against `portable`: same bytes sealed, same packets opened, same packets refused.

mod common;

use common::{Case, Random, master, open, real_kinds, seal, start};
use sluice_srtp::job::OpenError;
use sluice_srtp::{Profile, Provider, ProviderKind, SessionKeys, Ssrc};

const KEYS: usize = 40;

/// The same master keys expanded for two providers.
fn expand(profile: Profile, random: &mut Random, kinds: &[ProviderKind]) -> Vec<Vec<SessionKeys>> {
    let masters: Vec<_> = (0..KEYS).map(|_| master(profile, random)).collect();
    kinds.iter().map(|kind| masters.iter().map(|one| start(*kind).expand(one)).collect()).collect()
}

#[test]
fn sealed_bytes_are_equal_and_open_again() {
    let kinds = real_kinds();
    for (seed, profile) in (1..).zip(Profile::ALL) {
        let mut random = Random(seed * 0x9e37_79b9);
        let keys = expand(profile, &mut random, &kinds);
        let mut providers: Vec<_> = kinds.iter().map(|kind| start(*kind)).collect();
        // Every payload length with every header length, in random order and batches of 1 to 300.
        let mut shapes: Vec<(usize, usize)> =
            (0..=1500).flat_map(|payload| (12..=72).step_by(4).map(move |header| (header, payload))).collect();
        // Longer than a burst slot's scratch.
        shapes.extend([(12, 2020), (12, 2044), (72, 5000), (20, 9000)]);
        for at in (1..shapes.len()).rev() {
            shapes.swap(at, random.below(at + 1));
        }
        let mut rest = &shapes[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(rest.len().min(1 + random.below(300)));
            rest = later;
            let cases: Vec<Case> =
                batch.iter().map(|(header, payload)| Case::new(&mut random, KEYS, *header, *payload)).collect();
            let reference = seal(&mut providers[0], &keys[0], &cases);
            for (number, provider) in providers.iter_mut().enumerate() {
                if number > 0 {
                    let frames = seal(provider, &keys[number], &cases);
                    for ((case, frame), wanted) in cases.iter().zip(&frames).zip(&reference) {
                        assert_eq!(
                            frame,
                            wanted,
                            "{profile:?} header {} payload {}",
                            case.header.len(),
                            case.plain.len()
                        );
                    }
                }
                for (case, (result, out)) in cases.iter().zip(open(provider, &keys[number], &cases, &reference)) {
                    assert_eq!(result, Ok(case.plain.len()), "{profile:?} {}", kinds[number]);
                    assert_eq!(out[..case.plain.len()], case.plain, "{profile:?} {}", kinds[number]);
                }
            }
        }
        assert!(providers.iter().all(|provider| provider.refused() == 0));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let kinds = real_kinds();
    for (seed, profile) in (11..).zip(Profile::ALL) {
        let mut random = Random(seed * 0x9e37_79b9);
        let keys = expand(profile, &mut random, &kinds);
        for (number, kind) in kinds.iter().enumerate() {
            let mut provider = start(*kind);
            for (header, payload) in [(12, 0), (12, 1), (20, 16), (24, 160), (72, 47), (16, 1200)] {
                let case = Case::new(&mut random, KEYS, header, payload);
                let sealed = seal(&mut provider, &keys[number], std::slice::from_ref(&case)).remove(0);
                let tag_bits = (sealed.len() - profile.rtp_tag_len()) * 8..sealed.len() * 8;
                let body_bits = (0..tag_bits.start).step_by(29);
                // A good packet between any two forged ones, so that one lane's refusal cannot pass for another's.
                let mut packets = Vec::new();
                for bit in tag_bits.chain(body_bits) {
                    let mut forged = sealed.clone();
                    forged[bit / 8] ^= 1 << (bit % 8);
                    packets.extend([forged, sealed.clone()]);
                }
                let cases = vec![case.clone(); packets.len()];
                for (at, (result, out)) in open(&mut provider, &keys[number], &cases, &packets).into_iter().enumerate()
                {
                    if at % 2 == 0 {
                        assert_eq!(result, Err(OpenError::Tag), "{kind} {profile:?} {header}+{payload} number {at}");
                        assert!(out[..payload].iter().all(|byte| *byte == 0), "plaintext left behind");
                    } else {
                        assert_eq!(result, Ok(payload));
                        assert_eq!(out[..payload], case.plain);
                    }
                }
                // The rollover counter is not in the packet but is authenticated all the same.
                let mut other = case.clone();
                other.index = sluice_srtp::PacketIndex::new(case.index.roc() ^ 1, case.index.seq());
                let opened = open(&mut provider, &keys[number], &[other], std::slice::from_ref(&sealed)).remove(0);
                assert_eq!(opened.0, Err(OpenError::Tag));
            }
        }
    }
}

#[test]
fn srtcp_is_equal_and_every_flip_is_noticed() {
    let kinds = real_kinds();
    for (seed, profile) in (21..).zip(Profile::ALL) {
        let mut random = Random(seed * 0x9e37_79b9);
        let keys = expand(profile, &mut random, &kinds);
        let mut providers: Vec<_> = kinds.iter().map(|kind| start(*kind)).collect();
        for len in (8..200).chain([500, 1200, 1500]) {
            let mut clear = random.bytes(len);
            clear[0] = 0x81;
            clear[1] = 201;
            let ssrc = Ssrc(u32::from_be_bytes(clear[4..8].try_into().unwrap()));
            let index = random.next() as u32 >> 1;
            let key = random.below(KEYS);
            let mut reference = Vec::new();
            for (number, provider) in providers.iter_mut().enumerate() {
                let mut packet = [clear.as_slice(), &[0; 20]].concat();
                let sealed = provider.seal_rtcp(&keys[number][key], ssrc, index, &mut packet, len);
                assert_eq!(sealed, len + profile.rtcp_tag_len() + 4);
                packet.truncate(sealed);
                if number == 0 {
                    reference.clone_from(&packet);
                }
                assert_eq!(packet, reference);
                assert_eq!(provider.open_rtcp(&keys[number][key], &mut packet), Ok((len, index)));
                assert_eq!(packet[..len], clear);
                for bit in (0..sealed * 8).filter(|bit| bit % 13 == 0 || *bit >= len * 8 && len < 20) {
                    let mut forged = reference.clone();
                    forged[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(provider.open_rtcp(&keys[number][key], &mut forged), Err(OpenError::Tag), "bit {bit}");
                    assert!(len < 24 || forged[8..len] != clear[8..], "plaintext left behind");
                }
            }
        }
    }
}
