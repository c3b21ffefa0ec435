//! The pieces lines are made of. Never knows a line.

/// What belongs at a place that cannot be read.
pub(super) type Expected = &'static str;

/// The non-empty words of a line, which single or several spaces divide.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t']).filter(|word| !word.is_empty())
}

/// A decimal number without a sign.
pub(super) fn number<T: std::str::FromStr>(text: &str, expected: Expected) -> Result<T, Expected> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected);
    }
    text.parse().map_err(|_| expected)
}

/// An RTP payload type.
pub(super) fn payload_type(text: &str, expected: Expected) -> Result<u8, Expected> {
    number::<u8>(text, expected).ok().filter(|number| *number < 128).ok_or(expected)
}

/// Characters of RFC 8839's `ice-char`, as many as allowed.
pub(super) fn ice_chars(text: &str, range: std::ops::RangeInclusive<usize>) -> bool {
    range.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}
