//! The body for TLS: sessions in any cuts, forged or not.

use std::cell::OnceCell;

use super::in_all_cuts;
use crate::config::{Config, KeyPair, RedisTls};
use crate::tls::{Files, Keys, Session};

/// Bytes of a client's stream, of which one is forged.
const STREAM_BYTES_MAX: usize = 4_096;

/// Where the one byte of a record stands that says nothing, the lower one of its version (RFC 8446,
/// section 5.1: it is to be ignored; what is authenticated is 3).
const VERSION_LOW: usize = 2;

/// What a session made of its input.
#[derive(PartialEq, Debug)]
struct Outcome {
    plain: Vec<u8>,
    fault: Option<String>,
    is_open: bool,
    peer_has_closed: bool,
    /// Whether there was something to say.
    speaks: bool,
}

/// As a stranger's first bytes: the same behaviour in all cuts, and no message in it. As what a
/// client says on an open connection: it comes out as it went in, in all cuts; and with a byte
/// forged (unless it is to be ignored), so does what stands before the record of that byte, and
/// nothing else.
pub fn tls(data: &[u8]) {
    in_all_cuts(data, |pieces| {
        let outcome = run(&mut server(), pieces);
        assert!(outcome.plain.is_empty() && !outcome.is_open, "nobody is known yet");
        outcome
    });
    let data = &data[..data.len().min(STREAM_BYTES_MAX)];
    let whole = in_all_cuts(data, |pieces| {
        let (mut client, mut server) = opened();
        let outcome = run(&mut server, &sealed(&mut client, data, pieces.len() > 1));
        (outcome.plain, outcome.fault, outcome.peer_has_closed)
    });
    assert_eq!(whole, (data.to_vec(), None, true));
    let (mut client, mut server) = opened();
    let records = sealed(&mut client, data, false);
    let mut stream = records.concat();
    let at = 31 * data.iter().map(|&byte| usize::from(byte)).sum::<usize>() % stream.len();
    stream[at] ^= 0x11;
    let outcome = run(&mut server, &[&stream]);
    let farewell = stream.len() - records.last().map_or(0, Vec::len);
    if at == VERSION_LOW || at == farewell + VERSION_LOW {
        assert!(outcome.plain == data && outcome.peer_has_closed);
    } else {
        assert!(data.starts_with(&outcome.plain) && !outcome.peer_has_closed);
    }
}

/// What a client sends for these bytes, and its farewell: one record, or one for each dozen bytes.
fn sealed(client: &mut Session, data: &[u8], in_pieces: bool) -> Vec<Vec<u8>> {
    let mut room = vec![0; data.len() + 1_024];
    let size = if in_pieces { 12 } else { STREAM_BYTES_MAX };
    let mut records = Vec::new();
    for piece in data.chunks(size) {
        let length = client.encrypt(piece, &mut room).expect("the session is open");
        records.push(room[..length].to_vec());
    }
    let length = client.close(&mut room).expect("the session is open");
    records.push(room[..length].to_vec());
    records
}

fn run(session: &mut Session, pieces: &[impl AsRef<[u8]>]) -> Outcome {
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let mut fault = None;
    for piece in pieces {
        if fault.is_some() {
            break;
        }
        let result = session.receive(&mut piece.as_ref().to_vec(), &mut plain, &mut out);
        fault = result.err().map(|fault| fault.to_string());
    }
    let (is_open, peer_has_closed) = (session.is_open(), session.peer_has_closed());
    Outcome { plain, fault, is_open, peer_has_closed, speaks: !out.is_empty() }
}

fn server() -> Session {
    with_keys(|keys| Session::accept(keys.clients.as_ref().expect("WS_SSL is set")))
        .expect("the keys are in order")
}

/// Both sides after their handshake, which went in single bytes.
fn opened() -> (Session, Session) {
    let dial = |keys: &Keys| {
        let config = keys.redis[0].as_ref().expect("REDIS.tls is set");
        Session::dial(config, "localhost").expect("a name")
    };
    let (mut client, mut server) = (with_keys(dial), server());
    let (mut to_server, mut to_client, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    client.receive(&mut [], &mut plain, &mut to_server).expect("it begins");
    while !to_server.is_empty() || !to_client.is_empty() {
        for byte in std::mem::take(&mut to_server) {
            server.receive(&mut [byte], &mut plain, &mut to_client).expect("a client");
        }
        for byte in std::mem::take(&mut to_client) {
            client.receive(&mut [byte], &mut plain, &mut to_server).expect("a server");
        }
    }
    assert!(client.is_open() && server.is_open() && plain.is_empty());
    (client, server)
}

/// A certificate for localhost and the authority that it is by, for a hundred years.
fn with_keys<T>(act: impl FnOnce(&Keys) -> T) -> T {
    thread_local!(static KEYS: OnceCell<Keys> = const { OnceCell::new() });
    KEYS.with(|keys| act(keys.get_or_init(load)))
}

fn load() -> Keys {
    let pair = KeyPair { cert: "here.pem".to_owned(), key: "here.key".to_owned() };
    let mut config = Config { ws_ssl: Some(pair), ..Config::default() };
    let house = Some("house.pem".to_owned());
    config.redis.tls = Some(RedisTls { ssl_cafile: house, ..RedisTls::default() });
    let read = |path: &str| match path {
        "here.pem" => Ok(include_bytes!("certificates/here.pem").to_vec()),
        "here.key" => Ok(include_bytes!("certificates/here.key").to_vec()),
        "house.pem" => Ok(include_bytes!("certificates/house.pem").to_vec()),
        other => Err(format!("no such file: {other}")),
    };
    let system_roots = || Err("nobody asks".to_owned());
    Keys::load(&config, &Files { read: &read, system_roots: &system_roots }).expect("good files")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn streams_of_any_length_go_through() {
        let mut random = Random::seeded(7);
        for length in [0, 1, 11, 12, 13, 300, 4_096] {
            let data: Vec<u8> = (0..length).map(|_| random.number() as u8).collect();
            tls(&data);
        }
    }

    #[test]
    fn many_forgeries_are_found() {
        let (mut client, _) = opened();
        let stream = sealed(&mut client, &[b'x'; 100], true).concat();
        // Another session's records, each with a byte changed or cut off, are nothing to this one.
        for at in (0..stream.len()).step_by(7) {
            let (_, mut server) = opened();
            let outcome = run(&mut server, &[&stream[at..]]);
            assert!(outcome.plain.is_empty() && !outcome.peer_has_closed);
            // Nothing is said and nothing taken after a fault.
            if outcome.fault.is_some() {
                assert!(server.encrypt(b"x", &mut [0; 100]).is_err());
                assert!(server.close(&mut [0; 100]).is_err());
                assert!(run(&mut server, &[&stream]).plain.is_empty());
            }
        }
    }

    /// Half a message of the handshake on an open connection: rustls keeps places in the bytes
    /// that came, which have to be there whenever it is asked for anything.
    #[test]
    fn half_a_message_harms_nobody() {
        let mut random = Random::seeded(8);
        for _ in 0..200 {
            let mut hello = Vec::new();
            let dial = |keys: &Keys| Session::dial(keys.redis[0].as_ref().unwrap(), "localhost");
            let mut client = with_keys(dial).unwrap();
            client.receive(&mut [], &mut Vec::new(), &mut hello).unwrap();
            // The hello in records of a few bytes each.
            let body = &hello[5..];
            let size = 1 + random.number() as usize % 40;
            let records = body
                .chunks(size)
                .map(|chunk| [&[0x16, 3, 1, 0, chunk.len() as u8][..], chunk].concat());
            let records: Vec<Vec<u8>> = records.collect();
            let count = random.number() as usize % (records.len() + 1);
            let mut server = server();
            let outcome = run(&mut server, &records[..count]);
            assert!(outcome.plain.is_empty());
            assert!(server.encrypt(b"x", &mut [0; 100]).is_err(), "it is not open");
        }
    }
}
