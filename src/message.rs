//! Plain values that several rooms speak of.

use std::rc::Rc;

use crate::arena::{SessionId, SubscriptionId};
use crate::config::Url;

/// The texts that clients see; the original's, to the letter.
pub mod refusal {
    pub const INVALID_EVENT: &str = "Messages must be JSON and contain an event field.";
    pub const EVENT_NOT_FOUND: &str = "Event not found.";
    pub const AUTH_UNSUPPORTED: &str = "Authentication method unsupported.";
    pub const NEEDS_TICKET: &str = "Must specify ticket.";
    pub const AUTH_FAILED: &str = "Authentication failed.";
    pub const AUTH_REQUIRED: &str = "Authentication required.";
    pub const INVALID_SUBSCRIPTION: &str = "Invalid subscription format.";
    pub const INVALID_SERVICE: &str = "Invalid service.";
    pub const ALREADY_SUBSCRIBED: &str = "Already subscribed.";
    pub const NOT_SUBSCRIBED: &str = "Subscription does not exist.";
    pub const TOO_MANY_SUBSCRIPTIONS: &str = "Too many subscriptions.";
    pub const UNAUTHORIZED: &str = "Unauthorized.";
    pub const UNHANDLED: &str = "Unhandled exception.";
    pub const SERVICE_UNAVAILABLE: &str = "Service unavailable.";
}

/// The callbacks that a service can have, by their configuration keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hook {
    /// An authentication method's `validation_url`.
    Validation,
    Authorizer,
    BeforeSubscribe,
    OnSubscribe,
    OnMessage,
    BeforeUnsubscribe,
    OnUnsubscribe,
    OnAuthorizationChange,
    OnHeartbeat,
}

impl Hook {
    pub const COUNT: usize = 9;

    pub fn name(self) -> &'static str {
        match self {
            Hook::Validation => "validation_url",
            Hook::Authorizer => "authorizer",
            Hook::BeforeSubscribe => "before_subscribe",
            Hook::OnSubscribe => "on_subscribe",
            Hook::OnMessage => "on_message",
            Hook::BeforeUnsubscribe => "before_unsubscribe",
            Hook::OnUnsubscribe => "on_unsubscribe",
            Hook::OnAuthorizationChange => "on_authorization_change",
            Hook::OnHeartbeat => "on_heartbeat",
        }
    }
}

/// Who waits for a callback's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The event that the session is handling, its farewell included.
    Event(SessionId),
    /// The periodic authorization of a subscription.
    Renewal(SubscriptionId),
    /// The ending of a subscription whose authorization has expired.
    Expiry(SubscriptionId),
    /// The heartbeat of a subscription.
    Heartbeat(SubscriptionId),
}

/// A callback to be made.
#[derive(Debug)]
pub struct Call {
    /// The service's name, or the authentication method's (`Hook::Validation`).
    pub lane: Rc<str>,
    pub hook: Hook,
    pub url: Rc<Url>,
    /// A JSON object.
    pub body: Vec<u8>,
    pub owner: Owner,
}

/// What became of a callback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The service answered with a JSON object (checked, nesting bounded): its text.
    Object(Box<str>),
    /// All tries failed, or the queue was full.
    Unavailable,
}

/// The WebSocket close codes (RFC 6455, section 7.4.1) that this server sends on its own.
pub mod close_code {
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const INVALID_PAYLOAD: u16 = 1007;
    pub const TOO_BIG: u16 = 1009;
    /// Sent on a ping time-out.
    pub const INTERNAL_ERROR: u16 = 1011;
    /// Redis was lost: messages may have been missed.
    pub const SERVICE_RESTART: u16 = 1012;
    /// The client reads too slowly.
    pub const TRY_AGAIN_LATER: u16 = 1013;
}
