//! The built XDP object inside this binary, and the check that it belongs to this build.

use sluice_xdp_layout::{STAMP, Stamp};

use super::SteeringError;

/// The object, aligned as an ELF file must be.
pub fn embedded() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/object/sluice.bpf.o"))
}

/// Checks that `object` was built from the sources this binary was built from.
pub fn check(object: &[u8]) -> Result<Stamp, SteeringError> {
    let found = Stamp::find(object).ok_or(SteeringError::Unstamped)?;
    if found == STAMP {
        Ok(found)
    } else {
        Err(SteeringError::Stale { found: found.version(), expected: STAMP.version() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_belongs_to_this_build() {
        assert_eq!(check(embedded()).expect("built from these sources"), STAMP);
    }

    #[test]
    fn other_objects_are_refused() {
        let mut object = embedded().to_vec();
        let at = object.windows(16).position(|w| w == STAMP.magic).expect("stamped");
        object[at + 20] ^= 1;
        assert!(matches!(check(&object), Err(SteeringError::Stale { .. })));
        object[at] ^= 1;
        assert!(matches!(check(&object), Err(SteeringError::Unstamped)));
    }
}
