//! Keys in table files: inline or in a file of their own, base64 or hex. Never shows a key, and refuses files
//! that others could read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use sluice_srtp::Profile;
use sluice_srtp::key::MasterKey;
use toml_edit::Item;
use zeroize::Zeroizing;

use super::read::{Fields, text};

/// Longest key file in bytes: the longest key in hex is 88 characters.
const MAX_KEY_FILE: u64 = 1024;

const EXPECTED: &str = "a table such as { profile = \"aes128-gcm\", key_file = \"alice.key\" }";

/// Reads `srtp_in` or `srtp_out`.
pub(super) fn key(leg: &mut Fields<'_, '_, '_>, field: &'static str) -> Option<MasterKey> {
    let mut fields = leg.inner(field, EXPECTED)?;
    let names = Profile::ALL.map(Profile::name).join("\", \"");
    let profile = fields.required("profile", &format!("one of \"{names}\""), |item| {
        let name = item.as_str()?;
        Profile::ALL.into_iter().find(|p| p.name() == name)
    });
    let inline = fields.item("key");
    let file = fields.item("key_file");
    let made = match (inline, file) {
        (None, None) => {
            fields.missing("key", "key or key_file");
            None
        }
        (Some(_), Some(item)) => {
            fields.wrong("key_file", item, "key is given too; expected one of them");
            None
        }
        (Some(item), None) => profile.and_then(|p| from_inline(&mut fields, item, p)),
        (None, Some(item)) => profile.and_then(|p| from_file(&mut fields, item, p)),
    };
    fields.finish();
    made
}

fn from_inline(fields: &mut Fields<'_, '_, '_>, item: &Item, profile: Profile) -> Option<MasterKey> {
    let origin = fields.report.origin;
    if origin.mode & 0o077 != 0 && !fields.report.readable_reported {
        fields.report.readable_reported = true;
        let path = origin.file.display();
        let message = format!(
            "this file holds keys and has mode {:04o}, so others can read it; run `chmod 600 {path}`",
            origin.mode & 0o7777
        );
        fields.wrong("key", item, message);
        return None;
    }
    let Some(value) = item.as_str() else {
        fields.wrong("key", item, expected(profile));
        return None;
    };
    checked(fields, "key", item, value, profile)
}

fn from_file(fields: &mut Fields<'_, '_, '_>, item: &Item, profile: Profile) -> Option<MasterKey> {
    let Some(relative) = text(item) else {
        fields.wrong("key_file", item, "expected a path, relative to this file");
        return None;
    };
    let base = fields.report.origin.file.parent().unwrap_or_else(|| std::path::Path::new("."));
    let path = base.join(relative);
    let content = match read_private(&path) {
        Ok(content) => content,
        Err(why) => {
            fields.wrong("key_file", item, format!("{} {why}", path.display()));
            return None;
        }
    };
    checked(fields, "key_file", item, content.trim(), profile)
}

fn read_private(path: &std::path::Path) -> Result<Zeroizing<String>, String> {
    const OTHER: &str = "is not a regular file; expected a file that holds one key";
    let opened = |e| format!("cannot be opened: {e}");
    // Opening a device may do something, and a FIFO waits for whoever writes.
    if !std::fs::metadata(path).map_err(opened)?.is_file() {
        return Err(OTHER.to_owned());
    }
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(opened)?;
    let meta = file.metadata().map_err(|e| format!("cannot be examined: {e}"))?;
    // It may have been replaced in between.
    if !meta.is_file() {
        return Err(OTHER.to_owned());
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(format!("has mode {mode:04o}, so others can read it; run `chmod 600 {}`", path.display()));
    }
    let mut content = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize + 1));
    file.by_ref().take(MAX_KEY_FILE + 1).read_to_string(&mut content).map_err(|e| format!("cannot be read: {e}"))?;
    if content.len() as u64 > MAX_KEY_FILE {
        return Err("is longer than 1024 bytes; expected one key".to_owned());
    }
    Ok(content)
}

fn checked(
    fields: &mut Fields<'_, '_, '_>,
    field: &str,
    item: &Item,
    value: &str,
    profile: Profile,
) -> Option<MasterKey> {
    let key = decode(value, profile.key_len() + profile.salt_len())
        .and_then(|bytes| MasterKey::from_bytes(profile, &bytes).ok());
    if key.is_none() {
        fields.wrong(field, item, expected(profile));
    }
    key
}

fn expected(profile: Profile) -> String {
    format!(
        "expected {} bytes of master key and {} of master salt for {}, one after the other, in base64 or hex",
        profile.key_len(),
        profile.salt_len(),
        profile.name()
    )
}

/// Decodes hex if the text has exactly the length hex would have, else base64 with or without padding.
fn decode(value: &str, len: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(len + 3));
    if value.len() == 2 * len && value.bytes().all(|b| b.is_ascii_hexdigit()) {
        for pair in value.as_bytes().chunks_exact(2) {
            let digit = |b: u8| (b as char).to_digit(16);
            bytes.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
        }
        return Some(bytes);
    }
    let body = value.trim_end_matches('=');
    if value.len() - body.len() > 2 || body.len().div_ceil(4) * 3 > len + 3 || body.len() % 4 == 1 {
        return None;
    }
    if value.len() != body.len() && !value.len().is_multiple_of(4) {
        return None;
    }
    let (mut bits, mut have) = (0u32, 0);
    for byte in body.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
            bits &= (1 << have) - 1;
        }
    }
    // Bits left over must be zero, so that one key has one spelling.
    (bits == 0 && bytes.len() == len).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_are_read() {
        let hex = "00ff10";
        assert_eq!(decode(hex, 3).unwrap().as_slice(), [0, 255, 16]);
        assert_eq!(decode("AP8Q", 3).unwrap().as_slice(), [0, 255, 16]);
        // RFC 4648 §10.
        for (text, encoded) in [("f", "Zg=="), ("fo", "Zm8="), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(decode(encoded, text.len()).unwrap().as_slice(), text.as_bytes());
            assert_eq!(decode(encoded.trim_end_matches('='), text.len()).unwrap().as_slice(), text.as_bytes());
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "Zg=", "Zg===", "Zh==", "Z", "Z g==", "Zg==Zg==", "Zm8="] {
            assert!(decode(bad, 1).is_none(), "{bad:?}");
        }
        assert!(decode(&"A".repeat(100_000), 28).is_none());
    }
}
