//! One connection to the demo's port: HTTP/1.1 requests one after the other (RFC 9112), each
//! answered before the next is looked at.
//!
//! The peer is a browser at the page, the router with a callback, or a stranger. It has a bounded
//! request and a bounded time; while an answer waits to be taken, nothing more is read. What the
//! requests mean is not known here.

use std::time::Duration;

use crate::arena::ConnId;
use crate::limits::{
    DEMO_BODY_BYTES_MAX, DEMO_HEAD_BYTES_MAX, DEMO_IDLE_SECONDS_MAX, DEMO_REQUEST_SECONDS_MAX,
    LINGER_BYTES_MAX,
};
use crate::outbox::Frame;
use crate::ports::{Output, Ports};
use crate::time::{Instant, Now};
use crate::wire::http::incoming::{Bounds, Incoming, Reader, Refusal};

/// Time from the last answer to closing, for a peer that does not close first.
const LINGER: Duration = Duration::from_secs(1);

const REQUEST: Duration = Duration::from_secs(DEMO_REQUEST_SECONDS_MAX);
const IDLE: Duration = Duration::from_secs(DEMO_IDLE_SECONDS_MAX);

const BOUNDS: Bounds = Bounds { head_bytes: DEMO_HEAD_BYTES_MAX, body_bytes: DEMO_BODY_BYTES_MAX };

/// What a visitor may touch outside itself.
pub struct Context<'a> {
    pub now: Now,
    pub id: ConnId,
    pub ports: &'a mut Ports,
}

enum State {
    /// Between requests, or inside one.
    Reading(Reader),
    /// A request was handed out; its answer is to come.
    Asked { keep_alive: bool },
    /// The answer waits to be written; the input behind the request waits with it.
    Answering { held: Vec<u8> },
    /// The last answer and our FIN are queued. What the peer still sends is thrown away, since
    /// closing over unread bytes resets the connection, and a reset overtakes the answer.
    Lingering { discarded: usize },
    /// The id is dead.
    Closed,
}

/// The state machine of one connection. Its outbox has no limit of its own: it never holds more
/// than one answer.
pub struct Visitor {
    state: State,
    /// When the connection ends if nothing changes.
    until: Instant,
    /// The peer's FIN was read.
    ended: bool,
}

impl Visitor {
    /// A connection that was accepted just now.
    pub fn new(now: Now) -> Visitor {
        let state = State::Reading(Reader::new(BOUNDS));
        Visitor { state, until: now.mono.after(REQUEST), ended: false }
    }

    /// The next request, to be answered by `answer`. `None`: all of `input` is taken.
    pub fn next(&mut self, input: &mut &[u8], ctx: &mut Context<'_>) -> Option<Incoming> {
        match &mut self.state {
            State::Reading(reader) => {
                let was_inside = reader.is_inside();
                match reader.next(input) {
                    Ok(Some(request)) => {
                        self.state = State::Asked { keep_alive: request.keep_alive };
                        return Some(request);
                    }
                    Ok(None) if was_inside || !reader.is_inside() => {}
                    Ok(None) => self.until = ctx.now.mono.after(REQUEST),
                    Err(refusal) => self.refuse(refusal, input, ctx),
                }
            }
            State::Answering { held } => held.extend_from_slice(std::mem::take(input)),
            State::Lingering { .. } => self.discard(std::mem::take(input).len(), ctx),
            State::Asked { .. } | State::Closed => *input = &[],
        }
        None
    }

    /// Answers the request with a whole HTTP/1.1 message.
    pub fn answer(&mut self, answer: Frame, ctx: &mut Context<'_>) {
        let State::Asked { keep_alive } = self.state else { return };
        // Without a limit on the outbox nothing is too slow.
        let _ = ctx.ports.mail.post_prompt(ctx.id, answer);
        if keep_alive {
            self.state = State::Answering { held: Vec::new() };
            self.until = ctx.now.mono.after(REQUEST);
        } else {
            self.linger(ctx);
        }
    }

    /// All that waited was written. Gives the input that waited for it, to be handed to `next`.
    pub fn flushed(&mut self, ctx: &mut Context<'_>) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Answering { held } => {
                let held = std::mem::take(held);
                self.state = State::Reading(Reader::new(BOUNDS));
                self.until = ctx.now.mono.after(IDLE);
                if self.ended && held.is_empty() {
                    self.close(ctx);
                    return None;
                }
                ctx.ports.ask(Output::Resume(ctx.id));
                Some(held)
            }
            State::Lingering { .. } if self.ended => {
                self.close(ctx);
                None
            }
            _ => None,
        }
    }

    /// The peer sent its FIN: what it asked for before is still answered.
    pub fn ended(&mut self, ctx: &mut Context<'_>) {
        self.ended = true;
        match self.state {
            State::Reading(_) => self.close(ctx),
            State::Lingering { .. } if is_written(ctx) => self.close(ctx),
            _ => {}
        }
    }

    /// The socket failed.
    pub fn lost(&mut self, ctx: &mut Context<'_>) {
        self.close(ctx);
    }

    /// Ends the connection if its time is over.
    pub fn due(&mut self, ctx: &mut Context<'_>) {
        if self.deadline().is_some_and(|deadline| deadline <= ctx.now.mono) {
            self.close(ctx);
        }
    }

    /// When `due` wants to be called; `None`: never, the connection is over.
    pub fn deadline(&self) -> Option<Instant> {
        (!matches!(self.state, State::Closed)).then_some(self.until)
    }

    /// False while an answer has to be taken first.
    pub fn wants_read(&self) -> bool {
        !matches!(self.state, State::Asked { .. } | State::Answering { .. })
    }

    fn refuse(&mut self, Refusal(status): Refusal, input: &mut &[u8], ctx: &mut Context<'_>) {
        let text = format!(
            "HTTP/1.1 {status} {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            reason(status)
        );
        let _ = ctx.ports.mail.post_prompt(ctx.id, text.into_bytes().into());
        self.linger(ctx);
        self.discard(std::mem::take(input).len(), ctx);
    }

    fn linger(&mut self, ctx: &mut Context<'_>) {
        ctx.ports.mail.seal(ctx.id);
        ctx.ports.ask(Output::HalfClose(ctx.id));
        self.state = State::Lingering { discarded: 0 };
        self.until = ctx.now.mono.after(LINGER);
    }

    fn discard(&mut self, bytes: usize, ctx: &mut Context<'_>) {
        let State::Lingering { discarded } = &mut self.state else { return };
        *discarded = discarded.saturating_add(bytes);
        if *discarded > LINGER_BYTES_MAX {
            self.close(ctx);
        }
    }

    fn close(&mut self, ctx: &mut Context<'_>) {
        self.state = State::Closed;
        ctx.ports.close(ctx.id);
    }
}

fn is_written(ctx: &Context<'_>) -> bool {
    ctx.ports.mail.outbox(ctx.id).is_none_or(|outbox| outbox.is_empty())
}

/// The phrases of the statuses used here; the phrase may be empty (RFC 9112, section 4).
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        _ => "",
    }
}
