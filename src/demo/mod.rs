//! `socketshark demo`: router, embedded broker, a sample service and a web page in one process on
//! loopback.
//!
//! - `config.json` is the configuration, with comments; `--print-config` prints it
//! - `service`, `tickets` and `chat` are the sample service, to be read as an example
//! - `page.*`, `stream.js`, `trials.js` and `dom.js` are the page; `socketshark.js` is the client
//!   that it uses, which stands for itself
//! - `visitor` and `site` are the HTTP server of both, `core` puts it beside the router
//!
//! The router calls the service over real connections, as it would anywhere else.

use std::rc::Rc;

use crate::config::{self, Config};
use crate::engine::Engine;
use crate::random::Random;
use crate::shell::{self, Beside};

mod chat;
mod core;
mod service;
mod site;
mod tickets;
mod visitor;

use self::core::Demo;
use service::Service;
use site::Site;

/// The configuration, with names in place of the ports.
const CONFIG: &str = include_str!("config.json");

/// Where clients connect unless `--port` says otherwise.
pub const PORT: u16 = 9000;

/// The largest port that leaves room for the others.
pub const PORT_MAX: u16 = u16::MAX - BROKER_OFFSET;

const PAGE_OFFSET: u16 = 80;
const BROKER_OFFSET: u16 = 379;
const BROKER_PORT: u16 = 6379;

/// The ports of one demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DemoPorts {
    pub router: u16,
    pub page: u16,
    pub broker: u16,
}

impl DemoPorts {
    /// The router's port N (0: any; at most `PORT_MAX`), the page's N + 80, and the broker's 6379,
    /// or N + 379 where that is taken.
    ///
    /// # Errors
    /// A port that is taken, or no port.
    pub fn find(port: u16) -> Result<DemoPorts, String> {
        if port == 0 {
            let [router, page, broker] = shell::any_free_ports()?;
            return Ok(DemoPorts { router, page, broker });
        }
        let is_free = |port: u16| shell::check_port(port);
        let taken = |why: String| format!("{why}; choose another with --port");
        let mut ports = DemoPorts::usual(port);
        is_free(ports.router).and_then(|()| is_free(ports.page)).map_err(taken)?;
        if is_free(ports.broker).is_err() {
            ports.broker = port.saturating_add(BROKER_OFFSET);
            is_free(ports.broker).map_err(taken)?;
        }
        Ok(ports)
    }

    /// The ports that go with `port` if all are free. `port` is at most `PORT_MAX`.
    pub fn usual(port: u16) -> DemoPorts {
        DemoPorts { router: port, page: port.saturating_add(PAGE_OFFSET), broker: BROKER_PORT }
    }
}

/// The configuration that the demo runs with, with comments.
pub fn config_text(ports: DemoPorts) -> String {
    CONFIG
        .replace("{{router}}", &ports.router.to_string())
        .replace("{{page}}", &ports.page.to_string())
        .replace("{{broker}}", &ports.broker.to_string())
}

/// Runs the demo until it is told to stop; gives the exit status.
///
/// # Errors
/// A port that is taken, no poll.
pub fn run(port: u16) -> Result<i32, String> {
    let ports = DemoPorts::find(port)?;
    let config = Rc::new(read(&config_text(ports))?);
    let setup = shell::setup();
    // Another generator than the engine's: what a client sees of its jitter tells no ticket.
    let service = Service::new(Random::seeded(shell::setup().seed));
    let site = Site::new(ports.page, &config, service);
    let core = Demo::new(Engine::new(config.clone(), setup), site, &welcome(ports));
    shell::drive(core, config, Beside { demo: Some(ports.page), ..Beside::default() })
}

fn read(text: &str) -> Result<Config, String> {
    config::parse(text, &|_| None)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn welcome(ports: DemoPorts) -> String {
    let DemoPorts { router, page, broker } = ports;
    let redis_cli = format!(
        r#"redis-cli -p {broker} publish news.sea '{{"subscription":"news.sea","data":"Ahoy"}}'"#
    );
    format!(
        "page       http://127.0.0.1:{page}/\n\
         router     ws://127.0.0.1:{router}/\n\
         broker     127.0.0.1:{broker}    {redis_cli}\n\
         \n\
         Open the page in a browser. Ctrl-C ends the demo.\n"
    )
}

#[cfg(test)]
mod tests;
