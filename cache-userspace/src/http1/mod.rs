//! HTTP/1 as bytes: heads, fields and message framing, for both sides of the daemon.
//!
//! Pure: no sockets, no clock. Reading and writing are left to `downstream` and `forward`.

pub mod body;
pub mod encode;
pub mod fields;
pub mod head;
pub mod scan;

pub use body::{Decoder, Framing, Piece};
pub use fields::{Fields, Names};
pub use head::{Parsed, RequestHead, ResponseHead, Version};
