//! Prints the bare cost of sealing and opening, in nanoseconds per packet: best and median of 41 interleaved runs.
//! `cargo run --release -p sluice-srtp --example bare [keys]`

use sluice_srtp::bench::{Shape, bare_open, bare_seal};
use sluice_srtp::{AnyProvider, Profile, ProviderKind};

const ROUNDS: usize = 41;

fn main() {
    let keys = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(50);
    println!("{:<20}{:<10}{:>8}{:>16}{:>16}", "profile", "provider", "payload", "seal ns", "open ns");
    for profile in Profile::ALL {
        for payload in [160, 1200] {
            let shape = Shape { profile, payload, keys, packets: 5_000 };
            let mut rows: Vec<(AnyProvider, Vec<f64>, Vec<f64>)> = ProviderKind::ALL
                .into_iter()
                .filter_map(|kind| match AnyProvider::new(kind) {
                    Ok(provider) => Some((provider, Vec::new(), Vec::new())),
                    Err(error) => {
                        eprintln!("{error}");
                        None
                    }
                })
                .collect();
            // Interleaved, so that a drifting machine touches every provider alike.
            for _ in 0..ROUNDS {
                for (provider, seal, open) in &mut rows {
                    seal.push(bare_seal(provider, shape));
                    open.push(bare_open(provider, shape));
                }
            }
            for (provider, seal, open) in &mut rows {
                let (seal, open) = (figures(seal), figures(open));
                println!("{:<20}{:<10}{payload:>8}{seal:>16}{open:>16}", profile.name(), provider.kind().name());
            }
        }
    }
}

fn figures(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.1} / {:.1}", values[0], values[values.len() / 2])
}
