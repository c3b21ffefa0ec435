//! The contract every provider holds its caller to, in one place: lengths, profile, what a refusal does.

use subtle::ConstantTimeEq;

use crate::job::{OpenError, OpenJob, SealJob};
use crate::key::SessionKeys;
use crate::profile::Profile;
use crate::srtcp::MAX_SRTCP_INDEX;

/// The packet a seal job describes, `header_len + payload + tag` bytes; `None` when the job breaks the contract.
#[inline]
pub(crate) fn seal_len(job: &SealJob<'_>, profile: Profile) -> Option<usize> {
    let len = job.header_len.checked_add(job.plain.len())?.checked_add(profile.rtp_tag_len())?;
    (len <= job.frame.len() && job.keys.profile() == profile).then_some(len)
}

/// Makes sure nothing of a refused job can pass for a packet.
#[cold]
pub(crate) fn refuse_seal(job: &mut SealJob<'_>, refused: &mut u64) {
    job.frame.get_mut(job.header_len..).unwrap_or_default().fill(0);
    *refused += 1;
}

/// Payload length of an open job, or why it is not opened.
#[inline]
pub(crate) fn open_len(job: &OpenJob<'_>, profile: Profile) -> Result<usize, OpenError> {
    let body = job.packet.len().checked_sub(job.header_len).ok_or(OpenError::Short)?;
    let len = body.checked_sub(profile.rtp_tag_len()).ok_or(OpenError::Short)?;
    if job.out.len() < len || job.keys.profile() != profile { Err(OpenError::Refused) } else { Ok(len) }
}

/// Records why an open job came to nothing.
#[cold]
pub(crate) fn refuse_open(job: &mut OpenJob<'_>, error: OpenError, refused: &mut u64) {
    job.out.fill(0);
    job.result = Err(error);
    if error == OpenError::Refused {
        *refused += 1;
    }
}

/// Whether an RTCP packet of `len` clear bytes can be sealed in `room` bytes under `index`.
pub(crate) fn rtcp_fits(keys: &SessionKeys, index: u32, room: usize, len: usize) -> bool {
    let sealed = len.checked_add(keys.profile().rtcp_tag_len() + 4);
    len >= 8 && index <= MAX_SRTCP_INDEX && sealed.is_some_and(|sealed| sealed <= room)
}

/// Whether two tags of the same length are equal, in constant time. As one wide word of the known tag lengths: byte
/// by byte costs 20 ns a packet.
#[inline]
pub(crate) fn tags_match(made: &[u8], received: &[u8]) -> bool {
    let wide = |tag: &[u8]| match tag.len() {
        16 => widen::<16>(tag),
        10 => widen::<10>(tag),
        4 => widen::<4>(tag),
        _ => None,
    };
    match (wide(made), wide(received)) {
        (Some(ours), Some(theirs)) => made.len() == received.len() && bool::from(ours.ct_eq(&theirs)),
        _ => false,
    }
}

#[inline]
fn widen<const N: usize>(tag: &[u8]) -> Option<u128> {
    let tag: &[u8; N] = tag.try_into().ok()?;
    let mut word = [0; Profile::MAX_TAG];
    word[..N].copy_from_slice(tag);
    Some(u128::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_match_only_when_every_byte_does() {
        for len in [4, 10, 16] {
            let tag: Vec<u8> = (1..=len).collect();
            assert!(tags_match(&tag, &tag));
            for at in 0..tag.len() {
                let mut other = tag.clone();
                other[at] ^= 0x80;
                assert!(!tags_match(&tag, &other));
            }
            assert!(!tags_match(&tag, &tag[1..]));
        }
        assert!(!tags_match(&[], &[]));
    }
}
