//! One peer at the metrics port: HTTP (RFC 9112), one request and one answer, then the end.
//!
//! The peer is whoever reaches the port: a scraper, a balancer's health check, or a stranger. It
//! has a bounded head, a bounded time and no second request. Nothing here knows what a metric is.

use std::time::Duration;

use crate::arena::ConnId;
use crate::limits::{HEADERS_MAX, LINGER_BYTES_MAX, SCRAPE_HEAD_BYTES_MAX, SCRAPE_SECONDS_MAX};
use crate::ports::{Output, Ports};
use crate::time::{Instant, Now};
use crate::wire::http::response::end_of_head;

/// Time from the answer to closing, for a peer that does not close first; as long again while
/// the answer is still being taken.
const LINGER: Duration = Duration::from_secs(1);

/// What a peer wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// `/metrics`
    Metrics,
    /// `/healthz`: whether the loop turns.
    Health,
    /// `/readyz`: whether clients are served.
    Ready,
}

/// What a scrape may touch outside itself.
pub struct Context<'a> {
    pub now: Now,
    pub id: ConnId,
    pub ports: &'a mut Ports,
}

enum State {
    /// The request's head so far.
    Head(Vec<u8>),
    /// The engine owes an answer; a HEAD request gets it without its body.
    Asked { without_body: bool },
    /// The answer and our FIN are queued. What the peer still sends is read and thrown away, since
    /// closing over unread bytes resets the connection, and a reset overtakes the answer.
    Lingering { until: Instant },
    /// The id is dead.
    Closed,
}

/// The state machine of one connection to the metrics port. Its outbox has no limit of its own:
/// it never holds more than one answer.
pub struct Scrape {
    /// When the connection ends at the latest, wherever it stands.
    end: Instant,
    /// Bytes behind the head that were thrown away.
    discarded: usize,
    state: State,
}

impl Scrape {
    /// A connection that was accepted just now.
    pub fn new(now: Now) -> Scrape {
        Scrape {
            end: now.mono.after(Duration::from_secs(SCRAPE_SECONDS_MAX)),
            discarded: 0,
            state: State::Head(Vec::new()),
        }
    }

    /// Takes all of `input`. At most once in a connection's life this gives a question, and the
    /// engine calls `answer`; requests that can only be refused are answered here.
    pub fn next(&mut self, input: &mut &[u8], ctx: &mut Context<'_>) -> Option<Asked> {
        let bytes = std::mem::take(input);
        let State::Head(head) = &mut self.state else {
            self.discard(bytes.len(), ctx);
            return None;
        };
        // Blank lines before a request are ignored (RFC 9112, section 2.2).
        let is_blank = |byte: &&u8| head.is_empty() && matches!(byte, b'\r' | b'\n');
        let blank = bytes.iter().take_while(is_blank).count();
        let room = SCRAPE_HEAD_BYTES_MAX - head.len();
        let taken = (bytes.len() - blank).min(room);
        let had = head.len();
        head.extend_from_slice(&bytes[blank..blank + taken]);
        let mut asked = None;
        match parse(head, had) {
            Request::Asked { asked: question, without_body } => {
                self.state = State::Asked { without_body };
                asked = Some(question);
            }
            Request::Refused(status) => self.refuse(status, ctx),
            Request::Partial => {}
        }
        self.discard(bytes.len() - taken, ctx);
        asked
    }

    /// Answers the question; without one (the connection ended meanwhile) does nothing.
    pub fn answer(&mut self, status: u16, content_type: &str, body: &str, ctx: &mut Context<'_>) {
        let State::Asked { without_body } = self.state else { return };
        let mut text = head(status, content_type, body.len(), "");
        if !without_body {
            text.push_str(body);
        }
        self.finish(text, ctx);
    }

    /// The peer sent its FIN. One that has asked may still read the answer.
    pub fn ended(&mut self, ctx: &mut Context<'_>) {
        match self.state {
            State::Head(_) => self.close(ctx),
            State::Lingering { .. } if is_written(ctx) => self.close(ctx),
            State::Asked { .. } | State::Lingering { .. } | State::Closed => {}
        }
    }

    /// The socket failed.
    pub fn lost(&mut self, ctx: &mut Context<'_>) {
        self.close(ctx);
    }

    /// Does what is due by now.
    pub fn due(&mut self, ctx: &mut Context<'_>) {
        if self.deadline().is_none_or(|deadline| deadline > ctx.now.mono) {
            return;
        }
        match &mut self.state {
            State::Lingering { until } if self.end > ctx.now.mono && !is_written(ctx) => {
                *until = ctx.now.mono.after(LINGER);
            }
            _ => self.close(ctx),
        }
    }

    /// When `due` wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Head(_) | State::Asked { .. } => Some(self.end),
            State::Lingering { until } => Some(until.min(self.end)),
            State::Closed => None,
        }
    }

    fn refuse(&mut self, status: u16, ctx: &mut Context<'_>) {
        let body = format!("{}\n", reason(status));
        let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        self.finish(head(status, "text/plain; charset=utf-8", body.len(), allow) + &body, ctx);
    }

    fn finish(&mut self, answer: String, ctx: &mut Context<'_>) {
        // Without a limit on the outbox nothing is too slow.
        let _ = ctx.ports.mail.post_prompt(ctx.id, answer.into_bytes().into());
        ctx.ports.mail.seal(ctx.id);
        ctx.ports.ask(Output::HalfClose(ctx.id));
        self.state = State::Lingering { until: ctx.now.mono.after(LINGER) };
    }

    fn discard(&mut self, bytes: usize, ctx: &mut Context<'_>) {
        self.discarded = self.discarded.saturating_add(bytes);
        if self.discarded > LINGER_BYTES_MAX {
            self.close(ctx);
        }
    }

    fn close(&mut self, ctx: &mut Context<'_>) {
        self.state = State::Closed;
        ctx.ports.close(ctx.id);
    }
}

/// Whether the kernel has taken the whole answer.
fn is_written(ctx: &Context<'_>) -> bool {
    ctx.ports.mail.outbox(ctx.id).is_none_or(|outbox| outbox.is_empty())
}

enum Request {
    Partial,
    Asked {
        asked: Asked,
        without_body: bool,
    },
    /// To be answered with this status.
    Refused(u16),
}

/// Reads a head once it is complete; the first `seen` bytes are known not to be. A missing `Host`
/// passes, against RFC 9112 section 3.2: hand-written health checks often lack it, and there is but
/// one host here.
fn parse(head: &[u8], seen: usize) -> Request {
    // Whoever speaks TLS, say, is told at once.
    if head.first().is_some_and(|first| !first.is_ascii_graphic()) {
        return Request::Refused(400);
    }
    if end_of_head(head, seen).is_none() {
        let is_full = head.len() == SCRAPE_HEAD_BYTES_MAX;
        return if is_full { Request::Refused(431) } else { Request::Partial };
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Request::Refused(431),
        Ok(httparse::Status::Partial) | Err(_) => return Request::Refused(400),
    }
    let target = request.path.unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let asked = match path {
        "/metrics" => Asked::Metrics,
        "/healthz" => Asked::Health,
        "/readyz" => Asked::Ready,
        _ => return Request::Refused(404),
    };
    match request.method {
        Some("GET") => Request::Asked { asked, without_body: false },
        Some("HEAD") => Request::Asked { asked, without_body: true },
        _ => Request::Refused(405),
    }
}

fn head(status: u16, content_type: &str, length: usize, more: &str) -> String {
    let reason = reason(status);
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         {more}Connection: close\r\n\r\n"
    )
}

/// The phrases of the statuses used here; the phrase may be empty (RFC 9112, section 4).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::ports::Kind;
    use crate::random::Random;

    /// One machine and all that it sees.
    struct Bench {
        ports: Ports,
        id: ConnId,
        now: Now,
        scrape: Scrape,
    }

    impl Bench {
        fn new() -> Bench {
            let mut ports = Ports::default();
            let id = ports.open(Kind::Scrape, usize::MAX);
            let now = Now { mono: Instant(1_000), ..Now::default() };
            Bench { ports, id, now, scrape: Scrape::new(now) }
        }

        fn with<R>(&mut self, act: impl FnOnce(&mut Scrape, &mut Context<'_>) -> R) -> R {
            let mut ctx = Context { now: self.now, id: self.id, ports: &mut self.ports };
            act(&mut self.scrape, &mut ctx)
        }

        fn receive(&mut self, mut bytes: &[u8]) -> Option<Asked> {
            let asked = self.with(|scrape, ctx| scrape.next(&mut bytes, ctx));
            assert!(bytes.is_empty(), "all input is taken");
            asked
        }

        fn answer(&mut self, status: u16, body: &str) {
            self.with(|scrape, ctx| scrape.answer(status, "text/plain", body, ctx));
        }

        fn wait(&mut self, time: Duration) {
            self.now.mono = self.now.mono.after(time);
            self.with(|scrape, ctx| scrape.due(ctx));
        }

        /// Takes what is to be written.
        fn written(&mut self) -> String {
            let mut text = String::new();
            while let Some(id) = self.ports.mail.next_prompt() {
                let mut slices = [IoSlice::new(&[]); 8];
                let used = self.ports.mail.outbox(id).unwrap().slices_from(0, &mut slices);
                let bytes: Vec<u8> = slices[..used].iter().flat_map(|s| s.to_vec()).collect();
                self.ports.mail.written(id, bytes.len());
                text.push_str(&String::from_utf8(bytes).unwrap());
            }
            text
        }

        fn outputs(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.ports.poll()).collect()
        }

        fn is_closed(&self) -> bool {
            assert_eq!(self.ports.kind(self.id).is_none(), self.scrape.deadline().is_none());
            self.ports.kind(self.id).is_none()
        }
    }

    #[test]
    fn a_question_is_asked_once_and_answered_once() {
        let mut bench = Bench::new();
        let request = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n";
        assert_eq!(bench.receive(request), Some(Asked::Metrics));
        assert_eq!(bench.receive(b"GET /readyz HTTP/1.1\r\n\r\n"), None);
        assert_eq!(bench.written(), "");
        bench.answer(200, "a 1\n");
        bench.answer(200, "again\n");
        assert_eq!(
            bench.written(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\
             Connection: close\r\n\r\na 1\n"
        );
        assert_eq!(bench.outputs(), [Output::HalfClose(bench.id)]);
        bench.with(|scrape, ctx| scrape.ended(ctx));
        assert!(bench.is_closed());
        assert_eq!(bench.outputs(), [Output::Close(bench.id)]);
    }

    #[test]
    fn head_gets_the_length_but_no_body() {
        let mut bench = Bench::new();
        assert_eq!(bench.receive(b"HEAD /readyz HTTP/1.0\r\n\r\n"), Some(Asked::Ready));
        bench.answer(503, "Redis is not connected\n");
        let answer = bench.written();
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(answer.contains("Content-Length: 23\r\n") && answer.ends_with("\r\n\r\n"));
    }

    /// The question that comes of these pieces, the status of a refusal, or that more is wanted.
    fn outcome<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
        let mut bench = Bench::new();
        let asked: Vec<Asked> = pieces.filter_map(|piece| bench.receive(piece)).collect();
        assert!(asked.len() <= 1, "asked once");
        let written = bench.written();
        match (asked.first(), written.get(9..12)) {
            (Some(asked), None) => format!("{asked:?}"),
            (None, Some(status)) => {
                assert!(written.contains("Connection: close\r\n"));
                assert_eq!(bench.outputs(), [Output::HalfClose(bench.id)]);
                status.to_owned()
            }
            (None, None) => "more".to_owned(),
            (Some(_), Some(_)) => panic!("asked and refused"),
        }
    }

    #[test]
    fn requests_have_the_same_outcome_however_they_are_cut() {
        let many_headers = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
        let long = format!("GET /metrics HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(9_000));
        let endless = "G".repeat(SCRAPE_HEAD_BYTES_MAX);
        let padding = "b".repeat(SCRAPE_HEAD_BYTES_MAX - 30);
        let longest = format!("GET /metrics HTTP/1.1\r\na: {padding}\r\n\r\n");
        assert!(longest.len() <= SCRAPE_HEAD_BYTES_MAX);
        let cases = [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "Metrics"),
            ("GET /healthz HTTP/1.0\r\n\r\n", "Health"),
            ("GET /readyz? HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "Ready"),
            ("\r\nHEAD /metrics HTTP/1.1\r\n\r\n", "Metrics"),
            ("\r\n\r\n\n\nGET /metrics HTTP/1.1\n\n", "Metrics"),
            (&longest, "Metrics"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "405"),
            ("get /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /metrics\r\n\r\n", "400"),
            ("GET /metrics HTTP/2.0\r\n\r\n", "400"),
            ("GET /metrics HTTP/1.1\r\na b: c\r\n\r\n", "400"),
            ("\u{16}\u{3}\u{1}\u{0}\u{ff}", "400"),
            (" GET /metrics HTTP/1.1\r\n", "400"),
            ("GET \u{1}", "more"),
            ("GET \u{1}\n\n", "400"),
            (&many_headers, "431"),
            (&long, "431"),
            (&endless, "431"),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n", "more"),
            ("", "more"),
        ];
        let mut random = Random::seeded(25);
        for (request, expected) in cases {
            let bytes = request.as_bytes();
            assert_eq!(outcome([bytes].into_iter()), expected, "{request:.60}");
            assert_eq!(outcome(bytes.chunks(1)), expected, "{request:.60}");
            for _ in 0..20 {
                let cut = 1 + random.number() as usize % bytes.len().max(1);
                assert_eq!(outcome(bytes.chunks(cut)), expected, "{request:.60} by {cut}");
            }
        }
    }

    #[test]
    fn any_bytes_are_a_request_or_a_refusal_however_they_are_cut() {
        let mut random = Random::seeded(9112);
        let seed = b"GET /healthz?a HTTP/1.1\r\nHost: b\r\nAccept: */*\r\n\r\n";
        for _ in 0..500 {
            let mut bytes = seed.to_vec();
            for _ in 0..=random.number() % 3 {
                let at = random.number() as usize % bytes.len();
                bytes[at] = random.number() as u8;
            }
            let whole = outcome([&bytes[..]].into_iter());
            assert_eq!(outcome(bytes.chunks(1)), whole);
            assert_eq!(outcome(bytes.chunks(1 + random.number() as usize % 9)), whole);
        }
    }

    #[test]
    fn a_silent_or_slow_peer_is_closed_in_time() {
        let mut bench = Bench::new();
        bench.wait(Duration::from_secs(SCRAPE_SECONDS_MAX - 1));
        assert_eq!(bench.receive(b"GET /metrics HTTP/1.1\r\n"), None);
        assert!(!bench.is_closed());
        bench.wait(Duration::from_secs(1));
        assert!(bench.is_closed());
        assert_eq!(bench.written(), "");
    }

    #[test]
    fn a_peer_that_leaves_before_it_has_asked_is_closed() {
        let mut bench = Bench::new();
        bench.receive(b"GET /metr");
        bench.with(|scrape, ctx| scrape.ended(ctx));
        assert!(bench.is_closed());
        bench.answer(200, "late");
        bench.with(|scrape, ctx| scrape.lost(ctx));
        assert_eq!(bench.outputs(), [Output::Close(bench.id)]);
    }

    #[test]
    fn a_peer_that_ends_its_side_after_asking_is_answered() {
        let mut bench = Bench::new();
        bench.receive(b"GET /healthz HTTP/1.1\r\n\r\n");
        bench.with(|scrape, ctx| scrape.ended(ctx));
        bench.answer(200, "ok\n");
        assert!(bench.written().ends_with("\r\n\r\nok\n"));
        bench.wait(LINGER);
        assert!(bench.is_closed());
    }

    #[test]
    fn the_answer_has_until_the_end_to_be_taken() {
        let mut bench = Bench::new();
        bench.receive(b"GET /metrics HTTP/1.1\r\n\r\n");
        bench.answer(200, &"a 1\n".repeat(100_000));
        for _ in 1..SCRAPE_SECONDS_MAX {
            bench.wait(LINGER);
            assert!(!bench.is_closed());
        }
        bench.with(|scrape, ctx| scrape.ended(ctx));
        assert!(!bench.is_closed(), "its FIN does not stop the answer");
        bench.wait(LINGER);
        assert!(bench.is_closed());
    }

    #[test]
    fn only_so_much_is_read_for_nothing() {
        let mut bench = Bench::new();
        bench.receive(b"POST /metrics HTTP/1.1\r\n\r\n");
        bench.written();
        let block = vec![0; 65_536];
        for _ in 0..LINGER_BYTES_MAX / block.len() {
            bench.receive(&block);
        }
        assert!(!bench.is_closed());
        bench.receive(b"x");
        assert!(bench.is_closed());
    }
}
