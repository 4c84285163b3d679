//! The echo server of `examples/echo.rs` over real sockets: the router's loop and connections
//! with another core, so messages can be larger and of other kinds than events are.

#![expect(clippy::unwrap_used, reason = "a failure in a helper is the failure of its test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

const PATIENCE: Duration = Duration::from_secs(60);

/// The longest message that the server takes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Builds the example once, with the profile of this test, and gives its path. A test's program is
/// in `deps`, two levels below the folder that cargo was told to build in.
fn example() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let name = match profile.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            name => name,
        };
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--example", "echo", "--profile", name])
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .arg("--target-dir")
            .arg(profile.parent().unwrap())
            .status()
            .unwrap();
        assert!(status.success(), "the example is built");
        profile.join("examples").join(format!("echo{}", std::env::consts::EXE_SUFFIX))
    })
}

/// A server of our own on a free port; it ends with the value.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Server {
        let mut process = Command::new(example()).arg("0").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("ws://").unwrap().to_owned();
        Server { process, address }
    }

    fn connect(&self) -> WebSocket<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: echo\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        WebSocket::from_raw_socket(stream, Role::Client, Some(config))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A message in pieces of at most `size` bytes.
fn fragments(kind: Data, payload: &[u8], size: usize) -> Vec<Message> {
    let pieces: Vec<&[u8]> = payload.chunks(size).collect();
    let last = pieces.len() - 1;
    let frame = |(index, piece): (usize, &&[u8])| {
        let kind = if index == 0 { kind } else { Data::Continue };
        Message::Frame(Frame::message(piece.to_vec(), OpCode::Data(kind), index == last))
    };
    pieces.iter().enumerate().map(frame).collect()
}

/// Characters of one to four bytes, so that pieces of most sizes cut some.
fn text(bytes: usize) -> String {
    let mut text = "aé€😀".repeat(bytes / 10);
    text.extend(std::iter::repeat_n('x', bytes - text.len()));
    text
}

/// All values of a byte, in an order that a lost or doubled piece would disturb.
fn binary(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index ^ (index >> 8) ^ (index >> 16)) as u8).collect()
}

#[test]
fn messages_come_back_as_they_came() {
    let server = Server::start();
    let mut client = server.connect();
    for bytes in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        for message in [Message::text(text(bytes)), Message::binary(binary(bytes))] {
            client.send(message.clone()).unwrap();
            assert!(client.read().unwrap() == message, "{bytes} bytes");
        }
    }
    client.send(Message::Ping("1".into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong("1".into()));
    client.close(None).unwrap();
    assert_eq!(client.read().unwrap(), Message::Close(None));
}

#[test]
fn many_messages_at_once_come_back_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    for number in 0..2_000 {
        client.write(Message::text(number.to_string())).unwrap();
    }
    client.flush().unwrap();
    for number in 0..2_000 {
        assert_eq!(client.read().unwrap(), Message::text(number.to_string()));
    }
}

#[test]
fn fragments_come_back_as_one_message() {
    let server = Server::start();
    let mut client = server.connect();
    let (text, bytes) = (text(100_000), binary(100_000));
    for size in [1, 7, 4_096, 99_999] {
        for frame in fragments(Data::Text, text.as_bytes(), size) {
            client.write(frame).unwrap();
        }
        client.flush().unwrap();
        assert!(client.read().unwrap() == Message::text(text.clone()), "text by {size}");
        for frame in fragments(Data::Binary, &bytes, size) {
            client.write(frame).unwrap();
        }
        client.flush().unwrap();
        assert!(client.read().unwrap() == Message::binary(bytes.clone()), "binary by {size}");
    }
}

#[test]
fn the_longest_messages_come_back_and_longer_ones_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let longest = Message::text(text(MESSAGE_BYTES_MAX));
    client.send(longest.clone()).unwrap();
    assert!(client.read().unwrap() == longest);
    let longest = binary(MESSAGE_BYTES_MAX);
    for frame in fragments(Data::Binary, &longest, 65_536) {
        client.send(frame).unwrap();
    }
    assert!(client.read().unwrap() == Message::binary(longest));
    let first_bytes = [&[0x82, 0xff][..], &(MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes(), &[0; 4]];
    client.get_mut().write_all(&first_bytes.concat()).unwrap();
    let Message::Close(Some(close)) = client.read().unwrap() else { panic!("a Close") };
    assert_eq!(u16::from(close.code), 1009);
}

#[test]
fn who_sends_without_reading_is_cut_off() {
    let server = Server::start();
    let mut client = server.connect();
    let message = Message::binary(binary(MESSAGE_BYTES_MAX));
    // The queue takes two; sockets hold some more, and the end is told by a reset.
    let sent = (0..10).take_while(|_| client.send(message.clone()).is_ok()).count();
    assert!((2..10).contains(&sent), "{sent}");
    let mut other = server.connect();
    other.send(Message::text("here")).unwrap();
    assert_eq!(other.read().unwrap(), Message::text("here"));
}
