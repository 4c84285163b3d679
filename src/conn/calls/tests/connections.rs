//! Dialling, keeping and reusing connections.

use super::*;
use crate::limits::{ANSWER_BYTES_PER_TURN, ANSWER_READ_BYTES_PER_TURN};

#[test]
fn a_call_is_sent_and_answered_and_the_connection_kept() {
    let mut world = World::new();
    world.message(&url());
    let (conn, request) = world.accept();
    assert!(request.starts_with("POST /hook HTTP/1.1\r\nHost: 10.0.0.1:8000\r\n"), "{request}");
    assert_eq!(body_of(&request), "{\"n\":0}");
    for piece in [&OK[..10], &OK[10..40], &OK[40..]] {
        assert_eq!(world.ended_calls(), []);
        world.receive(conn, piece);
    }
    assert_eq!(world.ended_calls(), [(0, true)]);
    assert!(world.calls.is_idle());
    world.start("other", Hook::Authorizer, &url_at("10.0.0.1", "/other"));
    let (again, request) = world.reuse();
    assert_eq!(again, conn);
    assert!(request.starts_with("POST /other "));
    world.receive(conn, &OK.replace("ok", "no"));
    let (_, answer) = world.calls.next_finished().unwrap();
    assert_eq!(answer, Answer::Object(OBJECT.replace("ok", "no").into()));
    assert_eq!(world.results("books", Hook::OnMessage), [1, 0, 0, 0]);
    assert_eq!(world.results("other", Hook::Authorizer), [0, 1, 0, 0]);
}

#[test]
fn look_ups_are_shared_and_count_as_part_of_the_try() {
    let mut world = World::with(|http| http.tries = 1);
    let url = url_at("books", "/");
    world.message(&url);
    world.message(&url);
    assert_eq!(world.looked_up(), ["books"]);
    world.advance(15.0);
    assert_eq!(world.ended_calls(), [(0, false), (1, false)]);
    assert!(world.log.take().contains("timed out looking the host up"));
    world.message(&url);
    assert_eq!(world.looked_up(), [] as [&str; 0], "still under way");
    let address = ["10.0.0.7".parse().unwrap()];
    world.input(|calls, ctx| calls.resolved("books", Ok(&address), ctx));
    assert_eq!(world.dialled()[0].1, "10.0.0.7:8000");
    world.message(&url);
    assert_eq!(world.dialled()[0].1, "10.0.0.7:8000", "known");
    world.advance(30.0);
    world.ended_calls();
    world.message(&url);
    world.message(&url);
    assert_eq!(world.looked_up(), ["books"], "known no more");
    world.input(|calls, ctx| calls.resolved("books", Err("no such host"), ctx));
    assert_eq!(world.ended_calls(), [(4, false), (5, false)]);
    assert!(world.log.take().contains("cannot look the host up: no such host"));
    world.message(&url);
    assert_eq!(world.looked_up(), ["books"], "failures are not remembered");
}

#[test]
fn every_address_is_tried_in_turn() {
    let mut world = World::with(|http| {
        http.tries = 1;
        http.timeout = seconds(12.0);
    });
    let addresses = ["::1", "10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
    for all_dead in [false, true] {
        world.message(&url_at("books", "/"));
        if !all_dead {
            assert_eq!(world.looked_up(), ["books"]);
            world.input(|calls, ctx| calls.resolved("books", Ok(&addresses), ctx));
        }
        let dialled = world.dialled();
        assert_eq!(dialled[0].1, "[::1]:8000");
        world.advance(4.0);
        let silent = dialled[0].0;
        assert!(!world.is_open(silent), "it had its share of the time");
        let dialled = world.dialled();
        assert_eq!(dialled[0].1, "10.0.0.1:8000");
        world.lose(dialled[0].0);
        let dialled = world.dialled();
        assert_eq!(dialled[0].1, "10.0.0.2:8000");
        let conn = dialled[0].0;
        if all_dead {
            world.lose(conn);
            assert_eq!(world.ended_calls(), [(1, false)]);
            assert!(world.log.take().contains("cannot connect: connection refused"));
        } else {
            world.input(|calls, ctx| calls.connected(conn, ctx));
            world.sent();
            world.receive(conn, OK);
            world.end(conn);
            assert_eq!(world.ended_calls(), [(0, true)]);
        }
    }
}

#[test]
fn a_dead_reused_connection_costs_no_try() {
    for how in 0..5 {
        let mut world = World::with(|http| http.tries = 1);
        world.message(&url());
        let (conn, _) = world.accept();
        world.receive(conn, OK);
        world.message(&url());
        match how {
            0 => {
                world.reuse();
                world.end(conn);
            }
            1 => {
                world.reuse();
                world.lose(conn);
            }
            // Late surplus: nothing of the second request had been written.
            2 => world.receive(conn, OK),
            _ => {
                world.reuse();
                let begun = if how == 3 { "HTTP/1.1 " } else { "HTTP/1.1 100 Continue\r\n\r\n" };
                world.receive(conn, begun);
                world.end(conn);
                assert_eq!(world.ended_calls(), [(0, true), (1, false)], "it had begun");
                continue;
            }
        }
        assert!(!world.is_open(conn));
        let (fresh, request) = world.accept();
        assert_eq!(body_of(&request), "{\"n\":1}");
        assert_eq!(world.ended_calls(), [(0, true)]);
        world.end(fresh);
        assert_eq!(world.ended_calls(), [(1, false)], "a fresh one that dies is a failed try");
        assert!(world.log.take().contains("connection closed without an answer"));
    }
}

#[test]
fn garbage_on_a_reused_connection_is_an_answer_however_it_is_cut() {
    for pieces in [&["garbage\r\n\r\n"][..], &["HT", "ML\r\n\r\n"]] {
        let mut world = World::with(|http| http.tries = 1);
        world.message(&url());
        let (conn, _) = world.accept();
        world.receive(conn, OK);
        world.message(&url());
        world.reuse();
        for piece in pieces {
            world.receive(conn, piece);
        }
        assert_eq!(world.ended_calls(), [(0, true), (1, false)], "{pieces:?}");
    }
}

#[test]
fn the_second_sending_goes_to_a_fresh_connection() {
    let mut world = World::with(|http| http.tries = 1);
    world.message(&url());
    world.message(&url());
    let conns: Vec<ConnId> = world.dialled().into_iter().map(|(conn, _)| conn).collect();
    for &conn in &conns {
        world.input(|calls, ctx| calls.connected(conn, ctx));
    }
    world.sent();
    world.receive(conns[1], OK);
    world.receive(conns[0], OK);
    world.message(&url());
    let (conn, _) = world.reuse();
    assert_eq!(conn, conns[0], "the most recently used one");
    world.end(conn);
    assert_ne!(world.accept().0, conns[1], "the other idle one may be as dead");
}

#[test]
fn what_may_be_reused() {
    let sized = "Content-Type: application/json\r\nContent-Length: 15\r\n";
    let cases = [
        (true, OK.to_owned(), true),
        (true, ERROR.to_owned(), false),
        (true, "HTTP/1.1 204 None\r\n\r\n".to_owned(), false),
        (true, OK.replace("application/json", "text/html"), false),
        (true, OK.replace("{\"status\":\"ok\"}", "[\"status\",\"ok\"]"), false),
        (true, OK.replace("Content-Type", "Content-Encoding: br\r\nContent-Type"), false),
        (true, format!("HTTP/1.0 200 K\r\nConnection: keep-alive\r\n{sized}\r\n{OBJECT}"), true),
        (false, format!("HTTP/1.0 200 K\r\n{sized}\r\n{OBJECT}"), true),
        (false, format!("HTTP/1.1 200 K\r\nConnection: close\r\n{sized}\r\n{OBJECT}"), true),
        (false, format!("{OK}{OK}"), true),
        (false, OK.replace("Content-Length: 15", "Content-Length: -1"), false),
        (false, OK.replace("Content-L", "Transfer-Encoding: chunked\r\nContent-L"), false),
        (false, "garbage".to_owned(), false),
    ];
    for (reusable, answer, answered) in cases {
        let mut world = World::with(|http| http.tries = 1);
        world.message(&url());
        let (conn, _) = world.accept();
        world.receive(conn, &answer);
        assert_eq!(world.ended_calls(), [(0, answered)], "{answer}");
        assert_eq!(world.is_open(conn), reusable, "{answer}");
    }
}

#[test]
fn a_body_may_end_with_the_connection() {
    let mut world = World::with(|http| http.tries = 1);
    world.message(&url());
    let (conn, _) = world.accept();
    let open = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{OBJECT}");
    world.receive(conn, &open);
    assert_eq!(world.ended_calls(), []);
    world.end(conn);
    assert_eq!(world.ended_calls(), [(0, true)]);
    assert!(!world.is_open(conn));
    world.message(&url());
    let (conn, _) = world.accept();
    world.receive(conn, &open);
    world.lose(conn);
    assert_eq!(world.ended_calls(), [(1, false)], "a reset is no end");
}

#[test]
fn idle_connections_go_when_they_must() {
    let mut world = World::new();
    let idle = |world: &mut World| {
        world.message(&url());
        let (conn, _) = world.accept();
        world.receive(conn, OK);
        world.ended_calls();
        assert!(world.is_open(conn));
        conn
    };
    let conn = idle(&mut world);
    world.end(conn);
    assert!(!world.is_open(conn), "closed by the server");
    let conn = idle(&mut world);
    world.receive(conn, "x");
    assert!(!world.is_open(conn), "spoken to");
    let conn = idle(&mut world);
    world.lose(conn);
    assert!(!world.is_open(conn), "broken");
    let conn = idle(&mut world);
    world.advance(3.999);
    assert!(world.is_open(conn));
    world.advance(0.001);
    assert!(!world.is_open(conn), "idle for too long");
    let conn = idle(&mut world);
    world.now.mono = world.now.mono.after(seconds(4.0));
    world.message(&url());
    assert!(!world.is_open(conn), "too old, though its deadline was not looked at yet");
    let (conn, _) = world.accept();
    world.receive(conn, OK);
    world.input(|calls, ctx| calls.close_idle(ctx));
    assert!(!world.is_open(conn), "not wanted");
    assert!(world.ports.is_empty());
}

#[test]
fn a_turn_takes_little_and_no_more_once_it_has_understood_much() {
    let mut world = World::new();
    assert_eq!(world.calls.appetite(), ANSWER_READ_BYTES_PER_TURN);
    world.message(&url());
    let (conn, _) = world.accept();
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(ANSWER_BYTES_PER_TURN));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    world.receive(conn, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(world.calls.unfinished(), 0, "understood");
    assert_eq!(world.calls.appetite(), 0);
    world.input(|calls, ctx| calls.due(ctx));
    assert_eq!(world.calls.appetite(), ANSWER_READ_BYTES_PER_TURN);
}

#[test]
fn dead_ids_and_unasked_names_do_nothing() {
    let mut world = World::new();
    world.message(&url());
    let conn = world.dial();
    world.lose(conn);
    for _ in 0..2 {
        world.lose(conn);
        world.end(conn);
        world.receive(conn, OK);
        world.input(|calls, ctx| calls.connected(conn, ctx));
    }
    world.input(|calls, ctx| calls.resolved("nobody", Err("asked"), ctx));
    assert_eq!(world.sent(), []);
    assert_eq!(world.calls.unfinished(), 1);
}

#[test]
fn deadlines_stay_few_however_many_calls_there_are() {
    let mut world = World::with(|http| http.keepalive_timeout = seconds(0.001));
    for round in 0..20_000 {
        world.message(&url());
        let conn = if round == 0 { world.accept().0 } else { world.reuse().0 };
        world.advance(0.002);
        world.receive(conn, OK);
        world.ended_calls();
    }
    assert!(world.calls.deadlines.len() <= 80, "{}", world.calls.deadlines.len());
}
