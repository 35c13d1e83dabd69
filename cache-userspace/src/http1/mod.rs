//! HTTP/1 as bytes: heads, fields and message framing, for both sides of the daemon. No sockets here.

pub mod fields;

pub use fields::Fields;
