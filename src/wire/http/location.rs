//! Where a redirect points (RFC 9110, section 10.2.2; RFC 3986, section 5).
//!
//! Only targets at the same origin are ever followed, so everything this cannot read for certain
//! counts as another origin.

/// The request target that a `Location` names, if it is at the origin of the request.
///
/// `authority` is the origin's, as in its `Host` header, `scheme` its `http` or `https`; `base` is
/// the request's own target.
/// User information in a location is not accepted: credentials are the configuration's to give.
pub fn resolve(location: &str, scheme: &str, authority: &str, base: &str) -> Option<String> {
    if !location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return None;
    }
    let reference = location.split('#').next().unwrap_or_default();
    let (base_path, base_query) = split_query(base);
    if let Some(rest) = without_scheme(reference, scheme)? {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (there, target) = rest.split_at(end);
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let there = there.strip_suffix(default_port).or(there.strip_suffix(':')).unwrap_or(there);
        let (path, query) = split_query(target);
        return there.eq_ignore_ascii_case(authority).then(|| normal(path) + query);
    }
    let (path, query) = split_query(reference);
    Some(match path {
        "" if query.is_empty() => normal(base_path) + base_query,
        "" => normal(base_path) + query,
        path if path.starts_with('/') => normal(path) + query,
        path => {
            let folder = &base_path[..=base_path.rfind('/').unwrap_or(0)];
            normal(&[folder, path].concat()) + query
        }
    })
}

/// What follows our own scheme, as in `http://`, or `//`; an inner `None` for a path. The outer
/// `None` is for other schemes.
fn without_scheme<'r>(reference: &'r str, ours: &str) -> Option<Option<&'r str>> {
    if let Some(rest) = reference.strip_prefix("//") {
        return Some(Some(rest));
    }
    let first_segment = reference.split(['/', '?']).next().unwrap_or_default();
    let Some((scheme, _)) = first_segment.split_once(':') else { return Some(None) };
    if !scheme.eq_ignore_ascii_case(ours) {
        return None;
    }
    reference[scheme.len() + 1..].strip_prefix("//").map(Some)
}

/// Path, and query with its question mark.
fn split_query(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// The path without `.` and `..` segments (RFC 3986, section 5.2.4); starts with `/`.
fn normal(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut folder = true;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    if folder || out.is_empty() {
        out.push('/');
    }
    out
}

/// A location as a log may show it: without query, fragment, user and password.
pub fn redacted(location: &str) -> String {
    const CHARS_MAX: usize = 200;
    let shown = location.split(['?', '#']).next().unwrap_or_default();
    let is_slash = |c| matches!(c, '/' | '\\');
    // The authority follows the slashes after the scheme; whoever leaves them out is shown less.
    let start = shown.find(':').map_or(0, |colon| colon + 1);
    let start = if shown.starts_with(is_slash) { 0 } else { start };
    let slashes = shown[start..].chars().take_while(|&c| is_slash(c)).count();
    let (before, rest) = shown.split_at(start + slashes);
    let end = rest.find(is_slash).unwrap_or(rest.len());
    let user_end = rest[..end].rfind('@').map_or(0, |at| at + 1);
    before.chars().chain(rest[user_end..].chars()).take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_within_the_origin() {
        for (location, target) in [
            ("/new", "/new"),
            ("/new?a=b#frag", "/new?a=b"),
            ("http://books:8000/new", "/new"),
            ("HTTP://BOOKS:8000", "/"),
            ("http://books:8000?x", "/?x"),
            ("//books:8000/new", "/new"),
            ("other", "/api/other"),
            ("./other/", "/api/other/"),
            ("../other", "/other"),
            ("../../../etc", "/etc"),
            ("..", "/"),
            (".", "/api/"),
            ("?q=2", "/api/hook?q=2"),
            ("", "/api/hook?q=1"),
            ("/a/./b/../c/", "/a/c/"),
            ("/a//b", "/a//b"),
            ("x?y=/../z:1", "/api/x?y=/../z:1"),
            ("/a:b", "/a:b"),
        ] {
            let resolved = resolve(location, "http", "books:8000", "/api/hook?q=1");
            assert_eq!(resolved.as_deref(), Some(target), "{location}");
        }
    }

    #[test]
    fn the_default_port_may_be_named() {
        for location in ["http://books:80/x", "http://books/x", "http://books:/x"] {
            assert_eq!(
                resolve(location, "http", "books", "/").as_deref(),
                Some("/x"),
                "{location}"
            );
        }
        assert_eq!(resolve("http://[::1]/x", "http", "[::1]", "/").as_deref(), Some("/x"));
        assert_eq!(resolve("http://books:8000/x", "http", "books", "/"), None);
        assert_eq!(resolve("http://books/x", "http", "books:8000", "/"), None);
        assert_eq!(resolve("http://books:80/x", "http", "books:8000", "/"), None);
    }

    #[test]
    fn https_stays_https() {
        for location in ["https://books/x", "HTTPS://books:443/x", "//books/x", "/x", "x"] {
            let resolved = resolve(location, "https", "books", "/");
            assert_eq!(resolved.as_deref(), Some("/x"), "{location}");
        }
        for location in ["http://books/x", "http://books:443/x", "https://books:80/x"] {
            assert_eq!(resolve(location, "https", "books", "/"), None, "{location}");
        }
    }

    #[test]
    fn everything_else_is_another_origin() {
        for location in [
            "https://books:8000/",
            "http://other:8000/",
            "//other/",
            "http:/x",
            "http:x",
            "ftp://books:8000/",
            "mailto:x@y",
            "http://user@books:8000/",
            "http://books:8000@evil/",
            "http:\\\\books:8000\\x",
            "/a b",
            "/a\u{e4}",
            "/a\r\nHost: x",
            "/\0",
            "x:y",
        ] {
            assert_eq!(resolve(location, "http", "books:8000", "/"), None, "{location:?}");
        }
    }

    #[test]
    fn a_log_sees_no_credentials() {
        for (location, shown) in [
            ("https://user:secret@host/path?token=1#f", "https://host/path"),
            ("//user:secret@host", "//host"),
            ("http:\\\\user:sec@ret@host\\x", "http:\\\\host\\x"),
            ("http:user:secret@host/x", "http:host/x"),
            ("/users/@me", "/users/@me"),
            ("relative", "relative"),
            ("", ""),
        ] {
            assert_eq!(redacted(location), shown);
        }
        assert_eq!(redacted(&"\u{e4}".repeat(500)).chars().count(), 200);
    }
}
