//! Many worlds at once, each twice to see that it repeats, and the shrinking of one that fails.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::swarm::{Fault, Params};
use crate::trace::Trace;
use crate::world::{self, Outcome};

thread_local! {
    /// Where the last panic of this thread was, and what it said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

pub enum Report {
    Passed,
    Failed,
}

/// A world that failed.
struct Failure {
    params: Params,
    what: String,
    trace: String,
}

/// Panics are findings: they are kept for the report and not printed.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = info.to_string());
    }));
}

/// Runs each seed twice, on as many threads as there are processors.
pub fn run_all(seeds: &[u64]) -> Report {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    let total = Mutex::new(crate::model::Tally::default());
    let work = || {
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            match twice(&Params::of_seed(seed)) {
                Ok(outcome) => total.lock().expect("no thread panics").add(&outcome.tally),
                Err(_) => failed.lock().expect("no thread panics").push(seed),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().expect("no thread panics");
    failed.sort_unstable();
    let took = began.elapsed().as_secs_f64();
    println!("simulation: {} seeds in {took:.1} s: {:?}", seeds.len(), total.into_inner());
    let Some(&first) = failed.first() else { return Report::Passed };
    println!("simulation: failed seeds: {failed:?}");
    reproduce(first);
    Report::Failed
}

/// Runs seeds one after the other up to the first that fails: how many it takes to see a mistake.
pub fn first_to_fail(seeds: &[u64]) -> ExitCode {
    for (count, &seed) in seeds.iter().enumerate() {
        if let Err(failure) = once(&Params::of_seed(seed), false) {
            let what = failure.what.replace('\n', " ");
            println!("caught by seed {seed} after {} seeds: {what}", count + 1);
            return ExitCode::FAILURE;
        }
    }
    println!("not caught within {} seeds", seeds.len());
    ExitCode::SUCCESS
}

/// Runs one seed, with what the environment changes about it, and shrinks it if it fails.
pub fn reproduce(seed: u64) -> ExitCode {
    let mut params = Params::of_seed(seed);
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    params.clients = number("SIM_CLIENTS").unwrap_or(params.clients);
    params.steps = number("SIM_STEPS").unwrap_or(params.steps);
    if let Ok(names) = std::env::var("SIM_FAULTS") {
        params.faults = Fault::ALL
            .into_iter()
            .filter(|fault| names.split(',').any(|name| name == fault.name()))
            .collect();
    }
    let echo = std::env::var("SIM_TRACE").is_ok();
    println!("simulation: {}", command(&params));
    let failure = match if echo { once(&params, true) } else { twice(&params) } {
        Ok(outcome) => {
            println!("simulation: passed: {outcome:?}");
            return ExitCode::SUCCESS;
        }
        Err(failure) => failure,
    };
    let failure = if echo { failure } else { shrink(failure) };
    println!("\n{}\n{}", failure.trace, failure.what);
    println!("\nsimulation: to repeat: {}", command(&failure.params));
    ExitCode::FAILURE
}

/// The command that repeats a run.
fn command(params: &Params) -> String {
    let faults: Vec<String> = params.faults.iter().map(|fault| fault.name()).collect();
    format!(
        "SIM_SEED={} SIM_CLIENTS={} SIM_STEPS={} SIM_FAULTS={} cargo test --test simulation",
        params.seed,
        params.clients,
        params.steps,
        faults.join(",")
    )
}

fn once(params: &Params, echo: bool) -> Result<Outcome, Failure> {
    let mut trace = Trace::new(echo);
    let result = catch_unwind(AssertUnwindSafe(|| world::run(params, &mut trace)));
    result.map_err(|_| Failure {
        params: params.clone(),
        what: PANIC.with(|panic| panic.borrow().clone()),
        trace: trace.text(),
    })
}

/// The same seed gives the same bytes.
fn twice(params: &Params) -> Result<Outcome, Failure> {
    let first = once(params, false)?;
    let second = once(params, false)?;
    if first.digest != second.digest {
        let what = "the second run of the same seed gave other bytes".to_owned();
        return Err(Failure { params: params.clone(), what, trace: String::new() });
    }
    Ok(first)
}

/// Looks for the smallest world that fails: fewer kinds of faults, fewer clients, fewer steps.
fn shrink(mut failure: Failure) -> Failure {
    let mut shrunk = true;
    while shrunk {
        shrunk = false;
        for smaller in smaller(&failure.params) {
            if let Err(found) = twice(&smaller) {
                failure = found;
                shrunk = true;
                break;
            }
        }
    }
    failure
}

fn smaller(params: &Params) -> Vec<Params> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Params)| {
        let mut smaller = params.clone();
        change(&mut smaller);
        if smaller != *params {
            all.push(smaller);
        }
    };
    for steps in [params.steps / 2, params.steps * 3 / 4, params.steps * 9 / 10] {
        add(&|smaller| smaller.steps = steps);
    }
    add(&|smaller| smaller.steps = params.steps.saturating_sub(1));
    for clients in [params.clients / 2, params.clients - 1] {
        add(&|smaller| smaller.clients = clients.max(1));
    }
    for fault in params.faults.clone() {
        add(&|smaller| smaller.faults.retain(|other| *other != fault));
    }
    all
}
