//! Runs what the fuzz targets of control check (fuzz/targets/control.rs) over their committed corpora, truncations and
//! seeded mutations of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "../../fuzz/targets/control.rs"]
#[allow(unreachable_pub, missing_docs)]
mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use targets::TARGETS;

/// Mutations of each seed.
const MUTATIONS: u32 = 400;

fn committed(target: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("corpus of {target}: {e}"));
    let read = |file: std::fs::DirEntry| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap());
    files.map(|file| read(file.unwrap())).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

/// One to four small changes.
fn mutated(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut mutant = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(mutant.len());
        match random.below(5) {
            0 if at < mutant.len() => mutant[at] ^= 1 << random.below(8),
            1 if at < mutant.len() => mutant[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n'][random.below(7)],
            2 => mutant.insert(at, random.below(256) as u8),
            3 => mutant.truncate(mutant.len() - random.below(mutant.len() / 8 + 1)),
            _ => {
                let to = (at + random.below(64)).min(mutant.len());
                let piece = mutant[at..to].to_vec();
                mutant.splice(at..at, piece);
            }
        }
    }
    mutant
}

#[test]
fn corpora_truncations_and_mutations_hold() {
    for (target, run) in TARGETS {
        let files = committed(target);
        assert!(files.len() >= 5, "{target}");
        for (n, (file, bytes)) in files.iter().enumerate() {
            run(bytes);
            for length in (0..bytes.len()).step_by(bytes.len() / 128 + 1) {
                run(&bytes[..length]);
            }
            let mut random = Random(0xf022 + n as u64);
            for round in 0..MUTATIONS {
                let mutant = mutated(&mut random, bytes);
                if let Err(panic) = std::panic::catch_unwind(|| run(&mutant)) {
                    eprintln!("{target}/{file}, mutation {round}: {:?}", String::from_utf8_lossy(&mutant));
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}
