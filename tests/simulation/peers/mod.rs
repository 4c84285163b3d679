//! Everybody that the program talks with: clients, services, Redis servers, publishers. Each says
//! what it sends; the world sees to it that this arrives, or not.

pub mod answers;
pub mod asks;
pub mod client;
pub mod publisher;
pub mod redis;
