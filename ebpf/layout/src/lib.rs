//! What the XDP program and user space must agree on: map names, keys, values and the verdict enum.
//! Never depends on the standard library or on either side.
#![no_std]

pub mod maps;
pub mod stamp;
pub mod verdict;

pub use maps::{ACCEPT_UNKNOWN, Bucket, BucketState, Config, EndpointKey, EndpointValue, Plain, TupleKey, TupleValue};
pub use stamp::{STAMP, Stamp};
pub use verdict::{VERDICTS, Verdict};

/// Version of everything in this crate that crosses between kernel and user space. Raised with every change of
/// a key, a value, a verdict or a map.
pub const VERSION: u32 = 1;
