//! Slots, queues and what is refused.

use super::*;
use crate::limits::QUEUED_BYTES_MAX;

#[test]
fn slots_are_each_lanes_own() {
    let mut world = World::with(|http| http.max_connections_per_host = 2);
    for _ in 0..4 {
        world.message(&url());
    }
    assert_eq!(world.dialled().len(), 2, "two slots");
    world.start("films", Hook::OnMessage, &url());
    assert_eq!(world.dialled().len(), 1, "another service");
    world.start("books", Hook::Validation, &url());
    assert_eq!(world.dialled().len(), 1, "a method of the same name");
    world.message(&url_at("10.0.0.2", "/"));
    assert_eq!(world.dialled().len(), 1, "another origin");
    world.start("books", Hook::OnSubscribe, &url_at("10.0.0.1", "/else"));
    assert_eq!(world.dialled().len(), 0, "another hook of the same service");
    assert_eq!(world.calls.unfinished(), 8);
}

#[test]
fn the_queue_keeps_order() {
    let mut world = World::with(|http| http.max_connections_per_host = 1);
    for _ in 0..5 {
        world.message(&url());
    }
    let (conn, mut request) = world.accept();
    for n in 0..5 {
        assert_eq!(body_of(&request), format!("{{\"n\":{n}}}"));
        world.receive(conn, OK);
        assert_eq!(world.ended_calls(), [(n, true)]);
        if n < 4 {
            (_, request) = world.reuse();
        }
    }
}

#[test]
fn a_queue_is_full_by_its_bytes_too() {
    let mut world = World::with(|http| http.max_connections_per_host = 1);
    let most = QUEUED_BYTES_MAX;
    world.message(&url());
    assert!(!world.calls.is_full("books", &world.http));
    world.long(Hook::OnMessage, most / 2);
    let over = world.long(Hook::OnMessage, most / 2);
    assert_eq!(world.ended_calls(), [(over, false)]);
    world.message(&url());
    world.long(Hook::OnUnsubscribe, most / 2);
    assert_eq!(world.ended_calls(), [], "a short one fits in, a farewell always");
    assert!(
        world.calls.is_full("books", &world.http) && !world.calls.is_full("films", &world.http)
    );
    let over = world.message(&url());
    assert_eq!(world.ended_calls(), [(over, false)]);
}

#[test]
fn a_full_queue_refuses_all_but_farewells() {
    let mut world = World::with(|http| {
        http.max_connections_per_host = 1;
        http.max_queued_per_host = 4;
    });
    world.message(&url());
    world.start("books", Hook::OnHeartbeat, &url());
    world.start("books", Hook::OnHeartbeat, &url());
    assert_eq!(world.ended_calls(), []);
    let third = world.start("books", Hook::OnHeartbeat, &url());
    assert_eq!(world.ended_calls(), [(third, false)], "half full");
    world.message(&url());
    world.message(&url());
    assert_eq!(world.ended_calls(), []);
    let over = world.message(&url());
    assert_eq!(world.ended_calls(), [(over, false)], "full");
    world.start("books", Hook::BeforeUnsubscribe, &url());
    world.start("books", Hook::OnUnsubscribe, &url());
    assert_eq!(world.ended_calls(), []);
    let over = world.message(&url());
    assert_eq!(world.ended_calls(), [(over, false)]);
    assert_eq!(world.log.take().lines().count(), 1, "one line for one jam");
    assert_eq!(world.results("books", Hook::OnMessage)[CallResult::Dropped as usize], 2);
    assert_eq!(world.results("books", Hook::OnHeartbeat)[CallResult::Dropped as usize], 1);
    world.start("films", Hook::OnHeartbeat, &url());
    assert_eq!(world.ended_calls(), [], "another service's queue");
}

#[test]
fn a_resting_call_holds_no_slot_and_goes_before_new_ones() {
    let mut world = World::with(|http| {
        http.max_connections_per_host = 1;
        http.wait = seconds(0.5);
    });
    for _ in 0..3 {
        world.message(&url());
    }
    let (conn, _) = world.accept();
    world.receive(conn, ERROR);
    assert_eq!(body_of(&world.reuse().1), "{\"n\":1}");
    world.advance(1.0);
    assert_eq!(world.sent(), [], "no slot yet");
    world.receive(conn, OK);
    assert_eq!(body_of(&world.reuse().1), "{\"n\":0}");
    world.receive(conn, OK);
    assert_eq!(body_of(&world.reuse().1), "{\"n\":2}");
}

#[test]
fn resting_calls_count_as_queued() {
    let mut world = World::with(|http| {
        http.max_connections_per_host = 1;
        http.max_queued_per_host = 1;
    });
    world.message(&url());
    let (conn, _) = world.accept();
    world.receive(conn, ERROR);
    world.message(&url());
    assert_eq!(world.ended_calls(), [], "a free slot admits");
    world.message(&url());
    assert_eq!(world.ended_calls(), [(2, false)]);
}
