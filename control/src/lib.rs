//! The control plane and the `sluice` command. Never touches media.
