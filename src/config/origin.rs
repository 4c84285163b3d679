//! Which pages may connect: entries of `WS_ALLOWED_ORIGINS` against `Origin` headers (RFC 6454).

use super::OriginPattern;
use super::url::{is_host, is_name, port};

/// What stands for the leftmost labels of a host.
const WILDCARD: &str = "*.";

impl OriginPattern {
    /// An origin as browsers send it, scheme, host and a port that is not the scheme's own, or the
    /// same with `*.` before the host. Also `null` and `file://`, which sandboxed and local pages
    /// send. Entries that could never match are errors; the error says what was expected.
    pub fn parse(text: &str) -> Result<OriginPattern, &'static str> {
        if text == "*" {
            return Err("to let all origins in, set WS_ALLOWED_ORIGINS to null");
        }
        let pattern = text.to_ascii_lowercase();
        if is_local(&pattern) || is_origin(&pattern) {
            return Ok(OriginPattern(pattern));
        }
        Err("must be an origin without path, such as https://example.com or https://*.example.com")
    }

    /// Whether the value of an `Origin` header matches. Case does not matter, as scheme and host
    /// have none; browsers send them in lower case.
    pub fn matches(&self, origin: &str) -> bool {
        let Some((scheme, base)) = self.0.split_once(WILDCARD) else {
            return self.0.eq_ignore_ascii_case(origin);
        };
        let origin = origin.to_ascii_lowercase();
        let labels = origin
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_suffix(base))
            .and_then(|rest| rest.strip_suffix('.'));
        labels.is_some_and(|labels| !labels.ends_with('.') && is_name(labels))
    }
}

fn is_local(origin: &str) -> bool {
    matches!(origin, "null" | "file://")
}

fn is_origin(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let (host, has_good_port) = match rest.rsplit_once(':') {
        // A colon within brackets is the address's own.
        Some((host, digits)) if !rest.ends_with(']') => (host, port(digits).is_some()),
        _ => (rest, true),
    };
    let has_good_host = match host.strip_prefix(WILDCARD) {
        Some(base) => is_name(base),
        None => is_host(host),
    };
    is_scheme(scheme) && has_good_host && has_good_port
}

/// RFC 3986, section 3.1.
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_origins_match_whatever_their_case() {
        for (pattern, origin, expected) in [
            ("https://example.com", "https://example.com", true),
            ("https://Example.com", "HTTPS://EXAMPLE.COM", true),
            ("https://example.com", "http://example.com", false),
            ("https://example.com", "https://example.com:8443", false),
            ("https://example.com:8443", "https://example.com:8443", true),
            ("https://example.com", "https://example.com/", false),
            ("https://example.com", "https://example.com.evil.net", false),
            ("https://example.com", "https://www.example.com", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("http://[::1]", "http://[::1]", true),
            ("chrome-extension://abc", "chrome-extension://abc", true),
            ("null", "null", true),
            ("null", "", false),
            ("file://", "file://", true),
        ] {
            assert_eq!(
                OriginPattern::parse(pattern).unwrap().matches(origin),
                expected,
                "{origin}"
            );
        }
    }

    #[test]
    fn the_wildcard_stands_for_one_label_or_more() {
        let pattern = OriginPattern::parse("https://*.Example.com").unwrap();
        for inside in ["https://a.example.com", "https://a.b.example.com", "HTTPS://A.EXAMPLE.COM"]
        {
            assert!(pattern.matches(inside), "{inside}");
        }
        for outside in [
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "https://evilexample.com",
            "https://a.example.com.evil.net",
            "https://a.example.com:8443",
            "http://a.example.com",
            "https://evil.net/.example.com",
            "https://evil.net#.example.com",
            "https://user@a.example.com",
            "https://evil.net:80.example.com",
            "https://é.example.com",
            "https://*.example.com",
            "https://",
            "",
            "null",
        ] {
            assert!(!pattern.matches(outside), "{outside}");
        }
        let with_port = OriginPattern::parse("https://*.example.com:8443").unwrap();
        assert!(with_port.matches("https://a.example.com:8443"));
        assert!(!with_port.matches("https://a.example.com"));
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for text in [
            "",
            "*",
            "example.com",
            "*.example.com",
            "https://",
            "https://example.com/",
            "https://example.com/path",
            "https://*",
            "https://*.",
            "https://*example.com",
            "https://a.*.com",
            "https://*.*.com",
            "*://example.com",
            "https://example.com:",
            "https://example.com:port",
            "https://example.com:99999",
            "https://user@example.com",
            "https://exämple.com",
            "https://a b",
            "://example.com",
            "https://[::1",
            "https://a..b",
            "https://*.[::1]",
        ] {
            assert!(OriginPattern::parse(text).is_err(), "{text}");
        }
    }
}
