//! The URL of a callback, taken apart once.

use std::fmt;
use std::rc::Rc;

/// An `http://` URL (RFC 3986, RFC 9110 section 4.2.1), ready for requests.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Host and port: what connections are kept alive and counted by.
    pub origin: Rc<Origin>,
    /// Path and query, as the request line takes it; starts with `/`.
    pub target: String,
    /// The value of an `Authorization` header, from user and password in the URL.
    pub authorization: Option<String>,
}

/// Where connections go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// A name or an address literal, lower case, IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// The value of a `Host` header (RFC 9110, section 7.2): without the default port.
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

/// What may be shown in a log: user and password never.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.authorization.is_some() { "*****:*****@" } else { "" };
        write!(f, "http://{user}{}{}", self.origin.authority(), self.target)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
