//! What the XDP program and user space must agree on: map names, keys, values and the verdict enum.
//! Never depends on the standard library or on either side.
#![no_std]
