//! `sluice-bench`: generators, sinks and benches. Traffic goes only where a session file says, and to namespaces
//! that `lab` makes. One JSON object a run on stdout, everything else on stderr.

mod child;
mod clock;
mod engine;
mod error;
mod generate;
mod guard;
mod join;
mod keys;
mod lab;
mod latency;
mod ndr;
mod random;
mod shape;
mod sink;
mod stamp;

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, Subcommand};

/// Measures Sluice: makes SRTP, checks what comes back, and runs whole labs.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 4 every run was discarded because the machine was not quiet.
#[derive(Parser, Debug)]
#[command(version, about, long_about)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The engine alone, on memory I/O
    Engine(engine::Arguments),
    /// Send SRTP on a fixed schedule
    Generate(generate::Arguments),
    /// Receive SRTP, open it and check it
    Sink(sink::Arguments),
    /// Write a session file: who sends and who receives what under which keys
    Session(keys::Arguments),
    /// Measure a forwarder between two network namespaces
    Lab(lab::Arguments),
    /// Join conferences as synthetic Wire clients and measure control
    Join(join::Arguments),
    /// Search the highest rate without loss
    Ndr(ndr::Arguments),
    /// The baseline forwarder that `lab --io bare` starts
    #[command(hide = true)]
    Bare(lab::bare::Arguments),
}

/// Counts allocations, so that "none in steady state" is a number.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Heap allocations of the process so far.
fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Engine(arguments) => {
            engine::run(&arguments).map_err(|error| error::BenchError::refused("running the engine")(error))
        }
        What::Generate(arguments) => generate::run(&arguments),
        What::Sink(arguments) => sink::run(&arguments),
        What::Session(arguments) => keys::run(&arguments),
        What::Lab(arguments) => lab::run(&arguments),
        What::Join(arguments) => join::run(&arguments),
        What::Ndr(arguments) => ndr::run(&arguments),
        What::Bare(arguments) => lab::bare::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-bench: {error}");
            ExitCode::from(error.code())
        }
    }
}
