//! The program in a simulated world. See README.md.
//!
//!     cargo test --test simulation                     the fixed seeds, and one of the day
//!     SIM_SEED=7 cargo test --release --test simulation     one seed, shrunk if it fails
//!     SIM_FIRST=1 SIM_SEEDS=300 …      up to the first that fails, as `mutate` does
//!     SIM_SEEDS=1000 cargo test --release --test simulation     so many, from SIM_FROM on

mod dice;
mod marks;
mod model;
mod peers;
mod runs;
mod swarm;
mod trace;
mod wire;
mod world;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use runs::{Report, reproduce, run_all};

/// Seeds that every `cargo test` runs: about a minute in a debug build.
const SEEDS: u64 = 60;

fn main() -> ExitCode {
    runs::quiet_panics();
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    if let Some(seed) = number("SIM_SEED") {
        return reproduce(seed);
    }
    let from = number("SIM_FROM").unwrap_or(0);
    let mut seeds: Vec<u64> = (from..from + number("SIM_SEEDS").unwrap_or(SEEDS)).collect();
    if number("SIM_SEEDS").is_none() {
        let today = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let fresh = 1_000_000 + today / 86_400;
        println!("simulation: the seed of the day is {fresh}");
        seeds.push(fresh);
    }
    if number("SIM_FIRST").is_some() {
        return runs::first_to_fail(&seeds);
    }
    match run_all(&seeds) {
        Report::Passed => ExitCode::SUCCESS,
        Report::Failed => ExitCode::FAILURE,
    }
}
