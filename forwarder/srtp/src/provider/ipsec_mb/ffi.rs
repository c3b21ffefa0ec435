//! Bindings written by `build.rs` from the installed `intel-ipsec-mb.h`. Nothing by hand.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_debug_implementations,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/ipsec_mb_ffi.rs"));
