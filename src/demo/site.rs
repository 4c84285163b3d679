//! What stands at the demo's port: the page with its files, and the service. One request in, one
//! answer out.
//!
//! The port is on loopback, but every page in the user's browser can send requests there. So only
//! requests that name a loopback host are answered (another site's name may be made to lead here),
//! none that come from another site's page, and posts must be JSON (which another page's form is
//! not).

use crate::config::Config;
use crate::demo::service::{PublishAndCount, Service};
use crate::demo::visitor::reason;
use crate::outbox::Frame;
use crate::time::Now;
use crate::wire::http::incoming::Incoming;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const ICON: &str = include_str!("icon.svg");

/// The client's own file, and the page's. They are modules: each imports what it needs.
const SCRIPTS: [(&str, &str); 5] = [
    ("/socketshark.js", include_str!("socketshark.js")),
    ("/page.js", include_str!("page.js")),
    ("/stream.js", include_str!("stream.js")),
    ("/trials.js", include_str!("trials.js")),
    ("/dom.js", include_str!("dom.js")),
];

/// The names that lead to this machine and to no other.
const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The page and the service.
pub struct Site {
    /// The values of `Host` that are answered.
    hosts: [String; 3],
    page: String,
    policy: String,
    service: Service,
}

/// An answer before it is a message.
struct Content<'a> {
    status: u16,
    media_type: &'a str,
    body: &'a str,
}

impl Site {
    /// `port`: the site's own. `config`: where clients and publishers connect.
    pub fn new(port: u16, config: &Config, service: Service) -> Site {
        let router = format!("ws://{}:{}", config.ws_host, config.ws_port);
        let broker = config.broker.as_ref().map_or(0, |broker| broker.port);
        let page = PAGE.replace("{{router}}", &router).replace("{{broker}}", &broker.to_string());
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self' {router}; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'"
        );
        Site { hosts: HOSTS.map(|host| format!("{host}:{port}")), page, policy, service }
    }

    /// Answers a request with a whole HTTP/1.1 message.
    pub fn answer(
        &mut self,
        request: &Incoming,
        now: Now,
        publish: &mut PublishAndCount<'_>,
    ) -> Frame {
        let called = self.refusal(request).or_else(|| match &*request.method {
            "POST" => self.call(request, now, publish),
            _ => None,
        });
        match called {
            Some((status, body)) => {
                let media_type = "application/json";
                self.message(request, &Content { status, media_type, body: &body })
            }
            None => self.message(request, &self.file(&request.path)),
        }
    }

    /// Why a request is not looked into.
    fn refusal(&self, request: &Incoming) -> Option<(u16, String)> {
        let refuse = |status: u16| Some((status, super::service::refuse(reason(status))));
        let is_ours = |name: &str| self.hosts.iter().any(|host| name.eq_ignore_ascii_case(host));
        let is_own_page = |origin: &str| origin.strip_prefix("http://").is_some_and(is_ours);
        if !is_ours(&request.host) {
            return refuse(421);
        }
        if request.origin.as_deref().is_some_and(|origin| !is_own_page(origin)) {
            return refuse(403);
        }
        match &*request.method {
            "GET" | "HEAD" => None,
            "POST" if request.media_type != "application/json" => refuse(415),
            "POST" => None,
            _ => refuse(405),
        }
    }

    fn call(
        &mut self,
        request: &Incoming,
        now: Now,
        publish: &mut PublishAndCount<'_>,
    ) -> Option<(u16, String)> {
        let answer = self.service.answer(&request.path, &request.body, now, publish);
        Some(answer.map_or((404, super::service::refuse(reason(404))), |body| (200, body)))
    }

    fn file(&self, path: &str) -> Content<'_> {
        let (media_type, body) = match path {
            "/" => ("text/html; charset=utf-8", &*self.page),
            "/page.css" => ("text/css; charset=utf-8", STYLE),
            "/icon.svg" => ("image/svg+xml", ICON),
            path => match SCRIPTS.iter().find(|(name, _)| *name == path) {
                Some((_, body)) => ("text/javascript; charset=utf-8", *body),
                None => return Content { status: 404, media_type: "text/plain", body: "" },
            },
        };
        Content { status: 200, media_type, body }
    }

    fn message(&self, request: &Incoming, content: &Content<'_>) -> Frame {
        let Content { status, media_type, body } = content;
        let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(*status));
        let length = body.len().to_string();
        for (name, value) in [
            ("Content-Type", *media_type),
            ("Content-Length", &length),
            ("Content-Security-Policy", &self.policy),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Connection", if request.keep_alive { "keep-alive" } else { "close" }),
        ] {
            text.extend([name, ": ", value, "\r\n"]);
        }
        if *status == 405 {
            text.push_str("Allow: GET, HEAD, POST\r\n");
        }
        text.push_str("\r\n");
        if request.method != "HEAD" {
            text.push_str(body);
        }
        text.into_bytes().into()
    }
}
