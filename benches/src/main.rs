//! What SocketShark costs beside the floor: see README.md.

use std::path::Path;
use std::process::ExitCode;

mod crowd;
mod floor;
mod frames;
mod publisher;
mod rounds;
mod scenario;
mod server;
mod service;

use rounds::Column;
use scenario::Scenario;
use server::{Bench, Kind, Redis};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
benches/run [options] [scenario...]

  --rounds N       rounds of each server, interleaved; medians are printed (5)
  --share F        how much of each scenario's work is done in a round (1)
  --against CMD    another server of the same protocol: a shell command in which {port}, {redis},
                   {service} and {config} are filled in (also in the environment as BENCH_PORT,
                   BENCH_REDIS_PORT, BENCH_SERVICE_PORT, BENCH_CONFIG); it gets a tenth of the work
                   and two rounds
  --equally        the other server gets as much work and as many rounds
  --original       the original in Python: its interpreter is BENCH_ORIGINAL_PYTHON, its source
                   BENCH_ORIGINAL_SOURCE
  --best           the best rounds instead of the medians, on a machine that does other work
  --verbose        every round's figures as well
  --list           the scenarios
  curve            cost of a delivery by clients and topics, instead of the table
";

struct Options {
    rounds: usize,
    share: f64,
    against: Option<Kind>,
    equally: bool,
    best: bool,
    curve: bool,
    verbose: bool,
    names: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("floor") => run_floor(&arguments[1..]),
        Some("drive") => drive(&arguments[1..]),
        Some("-h" | "--help") => {
            print!("{HELP}");
            Ok(())
        }
        Some("--list") => {
            Scenario::all().iter().for_each(|scenario| println!("{}", scenario.name));
            Ok(())
        }
        _ => options(arguments).and_then(|options| run(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_floor(ports: &[String]) -> Outcome<()> {
    let [port, publishers_port, service_port] = ports else { return Err("three ports".into()) };
    floor::run(port.parse()?, publishers_port.parse()?, service_port.parse()?)
}

/// The load of one scenario on one server, in a process of its own: descriptors are few.
fn drive(arguments: &[String]) -> Outcome<()> {
    let [name, command, share, directory] = arguments else {
        return Err("four arguments".into());
    };
    let all = Scenario::all().into_iter().chain(Scenario::curve());
    let scenario = all.into_iter().find(|one| one.name == *name).ok_or("no such scenario")?;
    let kind = if command.is_empty() { Kind::Floor } else { Kind::Command(command.clone()) };
    // Each has a Redis of its own: servers would get each other's messages.
    let redis = Redis::start(Path::new(directory))?;
    let bench = Bench {
        redis_port: redis.port,
        service_port: service::start()?,
        directory: directory.into(),
    };
    scenario.drive(&bench, &kind, share.parse()?)
}

fn options(arguments: Vec<String>) -> Outcome<Options> {
    let mut options = Options {
        rounds: 5,
        share: 1.0,
        against: None,
        equally: false,
        best: false,
        curve: false,
        verbose: false,
        names: Vec::new(),
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
            "--share" => options.share = value()?.parse()?,
            "--against" => options.against = Some(Kind::Command(value()?)),
            "--original" => options.against = Some(original()?),
            "--equally" => options.equally = true,
            "--best" => options.best = true,
            "--verbose" => options.verbose = true,
            "curve" => options.curve = true,
            name if name.starts_with('-') => return Err(format!("unknown: {name}").into()),
            _ => options.names.push(argument),
        }
    }
    Ok(options)
}

/// The original, with the same configuration by way of a Python module.
fn original() -> Outcome<Kind> {
    let path = |name| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let python = path("BENCH_ORIGINAL_PYTHON")?;
    let source = path("BENCH_ORIGINAL_SOURCE")?;
    Ok(Kind::Command(format!(
        "sh -c 'cd \"$(dirname \"$BENCH_CONFIG\")\" && \
         echo \"import json; globals().update(json.load(open(\\\"$BENCH_CONFIG\\\")))\" \
         > bench_config_$BENCH_PORT.py && \
         PYTHONPATH={source}:. exec {python} -m socketshark -c bench_config_$BENCH_PORT'"
    )))
}

fn run(options: &Options) -> Outcome<()> {
    let name = format!("socketshark-benches-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory)?;
    let mut columns = vec![Column::new("floor", Kind::Floor, options.rounds, options.share)];
    if let Ok(path) = std::env::var("BENCH_SOCKETSHARK") {
        let kind = Kind::Command(format!("'{path}' -c {{config}}"));
        columns.push(Column::new("ours", kind, options.rounds, options.share));
    }
    if let Some(kind) = &options.against {
        let (rounds, share) = match options.equally {
            true => (options.rounds, options.share),
            false => (options.rounds.min(2), options.share * 0.1),
        };
        columns.push(Column::new("other", kind.clone(), rounds, share));
    }
    let mut scenarios = if options.curve { Scenario::curve() } else { Scenario::all() };
    for name in &options.names {
        if !scenarios.iter().any(|scenario| scenario.name == *name) {
            return Err(format!("no scenario {name}; --list shows all").into());
        }
    }
    scenarios.retain(|one| options.names.is_empty() || options.names.contains(&one.name));
    rounds::print_head(&columns);
    for scenario in &scenarios {
        let samples = rounds::run(scenario, &columns, &directory);
        if options.verbose {
            rounds::print_rounds(scenario, &columns, &samples);
        }
        rounds::print_row(scenario, &samples, options.best);
    }
    if options.names.is_empty() && !options.curve {
        let redis = Redis::start(&directory)?;
        let bench = Bench { redis_port: redis.port, service_port: 1, directory: directory.clone() };
        rounds::print_sizes(&columns, &bench)?;
    }
    Ok(std::fs::remove_dir_all(directory)?)
}
