//! The command line: what to run, and the exit status.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use socketshark::shell;

const HELP: &str = "\
SocketShark, a WebSocket message router.

  socketshark -c FILE            run the router
  socketshark --check -c FILE    validate the configuration, open nothing
  socketshark client-js          print a client for browsers and Node: one ES module
  socketshark --version
  socketshark --help
";

/// A client as one ES module without dependencies.
const CLIENT_JS: &str = include_str!("demo/socketshark.js");

/// What the command line asks for.
enum Task {
    Run(PathBuf),
    Check(PathBuf),
    Print(String),
}

fn main() -> ExitCode {
    match parse(std::env::args_os()) {
        Ok(Task::Print(text)) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&[format!("standard output: {error}")], 1),
        },
        Ok(Task::Check(path)) => match shell::load(&path) {
            Ok(_) => ExitCode::SUCCESS,
            Err(problems) => fail(&problems, 2),
        },
        Ok(Task::Run(path)) => match shell::load(&path) {
            Ok(config) => match shell::run(&path, config) {
                Ok(status) => ExitCode::from(status as u8),
                Err(problem) => fail(&[problem], 1),
            },
            Err(problems) => fail(&problems, 2),
        },
        Err(problem) => fail(&[format!("{problem}; see socketshark --help")], 2),
    }
}

fn fail(problems: &[String], status: u8) -> ExitCode {
    for problem in problems {
        eprintln!("socketshark: {problem}");
    }
    ExitCode::from(status)
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, String> {
    use lexopt::prelude::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_iter(arguments);
    let (mut file, mut check) = (None, false);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Short('c') | Long("config") => {
                let value = parser.value().map_err(|error| error.to_string())?;
                if file.replace(PathBuf::from(value)).is_some() {
                    return Err("-c is given twice".to_owned());
                }
            }
            Long("check") => check = true,
            Short('h') | Long("help") => return Ok(Task::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Task::Print(format!("socketshark {version}\n")));
            }
            Value(word) if word == "client-js" => return Ok(Task::Print(CLIENT_JS.to_owned())),
            other => return Err(other.unexpected().to_string()),
        }
    }
    match file {
        Some(file) if check => Ok(Task::Check(file)),
        Some(file) => Ok(Task::Run(file)),
        None => Err("a configuration is needed: -c FILE".to_owned()),
    }
}
