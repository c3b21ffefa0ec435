//! The stamp in the built object: layout version and a hash of all sources the object was made of. Both sides
//! compute it from the same files, so an object built from other sources is recognised before it is loaded.

/// Marks the stamp in the object file.
pub const MAGIC: [u8; 16] = *b"SLUICE-XDP-STAMP";

/// Section of the object that holds the stamp.
pub const SECTION: &str = "sluice.stamp";

/// Version and source hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// [`MAGIC`].
    pub magic: [u8; 16],
    /// [`VERSION`](crate::VERSION), little endian.
    pub version: [u8; 4],
    /// FNV-1a, 128 bits, little endian, over lengths and contents of the sources.
    pub hash: [u8; 16],
}

/// The stamp of the sources in this tree.
pub static STAMP: Stamp = Stamp { magic: MAGIC, version: crate::VERSION.to_le_bytes(), hash: SOURCE_HASH };

/// Hash of the sources in this tree.
pub const SOURCE_HASH: [u8; 16] = hash_all(&[
    include_bytes!("lib.rs"),
    include_bytes!("maps.rs"),
    include_bytes!("stamp.rs"),
    include_bytes!("verdict.rs"),
    include_bytes!("../../program/Cargo.lock"),
    include_bytes!("../../program/Cargo.toml"),
    include_bytes!("../../program/src/main.rs"),
    include_bytes!("../../program/src/packet.rs"),
]);

impl Stamp {
    /// Bytes of a stamp.
    pub const LEN: usize = 36;

    /// Finds the stamp in an object file.
    pub fn find(object: &[u8]) -> Option<Stamp> {
        let at = object.windows(MAGIC.len()).position(|window| *window == MAGIC)?;
        let bytes = object.get(at..at + Self::LEN)?;
        Some(Stamp { magic: MAGIC, version: bytes[16..20].try_into().ok()?, hash: bytes[20..36].try_into().ok()? })
    }

    /// The layout version.
    pub const fn version(&self) -> u32 {
        u32::from_le_bytes(self.version)
    }
}

const fn hash_all(files: &[&[u8]]) -> [u8; 16] {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut file = 0;
    while file < files.len() {
        let bytes = files[file];
        // The length goes in first, so that moving text between files changes the hash.
        hash = (hash ^ bytes.len() as u128).wrapping_mul(PRIME);
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u128).wrapping_mul(PRIME);
            at += 1;
        }
        file += 1;
    }
    hash.to_le_bytes()
}
