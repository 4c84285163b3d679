//! What an answer means: an object, a redirect to follow, or a failed try.

use std::fmt;
use std::time::Duration;

use crate::config::HttpConfig;
use crate::config::url::Origin;
use crate::conn::callback::Broken;
use crate::limits::RATE_LIMIT_WAIT_SECONDS_MAX;
use crate::number::python_float;
use crate::wire::http::{Content, Head, Response, location};
use crate::wire::json;

/// What an answer means.
#[derive(PartialEq, Debug)]
pub enum Verdict {
    /// A JSON object's text, and whether its status is `"ok"`.
    Object(Box<str>, bool),
    /// Another target at the same origin.
    Redirect(String),
    Failed(Failure),
}

/// Why a try failed.
#[derive(PartialEq, Debug)]
pub enum Failure {
    Broken(Broken),
    /// 400 and above.
    Status(u16),
    /// 429; `None`: it did not say, or not legibly, when to come again.
    RateLimited(Option<Duration>),
    /// A redirect that is not followed, and where it pointed.
    Redirected(u16, Option<String>),
    TooManyRedirects,
    /// 204.
    NoContent,
    Untyped,
    Type(Box<str>),
    Encoding(Box<str>),
    NotObject,
}

impl Failure {
    /// The time until the next try.
    pub fn wait(&self, http: &HttpConfig) -> Duration {
        match self {
            Failure::RateLimited(Some(wait)) => *wait,
            _ => http.wait,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Broken(broken) => broken.fmt(f),
            Failure::Status(status) => write!(f, "status {status}"),
            Failure::RateLimited(_) => f.write_str("status 429"),
            Failure::Redirected(status, None) => write!(f, "status {status} without a Location"),
            Failure::Redirected(status, Some(to)) => {
                write!(f, "status {status}, a redirect that is not followed, to {to}")
            }
            Failure::TooManyRedirects => f.write_str("too many redirects"),
            Failure::NoContent => f.write_str("status 204 has no content"),
            Failure::Untyped => f.write_str("no Content-Type, application/json is needed"),
            Failure::Type(kind) => {
                write!(f, "Content-Type {kind:.100}, application/json is needed")
            }
            Failure::Encoding(coding) => write!(f, "Content-Encoding {coding:.100}, none is taken"),
            Failure::NotObject => f.write_str("the answer is not a JSON object"),
        }
    }
}

/// Judges an answer to a request for `target` at an origin.
pub fn judge(response: Response, origin: &Origin, target: &str) -> Verdict {
    let Response { head, body, .. } = response;
    match head.status {
        429 => Verdict::Failed(Failure::RateLimited(rate_limit_wait(head.rate_limit.as_deref()))),
        400.. => Verdict::Failed(Failure::Status(head.status)),
        300..=399 => redirect(&head, origin, target),
        204 => Verdict::Failed(Failure::NoContent),
        _ => match head.content {
            Content::Json => object(body),
            Content::Untyped => Verdict::Failed(Failure::Untyped),
            Content::Other(kind) => Verdict::Failed(Failure::Type(kind)),
            Content::Encoded(coding) => Verdict::Failed(Failure::Encoding(coding)),
        },
    }
}

fn object(body: Vec<u8>) -> Verdict {
    let Ok(text) = String::from_utf8(body) else { return Verdict::Failed(Failure::NotObject) };
    let Ok(object) = json::Object::parse(&text) else {
        return Verdict::Failed(Failure::NotObject);
    };
    let is_ok = object.get("status").and_then(json::string).is_some_and(|status| status == "ok");
    Verdict::Object(text.into_boxed_str(), is_ok)
}

/// 307 and 308 keep method and body, and the same origin is no stranger to the data.
fn redirect(head: &Head, origin: &Origin, target: &str) -> Verdict {
    let Some(to) = head.location.as_deref() else {
        return Verdict::Failed(Failure::Redirected(head.status, None));
    };
    let followed = match head.status {
        307 | 308 => location::resolve(to, origin.scheme(), &origin.authority(), target),
        _ => None,
    };
    let shown = || Failure::Redirected(head.status, Some(location::redacted(to)));
    followed.map_or_else(|| Verdict::Failed(shown()), Verdict::Redirect)
}

/// The wait that a 429's header asks for, bounded. Negative numbers and NaN count as illegible.
fn rate_limit_wait(value: Option<&str>) -> Option<Duration> {
    let seconds = python_float(value?)?;
    let most = RATE_LIMIT_WAIT_SECONDS_MAX as f64;
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: &str) -> Origin {
        Origin { host: host.to_owned(), port: 80, secure: false }
    }

    fn response(status: u16, body: &str) -> Response {
        let (content, location, rate_limit) = (Content::Json, None, None);
        let head = Head { status, content, location, rate_limit, keeps_alive: true };
        Response { head, body: body.into(), reusable: true }
    }

    #[test]
    fn only_objects_are_answers() {
        let judged = |body: &[u8]| object(body.to_vec());
        let text = " {\"status\":\"ok\"} ";
        assert_eq!(judged(text.as_bytes()), Verdict::Object(text.into(), true));
        for (text, ok) in [
            ("{\"status\":\"\\u006fk\"}", true),
            ("{}", false),
            ("{\"status\":\"error\"}", false),
            ("{\"status\":true}", false),
            ("{\"status\":\"ok\",\"status\":null}", false),
        ] {
            assert_eq!(judged(text.as_bytes()), Verdict::Object(text.into(), ok), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for text in ["", "null", "[]", "\"ok\"", "{\"a\":NaN}", "{}x", "{", &deep] {
            assert_eq!(judged(text.as_bytes()), Verdict::Failed(Failure::NotObject));
        }
        assert_eq!(judged(b"{\"a\":\"\xff\"}"), Verdict::Failed(Failure::NotObject));
    }

    #[test]
    fn statuses_decide_before_bodies() {
        let origin = origin("h");
        let failed = |status| match judge(response(status, "{\"status\":\"ok\"}"), &origin, "/") {
            Verdict::Failed(failure) => failure,
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(204), Failure::NoContent);
        assert_eq!(failed(400), Failure::Status(400));
        assert_eq!(failed(999), Failure::Status(999));
        assert_eq!(failed(304), Failure::Redirected(304, None));
        assert!(matches!(judge(response(201, "{}"), &origin, "/"), Verdict::Object(..)));
    }

    #[test]
    fn only_307_and_308_within_the_origin_are_followed() {
        let to = |status, to: &str| {
            let mut response = response(status, "");
            response.head.location = Some(to.into());
            judge(response, &origin("books"), "/api/a?q")
        };
        assert_eq!(to(307, "b"), Verdict::Redirect("/api/b".to_owned()));
        assert_eq!(to(308, "http://books/x"), Verdict::Redirect("/x".to_owned()));
        for (status, location) in [
            (300, "/x"),
            (301, "/x"),
            (302, "/x"),
            (303, "/x"),
            (304, "/x"),
            (305, "/x"),
            (307, "http://evil/x"),
            (308, "https://books/x"),
            (307, "http://u:p@books/x?secret"),
        ] {
            let Verdict::Failed(failure) = to(status, location) else { panic!("{location}") };
            let shown = failure.to_string();
            assert!(shown.contains(&status.to_string()), "{shown}");
            assert!(!shown.contains("secret") && !shown.contains("u:p"), "{shown}");
        }
        let Verdict::Failed(failure) = to(302, "http://there/x") else { panic!() };
        assert!(failure.to_string().ends_with("to http://there/x"));
    }

    #[test]
    fn a_429_waits_as_the_original_does() {
        let seconds = |value| rate_limit_wait(Some(value)).map(|wait| wait.as_secs_f64());
        for (value, wait) in [
            ("0", 0.0),
            ("1.5", 1.5),
            (" 12 ", 12.0),
            ("1_0", 10.0),
            ("1e2", 100.0),
            ("3600", 3600.0),
            ("3601", 3600.0),
            ("inf", 3600.0),
            ("1e400", 3600.0),
            ("-0", 0.0),
        ] {
            assert_eq!(seconds(value), Some(wait), "{value}");
        }
        for value in ["", "soon", "-1", "-inf", "nan", "1,5", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(seconds(value), None, "{value}");
        }
        assert_eq!(rate_limit_wait(None), None);
        let http = HttpConfig::default();
        assert_eq!(Failure::RateLimited(None).wait(&http), http.wait);
        let named = Failure::RateLimited(Some(Duration::from_secs(7)));
        assert_eq!(named.wait(&http), Duration::from_secs(7));
    }
}
