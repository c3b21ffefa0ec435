//! What can be wrong with a description, and how large one may be.

/// Bounds of a description; the defaults are several times what browsers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text, 256 KiB.
    pub bytes: usize,
    /// Lines, 8,192.
    pub lines: usize,
    /// Media sections, 64.
    pub media: usize,
    /// Different candidates in all sections together, 64. Some peers repeat theirs in each section.
    pub candidates: usize,
    /// Formats of one media section, 128: as many as there are payload types.
    pub formats: usize,
    /// Different fingerprints in all sections together, 16.
    pub fingerprints: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 256 * 1024, lines: 8_192, media: 64, candidates: 64, formats: 128, fingerprints: 16 }
    }
}

/// Why a description was refused. Never holds text of the description beyond a mid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// More text than allowed.
    #[error("the description is {bytes} bytes long; at most {limit} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// [`Limits::bytes`].
        limit: usize,
    },
    /// More of something than allowed.
    #[error("line {line}: more than {limit} {what}; send fewer")]
    TooMany {
        /// Line of the first one too many, from 1.
        line: usize,
        /// What there are too many of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A line that cannot be read.
    #[error("line {line}: {what} cannot be read; expected {expected}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// What kind of line it is, e.g. `a=candidate`.
        what: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// A line that may be there only once is there again.
    #[error("line {line}: {what} is there already; give it once")]
    Repeated {
        /// The later line, from 1.
        line: usize,
        /// What kind of line it is.
        what: &'static str,
    },
    /// Something needed is not there.
    #[error("{what} is missing; give it in {place}")]
    Missing {
        /// What is needed.
        what: &'static str,
        /// Where it belongs.
        place: &'static str,
    },
    /// Bundled sections share one transport, and two of them disagree about it.
    #[error("section {mid:?} gives another {what} than the section it is bundled with; bundled sections share one")]
    Contradiction {
        /// Mid of the section.
        mid: String,
        /// What differs.
        what: &'static str,
    },
}
