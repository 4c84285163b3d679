//! Bounds that are not configurable, with the arithmetic behind them. The configurable ones are
//! `config::Limits`.

use std::time::Duration;

/// Levels of nesting in any JSON from outside; the parsers behind and before us overflow their
/// stacks on more.
pub const JSON_DEPTH_MAX: usize = 512;

/// A JSON value of more bytes than this equals only what is written like it: a canonical form of a
/// megabyte would take milliseconds, for each message and each session that is compared.
pub const COMPARED_BYTES_MAX: usize = 4_096;

/// What a session may keep with us by the names and extra fields of its subscriptions: so many
/// bytes for each one that `max_subscriptions_per_session` allows, or what one message may hold.
pub const SUBSCRIPTION_BYTES: usize = 1_024;

/// Bodies of the calls of one service that wait at one origin; past it, a call that has to wait
/// fails like one past `max_queued_per_host`. A few hundred of the longest events, or the whole
/// default queue of usual ones.
pub const QUEUED_BYTES_MAX: usize = 256 << 20;

/// Events that wait in all sessions together whose clients have gone; past it, those of the next
/// client that goes are dropped. A client that is there has its own bounds.
pub const ORPHANED_BYTES_MAX: usize = 64 << 20;

/// Code points of an event's name.
pub const EVENT_NAME_CHARS_MAX: usize = 40;

/// Characters of a `ping` event's `data` that come back.
pub const PONG_DATA_CHARS_MAX: usize = 128;

/// Response head (with all interim 1xx heads before it) and, apart, trailers of a callback.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 65_536;

/// Header lines of a request or response head.
pub const HEADERS_MAX: usize = 128;

/// Redirects followed within one try of a callback.
pub const REDIRECTS_MAX: usize = 5;

/// Host names whose addresses are remembered: far more than any configuration holds.
pub const NAMES_MAX: usize = 1_024;

/// Longest 429 wait that a service can ask for, in seconds.
pub const RATE_LIMIT_WAIT_SECONDS_MAX: u64 = 3_600;

/// A RESP line: type byte to CRLF.
pub const RESP_LINE_BYTES_MAX: usize = 65_536;

/// Nesting of RESP aggregates.
pub const RESP_DEPTH_MAX: usize = 32;

/// Bytes read and thrown away from a client after a refusal or a close frame, so that what we sent
/// arrives before a reset could overtake it.
pub const LINGER_BYTES_MAX: usize = 2 << 20;

/// Bytes of the one buffer that all sockets are read into, at the most.
pub const SCRATCH_BYTES: usize = 65_536;

/// Bytes taken from one Redis in one turn of the loop.
pub const READ_BYTES_PER_TURN: usize = 4 * SCRATCH_BYTES;

/// Bytes taken from one callback's connection in one turn: a service may have 64 of them that send
/// as fast as they can.
pub const ANSWER_READ_BYTES_PER_TURN: usize = 16_384;

/// Bytes of answers that are understood in one turn; after that, no more answers are read. (The one
/// that goes over it may have any size.)
pub const ANSWER_BYTES_PER_TURN: usize = 262_144;

/// Bytes taken from one client in one turn, but for the rest of a longer frame: at most 700 events
/// of no content, which cost the others less than a millisecond.
pub const CLIENT_READ_BYTES_PER_TURN: usize = 4_096;

/// Clients over a limit that are told so at once. Each may take some seconds to hear it; past this
/// they are closed without a word, or the limits would not bound the descriptors.
pub const TURNED_AWAY_MAX: usize = 256;

/// Connections accepted in one turn at the client port.
pub const ACCEPTS_PER_TURN: usize = 64;

/// The same at the other ports, where nobody is in a hurry.
pub const OTHER_ACCEPTS_PER_TURN: usize = 4;

/// Answers with all metrics in one turn: they take some 0.2 ms each.
pub const SCRAPES_PER_TURN: usize = 4;

/// Sessions that messages are taken to in one turn, at some 30 ns each; the messages behind them
/// wait for the next one.
pub const DELIVERIES_PER_TURN: usize = 32_768;

/// What a message costs besides its deliveries, in deliveries: to be read, and to be nobody's.
pub const DELIVERIES_PER_MESSAGE: usize = 16;

/// Messages on one channel that go out in one piece, unless one alone is longer.
pub const TOGETHER_BYTES_MAX: usize = 65_536;
/// What a delivery costs, in usual ones, where order or throttle have to be asked: with a thousand
/// keys in each of many subscriptions nothing of it is at hand.
pub const DELIVERIES_PER_GATE: usize = 16;

/// Bytes of a message that cost as much as a delivery, where it has to be parsed once more.
pub const BYTES_PER_DELIVERY: usize = 32;

/// Moments that are dealt with in one turn: thousands of pings may be due at once.
pub const TIMERS_PER_TURN: usize = 512;

/// Fan-out writes in one turn: at some 7 µs each, replies wait at most 4 ms behind them.
pub const BULK_WRITES_PER_TURN: usize = 512;

/// Slices of one vectored write. Linux takes 1,024; past 64 the system call's own cost is gone.
pub const SLICES_PER_WRITE: usize = 64;

/// Writes to one socket in one turn: some 256 small frames, or as much as the kernel takes of large
/// ones.
pub const WRITES_PER_TURN: usize = 4;

/// Bytes of the connection in one TLS record (RFC 8446, section 5.1): as much is encrypted at once.
pub const TLS_RECORD_BYTES_MAX: usize = 16_384;

/// What records may take besides: header, tag and padding, an update of the keys.
pub const TLS_RECORD_COST: usize = 1_024;

/// Records that are kept until a message of the handshake is complete: rustls takes messages of up
/// to 64 KiB.
pub const TLS_PARTIAL_BYTES_MAX: usize = 131_072;

/// Records written to one socket in one turn: 256 KiB.
pub const TLS_WRITES_PER_TURN: usize = 16;

/// Time for TLS handshakes in one turn of the loop. One more may be under way when it is used up:
/// 0.7 ms with an RSA key of 2,048 bits, 0.3 ms with ECDSA.
pub const TLS_HANDSHAKES_PER_TURN: Duration = Duration::from_millis(2);

/// Request head at the metrics port.
pub const SCRAPE_HEAD_BYTES_MAX: usize = 8_192;

/// Time that a peer at the metrics port has from its connecting to its last byte, in seconds.
pub const SCRAPE_SECONDS_MAX: u64 = 10;

/// Peers at the metrics port at once.
pub const SCRAPES_MAX: usize = 512;

/// Log text that waits for a stderr that takes none; past it, lines are dropped and counted.
pub const LOG_BYTES_MAX: usize = 4 << 20;

/// Errors of a configuration that are told one by one. Each may take some hundred bytes where the
/// file has two, and nobody reads more.
pub const CONFIG_ERRORS_MAX: usize = 100;

/// Any configured duration, in seconds: some 31 years. Sums of such times are far from overflow.
pub const CONFIG_SECONDS_MAX: u32 = 1_000_000_000;

/// Any configured size or count: no allocation can be larger, and the sum of two does not
/// overflow.
pub const CONFIG_COUNT_MAX: usize = isize::MAX as usize;

/// Peers of the embedded broker at once: Redis's own `maxclients`.
pub const BROKER_PEERS_MAX: usize = 10_000;

/// Bytes that wait for a peer of the broker while others wait already; past it the peer is closed.
/// Redis's own hard limit for subscribers, and room for two of the largest messages.
pub const BROKER_QUEUE_BYTES_MAX: usize = 32 << 20;

/// Bytes of messages that wait for a peer of the broker within one turn of the loop, whatever its
/// socket would take: many patterns that match multiply what is published.
pub const BROKER_BURST_BYTES_MAX: usize = 4 * BROKER_QUEUE_BYTES_MAX;

/// Bytes that wait for a peer of the broker before its next command is looked at. A client writes
/// its whole pipeline before it reads: at five bytes a reply this lets more than a million through.
pub const BROKER_REPLY_BYTES_MAX: usize = 8 << 20;

/// One word of a command from a peer of the broker that has not authenticated: Redis's own bound.
pub const BROKER_STRANGER_BYTES_MAX: usize = 16_384;

/// The name of a channel at the broker.
pub const BROKER_CHANNEL_BYTES_MAX: usize = 65_536;

/// A pattern at the broker, and the name of a peer. Matching costs a step for each byte of the
/// channel and each 64 of the pattern.
pub const BROKER_PATTERN_BYTES_MAX: usize = 1_024;

/// Different patterns at the broker: each message on any channel is held against all of them.
pub const BROKER_PATTERNS_MAX: usize = 1_024;

/// All different patterns together. With the longest channel a message takes some 0.1 s at most.
pub const BROKER_PATTERNS_BYTES_MAX: usize = 65_536;

/// Names of channels and patterns that one peer of the broker is subscribed to, in bytes and with
/// `BROKER_SUBSCRIPTION_COST` for each.
pub const BROKER_SUBSCRIBED_BYTES_MAX: usize = 64 << 20;

/// What a subscription takes besides its name: nodes of two trees and a place among the readers.
pub const BROKER_SUBSCRIPTION_COST: usize = 128;

/// Commands between MULTI and EXEC, in bytes and with `BROKER_SUBSCRIPTION_COST` for each.
pub const BROKER_TRANSACTION_BYTES_MAX: usize = 32 << 20;

/// Time that a peer of the broker has to take the last words and to close, in seconds.
pub const BROKER_LINGER_SECONDS: u64 = 2;

/// Queues kept for the next burst, and the frames that each may have room for: 1 MiB in all.
pub const SPARE_QUEUES_MAX: usize = 1_024;
pub const SPARE_QUEUE_FRAMES_MAX: usize = 64;

/// Connections to the demo's page and service at once: as many as the router's callbacks of its
/// three services and of the authentication may take, and as many again for browsers.
pub const DEMO_CONNECTIONS_MAX: usize = 512;

/// Head of a request to the demo.
pub const DEMO_HEAD_BYTES_MAX: usize = 8_192;

/// Body of a request to the demo.
pub const DEMO_BODY_BYTES_MAX: usize = 65_536;

/// Time for a request to the demo from its first byte to its last, and for taking the answer, in
/// seconds.
pub const DEMO_REQUEST_SECONDS_MAX: u64 = 10;

/// Time between two requests on one connection to the demo, in seconds: longer than the router's
/// `keepalive_timeout`, so that it does not meet a closing service.
pub const DEMO_IDLE_SECONDS_MAX: u64 = 60;

/// Tickets of the demo that nobody has used yet; the oldest one gives way.
pub const DEMO_TICKETS_MAX: usize = 100;

/// Time in which a ticket of the demo has to be used, in seconds.
pub const DEMO_TICKET_SECONDS_MAX: u64 = 30;

/// Rooms of the demo's chat in which somebody is, and different people in one.
pub const DEMO_ROOMS_MAX: usize = 100;
pub const DEMO_PEOPLE_MAX: usize = 100;

/// What somebody new in a room of the demo's chat gets to read.
pub const DEMO_LINES_KEPT: usize = 10;

/// Characters of a name, and of a line, in the demo's chat.
pub const DEMO_NAME_CHARS_MAX: usize = 32;
pub const DEMO_LINE_CHARS_MAX: usize = 500;
