//! Rounds of the servers in turns, and the table of their medians.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Outcome;
use crate::scenario::{Sample, Scenario};
use crate::server::{Bench, Kind};

/// A column of the table.
pub struct Column {
    name: &'static str,
    kind: Kind,
    rounds: usize,
    share: f64,
}

impl Column {
    pub fn new(name: &'static str, kind: Kind, rounds: usize, share: f64) -> Column {
        Column { name, kind, rounds, share }
    }
}

/// A process that drives one server through one scenario.
struct Driver {
    child: Child,
    words: Option<ChildStdin>,
    figures: BufReader<ChildStdout>,
}

impl Driver {
    fn start(scenario: &Scenario, column: &Column, directory: &Path) -> Outcome<Driver> {
        let command = match &column.kind {
            Kind::Floor => "",
            Kind::Command(line) => line,
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["drive", &scenario.name, command, &column.share.to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let words = child.stdin.take();
        let figures = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut driver = Driver { child, words, figures };
        driver.line()?;
        Ok(driver)
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.figures.read_line(&mut line)? {
            0 => Err("a driver has failed".into()),
            _ => Ok(line),
        }
    }

    fn round(&mut self) -> Outcome<Sample> {
        self.words.as_ref().ok_or("no standard input")?.write_all(b"go\n")?;
        let line = self.line()?;
        let (cost, rate) = line.trim().split_once(' ').ok_or("no figures")?;
        Ok(Sample { cost: cost.parse()?, rate: rate.parse()? })
    }
}

impl Drop for Driver {
    /// Lets it end its server.
    fn drop(&mut self) {
        drop(self.words.take());
        let _ = self.child.wait();
    }
}

/// All rounds of a scenario, servers taking turns, and its row of the table.
pub fn run(scenario: &Scenario, columns: &[Column], directory: &Path) -> Vec<Vec<Sample>> {
    let mut samples: Vec<Vec<Sample>> = columns.iter().map(|_| Vec::new()).collect();
    let mut drivers: Vec<Option<Driver>> = columns.iter().map(|_| None).collect();
    let most = columns.iter().map(|column| column.rounds).max().unwrap_or(0);
    for round in 0..most {
        for (index, column) in columns.iter().enumerate() {
            if round >= column.rounds {
                drivers[index] = None;
                continue;
            }
            let driver = match drivers[index].take() {
                Some(mut driver) => driver.line().map(|_| driver),
                None if round == 0 || scenario.is_one_shot() => {
                    Driver::start(scenario, column, directory)
                }
                None => continue,
            };
            let result = driver.and_then(|mut driver| Ok((driver.round()?, driver)));
            match result {
                Ok((sample, driver)) => {
                    samples[index].push(sample);
                    drivers[index] = Some(driver).filter(|_| !scenario.is_one_shot());
                }
                Err(error) => eprintln!("benches: {}, {}: {error}", scenario.name, column.name),
            }
        }
    }
    samples
}

/// Every round's cost.
pub fn print_rounds(scenario: &Scenario, columns: &[Column], samples: &[Vec<Sample>]) {
    for (column, samples) in columns.iter().zip(samples) {
        let costs: Vec<String> = samples.iter().map(|one| format!("{:.3}", one.cost)).collect();
        eprintln!("{}, {}: {}", scenario.name, column.name, costs.join(" "));
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn print_head(columns: &[Column]) {
    let mut line = format!("{:<28}{:<9}", "scenario", "unit");
    for (index, column) in columns.iter().enumerate() {
        line += &format!("{:>10}", column.name);
        if index > 0 {
            line += &format!("{:>9}", "ratio");
        }
    }
    for column in columns {
        line += &format!("{:>12}", format!("{}/s", column.name));
    }
    println!("{line}");
}

/// A row: the medians, or the best of all rounds.
pub fn print_row(scenario: &Scenario, samples: &[Vec<Sample>], best: bool) {
    let cost = |column: &[Sample]| {
        let costs = column.iter().map(|sample| sample.cost);
        if best { costs.fold(f64::NAN, f64::min) } else { median(costs) }
    };
    let mut line = format!("{:<28}{:<9}", scenario.name, scenario.unit());
    for (index, column) in samples.iter().enumerate() {
        line += &format!("{:>10.3}", cost(column));
        if index > 0 && best {
            line += &format!("{:>9.3}", cost(column) / cost(&samples[0]));
        } else if index > 0 {
            // Round by round: what slows the machine down for a while slows both.
            let pairs = column.iter().zip(&samples[0]);
            line += &format!("{:>9.3}", median(pairs.map(|(one, floor)| one.cost / floor.cost)));
        }
    }
    for column in samples {
        line += &format!("{:>12.0}", median(column.iter().map(|sample| sample.rate)));
    }
    println!("{line}");
}

/// What a server weighs before anybody comes.
pub fn print_sizes(columns: &[Column], bench: &Bench) -> Outcome<()> {
    println!();
    println!(
        "{:<12}{:>18}{:>18}{:>14}",
        "at start", "resident, KiB", "anonymous, KiB", "file, KiB"
    );
    for column in columns {
        let server = bench.start(&column.kind)?;
        std::thread::sleep(Duration::from_millis(100));
        let kib = |bytes: u64| format!("{:.0}", bytes as f64 / 1024.0);
        println!(
            "{:<12}{:>18}{:>18}{:>14}",
            column.name,
            kib(server.resident_bytes()?),
            kib(server.anonymous_bytes()?),
            kib(std::fs::metadata(server.file()?)?.len()),
        );
    }
    Ok(())
}
