//! What is written is read back; what is malformed is refused.

use proptest::prelude::*;

use super::report::{ReportBlock, write_names, write_receiver, write_sender};
use super::*;
use crate::wire::rtcp;

const US: Ssrc = Ssrc(1);
const THEM: Ssrc = Ssrc(0xaabb_ccdd);

fn only(bytes: &[u8]) -> Packet<'_> {
    let mut walk = Walk::new(bytes);
    let packet = walk.next().unwrap();
    assert_eq!(walk.next(), None);
    assert_eq!(packet.whole, bytes);
    packet
}

/// Writes arrivals (in ticks) from `base` on and reads them back, message by message.
fn transport_round_trip(base: u16, arrivals: &[Option<u32>], room: usize) -> Vec<Option<u32>> {
    let mut got = Vec::new();
    while got.len() < arrivals.len() {
        let mut out = vec![0xa5; room];
        let rest = &arrivals[got.len()..];
        let from = base.wrapping_add(got.len() as u16);
        let Some(written) = transport::write(&mut out, (US, THEM), (from, 7), rest.len(), |at| rest[at]) else {
            // Nothing of what fits arrived.
            let lost = rest.iter().take(transport::MAX_STATUSES).take_while(|tick| tick.is_none()).count();
            assert!(lost > 0, "nothing written although the first packet arrived");
            got.extend(std::iter::repeat_n(None, lost));
            continue;
        };
        assert!(written.len <= room && written.len % 4 == 0 && written.packets > 0);
        let Some(Message::Transport(feedback)) = only(&out[..written.len]).message() else { panic!("unreadable") };
        assert_eq!((feedback.sender, feedback.media, feedback.number), (US, THEM, 7));
        assert_eq!((feedback.base, usize::from(feedback.packets)), (from, written.packets));
        for (n, (seq, tick)) in feedback.arrivals().enumerate() {
            assert_eq!(seq, from.wrapping_add(n as u16));
            got.push(tick);
        }
    }
    got
}

proptest! {
    #[test]
    fn transport_feedback_round_trips(
        base: u16,
        start: u32,
        room in 32usize..1_200,
        steps in proptest::collection::vec((0u8..12, -20_000i32..40_000, 0u8..40), 1..120),
    ) {
        let mut arrivals = Vec::new();
        let mut tick = start;
        for (what, jump, run) in steps {
            match what {
                0 => arrivals.extend(std::iter::repeat_n(None, usize::from(run))),
                1 => tick = tick.wrapping_add(jump as u32),
                2 => tick = tick.wrapping_add((jump / 64) as u32),
                _ => tick = tick.wrapping_add(u32::from(run)),
            }
            arrivals.push(Some(tick));
        }
        prop_assert_eq!(transport_round_trip(base, &arrivals, room), arrivals);
    }

    #[test]
    fn nacks_round_trip(start: u16, steps in proptest::collection::vec(1u16..40, 1..80), room in 16usize..400) {
        let mut lost = vec![start];
        lost.extend(steps.iter().scan(start, |seq, step| {
            *seq = seq.wrapping_add(*step);
            Some(*seq)
        }));
        let mut got = Vec::new();
        while got.len() < lost.len() {
            let mut out = vec![0; room];
            let (len, taken) = nack::write(&mut out, US, THEM, &lost[got.len()..]).unwrap();
            let Some(Message::Nack(nack)) = only(&out[..len]).message() else { panic!("unreadable") };
            prop_assert_eq!((nack.sender, nack.media), (US, THEM));
            let before = got.len();
            got.extend(nack.lost());
            prop_assert_eq!(got.len() - before, taken);
        }
        prop_assert_eq!(got, lost);
    }

    #[test]
    fn reports_round_trip(
        ntp: u64,
        words: [u32; 3],
        blocks in proptest::collection::vec((any::<u32>(), any::<u8>(), -0x80_0000i32..0x80_0000, any::<[u32; 4]>()), 0..32),
    ) {
        let info = SenderInfo { ntp, timestamp: words[0], packets: words[1], octets: words[2] };
        let blocks: Vec<ReportBlock> = blocks
            .into_iter()
            .map(|(ssrc, fraction_lost, lost, [highest, jitter, last_report, delay])| ReportBlock {
                ssrc, fraction_lost, lost, highest, jitter, last_report, delay,
            })
            .collect();
        let mut out = [0; 1_200];
        let mut compound = Compound::new(&mut out);
        prop_assert!(compound.push(|out| write_sender(out, US, &info, &[])));
        prop_assert!(compound.push(|out| write_receiver(out, THEM, &blocks)));
        prop_assert!(compound.push(|out| write_names(out, &[US, THEM], b"name")));
        let len = compound.len();
        let messages: Vec<Message<'_>> = Walk::new(&out[..len]).map(|packet| packet.message().unwrap()).collect();
        let [Message::SenderReport { ssrc, info: got, .. }, Message::ReceiverReport { blocks: got_blocks, .. }, Message::Description] =
            &messages[..] else { panic!("{messages:?}") };
        prop_assert_eq!((*ssrc, *got), (US, info));
        prop_assert_eq!(got_blocks.iter().collect::<Vec<_>>(), blocks);
    }

    /// Whatever arrives: no panic, and every packet lies inside.
    #[test]
    fn anything_may_arrive(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0usize..8) {
        let mut bytes = bytes;
        if bytes.len() >= 4 {
            let len = (bytes.len() / 4 - 1) as u16;
            bytes[0] = bytes[0] & 0x3f | 0x80;
            bytes[1] = [200, 201, 202, 205, 205, 206, 206, 9][kind];
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
        }
        for packet in Walk::new(&bytes) {
            match packet.message() {
                Some(Message::Transport(feedback)) => {
                    prop_assert_eq!(feedback.arrivals().count(), usize::from(feedback.packets));
                }
                Some(Message::Nack(nack)) => prop_assert!(nack.lost().count() <= bytes.len() * 5),
                Some(Message::FullIntra(fir)) => prop_assert!(fir.streams().count() <= bytes.len()),
                _ => {}
            }
        }
    }
}

#[test]
fn requests_for_key_frames_are_what_the_rfcs_say() {
    let mut out = [0; 32];
    let len = payload::write_pli(&mut out, US, THEM).unwrap();
    assert_eq!(out[..len], [0x81, 206, 0, 2, 0, 0, 0, 1, 0xaa, 0xbb, 0xcc, 0xdd]);
    assert_eq!(only(&out[..len]).message(), Some(Message::PictureLoss { sender: US, media: THEM }));
    let len = payload::write_fir(&mut out, US, THEM, 9).unwrap();
    assert_eq!(out[..len], [0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd, 9, 0, 0, 0]);
    let Some(Message::FullIntra(fir)) = only(&out[..len]).message() else { panic!("unreadable") };
    assert_eq!(fir.streams().collect::<Vec<_>>(), [(THEM, 9)]);
    assert_eq!(payload::write_fir(&mut out[..19], US, THEM, 9), None);
}

#[test]
fn a_message_is_laid_out_as_the_draft_says() {
    // 64 ms reference 3; the first after 10 ticks, one lost, one 300 ticks later, one 50 ticks earlier.
    let ticks = [Some(3 * 256 + 10), None, Some(3 * 256 + 310), Some(3 * 256 + 260)];
    let mut out = [0xff; 64];
    let written = transport::write(&mut out, (US, THEM), (65_535, 5), 4, |at| ticks[at]).unwrap();
    let expected = [
        0xaf,
        205,
        0,
        6,
        0,
        0,
        0,
        1,
        0xaa,
        0xbb,
        0xcc,
        0xdd,
        0xff,
        0xff,
        0,
        4,
        0,
        0,
        3,
        5, // up to the number
        0b1101_0010,
        0b1000_0000,
        10,
        1,
        44,
        0xff,
        0xce,
        1,
    ];
    assert_eq!((out[..written.len].to_vec(), written.packets), (expected.to_vec(), 4));
    let runs: Vec<Option<u32>> = (0..40).map(|n| Some(n * 4)).chain(vec![None; 400]).chain([Some(200)]).collect();
    let written = transport::write(&mut out, (US, THEM), (0, 0), runs.len(), |at| runs[at]).unwrap();
    assert!(written.packets >= 17, "{written:?}: long runs take two bytes");
}

#[test]
fn padding_is_taken_off_and_must_make_sense() {
    let padded = [0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
    assert_eq!(only(&padded).message(), Some(Message::PictureLoss { sender: US, media: Ssrc(2) }));
    for bad in [0, 13, 255] {
        let mut padded = padded;
        padded[15] = bad;
        assert_eq!(rtcp::Walk::new(&padded).next(), None);
    }
}
