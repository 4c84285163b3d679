//! The command line: what to run, and the exit status.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use socketshark::demo::{self, DemoPorts};
use socketshark::shell;

const HELP: &str = "\
SocketShark, a WebSocket message router.

  socketshark -c FILE            run the router
  socketshark --check -c FILE    validate the configuration, open nothing
  socketshark demo               router, broker, a sample service and a page, on this machine
                                 alone; --port N (9000) for another port, --print-config
                                 for the configuration it uses
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
    Demo { port: u16 },
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
        Ok(Task::Demo { port }) => match demo::run(port) {
            Ok(status) => ExitCode::from(status as u8),
            Err(problem) => fail(&[problem], 1),
        },
        Ok(Task::Run(path)) => match shell::load(&path) {
            Ok(loaded) => match shell::run(&path, loaded) {
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
            Value(word) if word == "demo" && file.is_none() && !check => {
                return parse_demo(&mut parser);
            }
            Value(word) if word == "client-js" && file.is_none() && !check => {
                return parse_client_js(&mut parser);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    match file {
        Some(file) if check => Ok(Task::Check(file)),
        Some(file) => Ok(Task::Run(file)),
        None => Err("a configuration is needed: -c FILE".to_owned()),
    }
}

fn parse_client_js(parser: &mut lexopt::Parser) -> Result<Task, String> {
    use lexopt::prelude::{Long, Short};
    match parser.next().map_err(|error| error.to_string())? {
        None => Ok(Task::Print(CLIENT_JS.to_owned())),
        Some(Short('h') | Long("help")) => Ok(Task::Print(HELP.to_owned())),
        Some(other) => Err(other.unexpected().to_string()),
    }
}

fn parse_demo(parser: &mut lexopt::Parser) -> Result<Task, String> {
    use lexopt::prelude::{Long, Short};
    let (mut port, mut print) = (demo::PORT, false);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Long("port") => {
                let value = parser.value().map_err(|error| error.to_string())?;
                let number = value.to_str().and_then(|text| text.parse().ok());
                let fits = |&port: &u16| port <= demo::PORT_MAX;
                let range = format!("--port must be a number from 0 to {}", demo::PORT_MAX);
                port = number.filter(fits).ok_or(range)?;
            }
            Long("print-config") => print = true,
            Short('h') | Long("help") => return Ok(Task::Print(HELP.to_owned())),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if print && port == 0 {
        return Err("--print-config needs a port other than 0".to_owned());
    }
    if print {
        return Ok(Task::Print(demo::config_text(DemoPorts::usual(port))));
    }
    Ok(Task::Demo { port })
}
