//! Does one fixed piece of work in the core, so that its instructions can be counted: no sockets,
//! no clock, no chance. `run` beside this counts what `measured` does and compares it.
//!
//! `instructions NAME` does the work and prints the number of operations in it.

mod bench;
#[path = "../../src/frames.rs"]
#[expect(dead_code, reason = "the floor's and the load's parts of it are not needed here")]
mod frames;
mod scenarios;

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some((_, scenario)) = scenarios::ALL.iter().find(|(known, _)| *known == name) else {
        for (name, _) in scenarios::ALL {
            println!("{name}");
        }
        return ExitCode::from(u8::from(name != "--list") * 2);
    };
    println!("{}", scenario());
    ExitCode::SUCCESS
}
