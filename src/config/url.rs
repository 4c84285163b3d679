//! The URL of a callback, taken apart once.

use std::fmt;
use std::net::Ipv6Addr;
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// An `http://` or `https://` URL (RFC 3986, RFC 9110 section 4.2), ready for requests.
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
    /// `https`: over TLS.
    pub secure: bool,
}

impl Origin {
    /// The value of a `Host` header (RFC 9110, section 7.2): without the default port.
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// The port of a URL without one (RFC 9110, section 4.2).
    fn default_port(&self) -> u16 {
        default_port(self.secure)
    }
}

impl Url {
    /// Reads an absolute URL. The error says what is wrong and never shows the URL: it
    /// may hold a password.
    ///
    /// What is kept of it consists of visible ASCII characters, so that nothing in it can end a
    /// request line or a header.
    pub fn parse(text: &str) -> Result<Url, String> {
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            let problem = "has a space, a control or a non-ASCII character; percent-encode it, \
                           and write a host in Punycode";
            return Err(problem.to_owned());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(NO_URL.to_owned());
        };
        let secure = scheme.eq_ignore_ascii_case("https");
        if secure && !HAS_TLS {
            return Err(NEEDS_TLS.to_owned());
        }
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return Err(NO_URL.to_owned());
        }
        if rest.contains('#') {
            let problem = "has a fragment, which is never sent; leave it out, or write # as %23";
            return Err(problem.to_owned());
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // The last @: passwords with a raw one are met in practice.
        let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        Ok(Url {
            origin: Rc::new(origin(place, secure)?),
            target: if target.starts_with('/') { target.to_owned() } else { format!("/{target}") },
            authorization: if user.is_empty() { None } else { Some(basic(user)?) },
        })
    }
}

/// Whether this build has TLS.
pub(super) const HAS_TLS: bool = cfg!(feature = "tls");

/// The same in every build.
const NO_URL: &str = "must be a URL that begins with http://";

/// What `https://` URLs, `WS_SSL` and the like meet in a build without TLS.
pub(super) const NEEDS_TLS: &str = "\
    TLS is not in this build; a build with the cargo feature `tls` is needed (or a proxy in \
    between that does TLS)";

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// Splits `host[:port]`.
fn origin(place: &str, secure: bool) -> Result<Origin, String> {
    let (host, digits) = match place.rsplit_once(':') {
        // A colon within brackets is the address's own.
        Some((host, digits)) if !place.ends_with(']') => (host, digits),
        _ => (place, ""),
    };
    // RFC 3986, section 3.2.3: an empty port is the scheme's own.
    let port = match digits {
        "" => Some(default_port(secure)),
        digits => port(digits).filter(|&port| port > 0),
    };
    let port = port.ok_or(
        "the port must be 1 to 65535 (in a user name or password, write / ? # as %2F %3F %23)",
    )?;
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if !is_host(host) {
        return Err("the host must be a name, an IPv4 address or an IPv6 address in brackets, \
                    such as http://[::1]/"
            .to_owned());
    }
    let host = match bracketed(host) {
        Some(address) => address.to_string(),
        None => host.to_ascii_lowercase(),
    };
    Ok(Origin { host, port, secure })
}

/// Basic authentication (RFC 7617) from the `user:password` or `user` of a URL.
fn basic(user: &str) -> Result<String, String> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut credentials = percent_decoded(user)?;
    if credentials.contains(&b':') {
        return Err("the user name may not contain a colon (RFC 7617)".to_owned());
    }
    credentials.push(b':');
    credentials.extend(percent_decoded(password)?);
    Ok(format!("Basic {}", BASE64_STANDARD.encode(credentials)))
}

fn percent_decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut pieces = text.split('%');
    let mut out: Vec<u8> = pieces.next().unwrap_or_default().into();
    for piece in pieces {
        let (high, low, rest) = match piece.as_bytes() {
            [high, low, rest @ ..] => (hex_digit(*high), hex_digit(*low), rest),
            _ => (None, None, &[][..]),
        };
        let (Some(high), Some(low)) = (high, low) else {
            return Err("a % in user name or password is written %25".to_owned());
        };
        out.push(high << 4 | low);
        out.extend(rest);
    }
    Ok(out)
}

fn hex_digit(digit: u8) -> Option<u8> {
    // Below 16, so it fits.
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// Whether this is a name, an IPv4 address or an IPv6 address in brackets.
pub(super) fn is_host(host: &str) -> bool {
    is_name(host) || bracketed(host).is_some()
}

/// Whether a look-up could take this as a host name (RFC 1123, section 2.1, with the underscores
/// that occur in practice) or as an IPv4 address.
pub(super) fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A dot at the end marks a name as complete.
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

fn bracketed(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// A port in digits and nothing but digits.
pub(super) fn port(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

/// What may be shown in a log: user and password never.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.authorization.is_some() { "*****:*****@" } else { "" };
        let scheme = self.origin.scheme();
        write!(f, "{scheme}://{user}{}{}", self.origin.authority(), self.target)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, host: &str, port: u16, target: &str) {
        let url = Url::parse(text).unwrap();
        assert_eq!((&*url.origin.host, url.origin.port, &*url.target), (host, port, target));
        assert_eq!(url.authorization, None);
    }

    #[test]
    fn urls_are_taken_apart() {
        check("http://example.com", "example.com", 80, "/");
        check("http://example.com/", "example.com", 80, "/");
        check("HTTP://Example.COM:8080/A/b?c=D&e", "example.com", 8080, "/A/b?c=D&e");
        check("http://example.com?q=1", "example.com", 80, "/?q=1");
        check("http://example.com:/x", "example.com", 80, "/x");
        check("http://my_host.:81/", "my_host.", 81, "/");
        check("http://127.0.0.1:5000/cb", "127.0.0.1", 5000, "/cb");
        check("http://[::1]/", "::1", 80, "/");
        check("http://[2001:DB8:0::1]:65535/", "2001:db8::1", 65535, "/");
        check("http://h/a@b:c//d?e=http://f/%20", "h", 80, "/a@b:c//d?e=http://f/%20");
        check("http://@h/", "h", 80, "/");
    }

    #[test]
    fn https_takes_a_build_with_tls() {
        for text in ["https://u:s3cret@Example.com/x", "HTTPS://u:s3cret@example.com:443/x"] {
            match Url::parse(text) {
                Ok(url) => {
                    assert!(HAS_TLS && url.origin.secure);
                    assert_eq!((&*url.origin.host, url.origin.port), ("example.com", 443));
                    assert_eq!(url.origin.authority(), "example.com");
                    assert_eq!(url.to_string(), "https://*****:*****@example.com/x");
                }
                Err(error) => assert!(!HAS_TLS && error == NEEDS_TLS, "{error}"),
            }
        }
    }

    #[test]
    fn credentials_become_basic_authentication() {
        for (user, expected) in [
            ("user:password", "user:password"),
            ("user", "user:"),
            ("user:", "user:"),
            (":password", ":password"),
            ("us%65r:p%40ss%3aw%2Frd%25", "user:p@ss:w/rd%"),
            ("user:a:b", "user:a:b"),
            ("user:a@b", "user:a@b"),
            ("user:%0d%0a", "user:\r\n"),
        ] {
            let url = Url::parse(&format!("http://{user}@example.com/x")).unwrap();
            let expected = format!("Basic {}", BASE64_STANDARD.encode(expected));
            assert_eq!(url.authorization, Some(expected), "{user}");
            assert_eq!(url.to_string(), "http://*****:*****@example.com/x");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_shown() {
        for (text, problem) in [
            ("", "must be a URL that begins with http://"),
            ("/path", "must be a URL that begins with http://"),
            ("example.com", "must be a URL that begins with http://"),
            ("http:/example.com", "must be a URL that begins with http://"),
            ("ftp://example.com", "must be a URL that begins with http://"),
            ("http://", "the host is missing"),
            ("http:///path", "the host is missing"),
            ("http://:80/", "the host is missing"),
            ("http://u:s3cret@/", "the host is missing"),
            ("http://h/#top", "fragment"),
            ("http://u:s3#cret@h/", "fragment"),
            ("http://h:0/", "port"),
            ("http://h:65536/", "port"),
            ("http://h:+80/", "port"),
            ("http://u:s3cret/x@h/", "port"),
            ("http://h:80:80/", "host must be"),
            ("http://::1/", "host must be"),
            ("http://[::1/", "host must be"),
            ("http://[1.2.3.4]/", "host must be"),
            ("http://[fe80::1%25eth0]/", "host must be"),
            ("http://a..b/", "host must be"),
            ("http://h%41/", "host must be"),
            ("http://h\\x/", "host must be"),
            ("http://u:s3cret%@h/", "%25"),
            ("http://u:s3cret%4@h/", "%25"),
            ("http://u:s3cret%zz@h/", "%25"),
            ("http://u%3av:s3cret@h/", "colon"),
            ("http://h/a b", "percent-encode"),
            (" http://h/", "percent-encode"),
            ("http://h/\r\nX: y", "percent-encode"),
            ("http://h/\u{7f}", "percent-encode"),
            ("http://h/\u{e9}", "percent-encode"),
            ("http://u:s3cret\n@h/", "percent-encode"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(!error.contains("s3"), "{text}: {error}");
        }
        let long = "a".repeat(64);
        assert!(Url::parse(&format!("http://{long}/")).is_err());
        assert!(Url::parse(&format!("http://{}/", "a.".repeat(127))).is_err());
    }
}
