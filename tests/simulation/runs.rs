//! Many worlds at once, each twice to see that it repeats, and the shrinking of one that fails.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::swarm::{Fault, Params, Rules};
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
    params: Box<Params>,
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
    let named = |name: &str| std::env::var(name).ok();
    if let Some(text) = named("SIM_CLIENTS") {
        params.clients = numbers(&text);
    }
    if let Some(text) = named("SIM_STEPS") {
        params.steps = numbers(&text);
    }
    if let Some(names) = named("SIM_FAULTS") {
        params.faults = Fault::ALL
            .into_iter()
            .filter(|fault| names.split(',').any(|name| name == fault.name()))
            .collect();
    }
    let echo = named("SIM_TRACE").is_some();
    println!("simulation: {}", command(&params));
    let failure = match if echo { once(&params, true) } else { twice(&params) } {
        Ok(outcome) => {
            println!("simulation: passed: {outcome:?}");
            return ExitCode::SUCCESS;
        }
        Err(failure) => failure,
    };
    let failure = if echo { failure } else { shrink(failure) };
    let size = |params: &Params| {
        let (clients, steps) = (params.clients.len(), params.steps.len());
        format!("{clients} clients, {steps} steps, {} kinds of faults", params.faults.len())
    };
    println!("simulation: failed with {}; shrunk to {}:", size(&params), size(&failure.params));
    println!("\n{}\n{}", Rules::of_params(&failure.params), failure.trace);
    println!("{}", failure.what);
    println!("\nsimulation: to repeat: {}", command(&failure.params));
    ExitCode::FAILURE
}

/// The command that repeats a run.
fn command(params: &Params) -> String {
    let faults: Vec<String> = params.faults.iter().map(|fault| fault.name()).collect();
    format!(
        "SIM_SEED={} SIM_CLIENTS={} SIM_STEPS={} SIM_FAULTS={} cargo test --test simulation",
        params.seed,
        ranges(&params.clients),
        ranges(&params.steps),
        faults.join(",")
    )
}

/// Numbers as text: `0-3,7`.
fn ranges(numbers: &BTreeSet<usize>) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let part = |(first, last): (usize, usize)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    parts.into_iter().map(part).collect::<Vec<String>>().join(",")
}

/// The numbers of such a text.
fn numbers(text: &str) -> BTreeSet<usize> {
    let parts = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    parts.flatten().collect()
}

fn once(params: &Params, echo: bool) -> Result<Outcome, Failure> {
    let mut trace = Trace::new(echo);
    let result = catch_unwind(AssertUnwindSafe(|| world::run(params, &mut trace)));
    result.map_err(|_| Failure {
        params: Box::new(params.clone()),
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
        return Err(Failure { params: Box::new(params.clone()), what, trace: String::new() });
    }
    Ok(first)
}

/// Looks for the smallest world that fails at the same place: fewer steps, fewer clients, fewer
/// kinds of faults. Large parts are left out first, then smaller ones.
fn shrink(mut failure: Failure) -> Failure {
    let place = failure.place();
    let until = Instant::now() + SHRINKING_MAX;
    let mut shrunk = true;
    while shrunk {
        shrunk = false;
        for part in [2, 4, 8, 16, 32, usize::MAX] {
            let mut from = 0;
            while let Some((smaller, next)) = without(&failure.params, part, from) {
                if Instant::now() > until {
                    return failure;
                }
                match once(&smaller, false) {
                    Err(found) if found.place() == place => {
                        failure = found;
                        shrunk = true;
                    }
                    _ => from = next,
                }
            }
        }
    }
    failure
}

/// How long a failing seed is made smaller.
const SHRINKING_MAX: Duration = Duration::from_secs(120);

impl Failure {
    /// Where in the source it was noticed.
    fn place(&self) -> String {
        self.what.lines().next().unwrap_or_default().to_owned()
    }
}

/// A world without one of so many parts of its steps, clients and kinds of faults: what is at
/// `from` and behind it. Gives where the next part begins as well.
fn without(params: &Params, parts: usize, from: usize) -> Option<(Params, usize)> {
    let (steps, clients) = (params.steps.len(), params.clients.len());
    let all = steps + clients + params.faults.len();
    if from >= all {
        return None;
    }
    let (begin, end) = match from {
        _ if from < steps => (0, steps),
        _ if from < steps + clients => (steps, steps + clients),
        _ => (steps + clients, all),
    };
    let next = from.saturating_add(((end - begin) / parts).max(1)).min(end);
    let is_kept = |at: usize| !(from..next).contains(&at);
    let mut smaller = params.clone();
    let mut at = 0;
    let mut keep = || {
        at += 1;
        is_kept(at - 1)
    };
    smaller.steps.retain(|_| keep());
    smaller.clients.retain(|_| keep());
    smaller.faults.retain(|_| keep());
    Some((smaller, next))
}
