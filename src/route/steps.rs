//! THE table: what a session does next. The order of callbacks is the contract with services; it
//! stands here and nowhere else.
//!
//! A session handles one event at a time. Each step waits for one thing; a callback that is not
//! configured counts as answered yes at once.

use crate::message::Hook;

/// What a session is waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: the next event can begin.
    Idle,
    Authenticating,
    Authorizing,
    /// Redis has not confirmed the channel yet.
    Joining,
    BeforeSubscribe,
    /// The ok is sent; what came meanwhile goes out, a bounded part in each turn.
    SendingHeld,
    OnSubscribe,
    OnMessage,
    BeforeUnsubscribe,
    OnUnsubscribe,
    /// The subscription that the client wants to leave is being ended by its authorization.
    AwaitingExpiry,
    /// The connection has gone; its subscriptions are left one by one.
    FarewellBefore,
    FarewellOn,
}

/// What a session was waiting for, or what begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Valid client events.
    Auth,
    Subscribe,
    Message,
    Unsubscribe,
    /// An `unsubscribe` of a subscription that is being ended already.
    UnsubscribeExpiring,
    /// The next subscription of a session whose connection has gone.
    Leave,
    /// The callback said yes (or is not configured), or Redis confirmed, or what was held is sent,
    /// or the expiry is done.
    Yes,
    /// The callback said no or could not be completed, or Redis refused.
    No,
}

/// What is to be done on the way to the next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Make a callback; its answer is the next event.
    Call(Hook),
    /// Take over the authentication fields, answer ok.
    Authenticate,
    /// Take over the authorizer's fields, subscribe to the channel.
    Join,
    /// Answer ok, then send what was held.
    Confirm,
    /// Let messages go straight to the client, start renewal and heartbeat; then `on_subscribe`.
    Open,
    /// Answer with the refusal; nothing of the subscription stays behind.
    RollBack,
    /// Answer with the refusal.
    Refuse,
    /// Answer ok where the callback gave data.
    AnswerData,
    /// Stop messages, leave the channel, answer ok; then `on_unsubscribe`.
    Unsubscribe,
    /// Answer ok: another hand has ended the subscription.
    AnswerEnded,
    /// The subscription is over and done with.
    Forget,
    /// The event is over; all was said before.
    Finish,
}

/// The table. An event that a step cannot meet is a mistake of ours: `None`.
pub fn next(step: Step, event: Event) -> Option<(Step, Act)> {
    use Event as E;
    use Step as S;
    Some(match (step, event) {
        (S::Idle, E::Auth) => (S::Authenticating, Act::Call(Hook::Validation)),
        (S::Authenticating, E::Yes) => (S::Idle, Act::Authenticate),
        (S::Authenticating, E::No) => (S::Idle, Act::Refuse),

        (S::Idle, E::Subscribe) => (S::Authorizing, Act::Call(Hook::Authorizer)),
        (S::Authorizing, E::Yes) => (S::Joining, Act::Join),
        (S::Authorizing, E::No) => (S::Idle, Act::RollBack),
        (S::Joining, E::Yes) => (S::BeforeSubscribe, Act::Call(Hook::BeforeSubscribe)),
        (S::Joining, E::No) => (S::Idle, Act::RollBack),
        (S::BeforeSubscribe, E::Yes) => (S::SendingHeld, Act::Confirm),
        (S::BeforeSubscribe, E::No) => (S::Idle, Act::RollBack),
        (S::SendingHeld, E::Yes) => (S::OnSubscribe, Act::Open),
        (S::OnSubscribe, E::Yes | E::No) => (S::Idle, Act::Finish),

        (S::Idle, E::Message) => (S::OnMessage, Act::Call(Hook::OnMessage)),
        (S::OnMessage, E::Yes) => (S::Idle, Act::AnswerData),
        (S::OnMessage, E::No) => (S::Idle, Act::Refuse),

        (S::Idle, E::Unsubscribe) => (S::BeforeUnsubscribe, Act::Call(Hook::BeforeUnsubscribe)),
        (S::BeforeUnsubscribe, E::Yes) => (S::OnUnsubscribe, Act::Unsubscribe),
        (S::BeforeUnsubscribe, E::No) => (S::Idle, Act::Refuse),
        (S::OnUnsubscribe, E::Yes | E::No) => (S::Idle, Act::Forget),

        (S::Idle, E::UnsubscribeExpiring) => (S::AwaitingExpiry, Act::Finish),
        (S::AwaitingExpiry, E::Yes | E::No) => (S::Idle, Act::AnswerEnded),

        (S::Idle, E::Leave) => (S::FarewellBefore, Act::Call(Hook::BeforeUnsubscribe)),
        (S::FarewellBefore, E::Yes | E::No) => (S::FarewellOn, Act::Call(Hook::OnUnsubscribe)),
        (S::FarewellOn, E::Yes | E::No) => (S::Idle, Act::Forget),

        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the table and gives the acts.
    fn walk(events: &[Event]) -> Vec<Act> {
        let mut step = Step::Idle;
        let mut acts = Vec::new();
        for &event in events {
            let (to, act) = next(step, event).expect("the table knows this");
            step = to;
            acts.push(act);
        }
        assert_eq!(step, Step::Idle, "every story ends idle");
        acts
    }

    #[test]
    fn a_subscribe_calls_in_the_order_that_services_rely_on() {
        use Event::{No, Subscribe, Yes};
        let acts = walk(&[Subscribe, Yes, Yes, Yes, Yes, No]);
        let expected = [
            Act::Call(Hook::Authorizer),
            Act::Join,
            Act::Call(Hook::BeforeSubscribe),
            Act::Confirm,
            Act::Open,
            Act::Finish,
        ];
        assert_eq!(acts, expected);
    }

    #[test]
    fn a_subscribe_that_fails_anywhere_is_rolled_back() {
        use Event::{No, Subscribe, Yes};
        for story in [&[Subscribe, No][..], &[Subscribe, Yes, No], &[Subscribe, Yes, Yes, No]] {
            assert_eq!(walk(story).last(), Some(&Act::RollBack));
        }
    }

    #[test]
    fn a_farewell_makes_both_calls_whatever_they_answer() {
        use Event::{Leave, No, Yes};
        for (first, second) in [(Yes, Yes), (Yes, No), (No, Yes), (No, No)] {
            let expected =
                [Act::Call(Hook::BeforeUnsubscribe), Act::Call(Hook::OnUnsubscribe), Act::Forget];
            assert_eq!(walk(&[Leave, first, second]), expected);
        }
    }

    #[test]
    fn only_an_idle_session_begins_something() {
        let steps = [
            Step::Authenticating,
            Step::Joining,
            Step::SendingHeld,
            Step::OnSubscribe,
            Step::FarewellOn,
        ];
        for step in steps {
            for event in [Event::Auth, Event::Subscribe, Event::Message, Event::Leave] {
                assert_eq!(next(step, event), None);
            }
        }
    }
}
