//! Client versions that are turned away, in sftd's spelling. Never decides what the client is told.

use std::str::FromStr;

/// Client versions that are turned away: `<6.2.9,6.2.11` means all before 6.2.9, and 6.2.11.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blacklist(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    below: bool,
    version: Version,
}

type Version = [u32; 3];

/// Why a text is not a blacklist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version; expected MAJOR.MINOR.PATCH, or <MAJOR.MINOR.PATCH for all before it")]
pub struct BlacklistError(pub String);

impl FromStr for Blacklist {
    type Err = BlacklistError;

    fn from_str(text: &str) -> Result<Blacklist, BlacklistError> {
        let rules = text.split(',').map(str::trim).filter(|rule| !rule.is_empty()).map(|rule| {
            let below = rule.strip_prefix('<');
            let text = below.unwrap_or(rule).trim();
            let version = version(text).filter(|_| is_exact(text)).ok_or_else(|| BlacklistError(rule.to_owned()))?;
            Ok(Rule { below: below.is_some(), version })
        });
        rules.collect::<Result<_, _>>().map(Blacklist)
    }
}

impl Blacklist {
    /// Whether a client's version is turned away. One that is no version is not: tools that test have none.
    pub fn refuses(&self, text: &str) -> bool {
        let Some(version) = version(text) else { return false };
        self.0.iter().any(|rule| if rule.below { version < rule.version } else { version == rule.version })
    }
}

/// Whether an operator wrote a version and nothing else: a rule that is not understood must not be half obeyed.
fn is_exact(text: &str) -> bool {
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u32>().is_ok();
    text.split('.').count() <= 3 && text.split('.').all(number)
}

/// Major version of a client.
pub(super) fn major(text: &str) -> Option<u32> {
    version(text).map(|version| version[0])
}

/// Missing parts count as 0, and what follows the third (a build's suffix) does not count.
fn version(text: &str) -> Option<Version> {
    let mut version = [0; 3];
    let mut parts = text.trim().split('.');
    for (at, part) in version.iter_mut().enumerate() {
        let Some(text) = parts.next() else { break };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 && at == 0 {
            return None;
        }
        *part = if digits == 0 { 0 } else { text[..digits].parse().ok()? };
    }
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_before_and_what_is_named() {
        let list: Blacklist = "<6.2.9,6.2.11".parse().unwrap();
        for refused in ["6.2.8", "5.99.99", "6.2.11", "6.2.8-beta", "6.2", "6"] {
            assert!(list.refuses(refused), "{refused}");
        }
        for taken in ["6.2.9", "6.2.10", "6.2.12", "10.5.8", "local", ""] {
            assert!(!list.refuses(taken), "{taken}");
        }
        assert!(!Blacklist::default().refuses("1.0.0"));
        assert_eq!("".parse::<Blacklist>(), Ok(Blacklist::default()));
        assert!("<x".parse::<Blacklist>().is_err());
        assert!("1.2.99999999999".parse::<Blacklist>().is_err());
    }
}
