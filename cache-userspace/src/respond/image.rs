//! A stored response as bytes that are kept: what `write` sends for a hit, with digits of fixed number for the age that
//! whoever gives it writes over them.

use bytes::{Bytes, BytesMut};
use cache_common::hot::AGE_DIGITS;

use super::{AGE, Part, Persistence, Reused, StoredResponse, end_reuse_fields, not_modified_head};

/// The bytes of an answer on a connection that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// All of it, with zeros for its age.
    pub bytes: Vec<u8>,
    /// Where the `AGE_DIGITS` digits of the age are.
    pub age_at: usize,
    /// Bytes of the content.
    pub content_bytes: usize,
}

impl Image {
    /// The bytes of a fresh response, at most `bytes_max` of them.
    pub fn of(response: &StoredResponse, bytes_max: usize) -> Option<Self> {
        let StoredResponse { entry, part, .. } = response;
        if matches!(part, Part::Whole) && entry.body_bytes > bytes_max as u64 {
            return None;
        }
        let head = match part {
            Part::NotModified => not_modified_head(&entry.stored),
            Part::Ranges(partial) => partial.head.clone(),
            Part::Whole | Part::Head => entry.head.clone(),
        };
        let mut rest = BytesMut::with_capacity(64);
        // A fresh response says nothing of its lifetime.
        end_reuse_fields(&mut rest, Reused::Hit.status(0), Persistence::Stays);
        let before = [&head[..], AGE.as_bytes()].concat();
        let mut image = Self { age_at: before.len(), bytes: before, content_bytes: 0 };
        image.bytes.extend_from_slice(&[b'0'; AGE_DIGITS]);
        image.bytes.extend_from_slice(b"\r\n");
        image.bytes.extend_from_slice(&rest);
        match part {
            Part::Whole => image.add(entry.body.iter().cloned(), bytes_max)?,
            Part::Ranges(partial) => {
                let first = entry.stored.part.map_or(0, |part| part.first);
                image.add(partial.content(&entry.body, first), bytes_max)?;
            }
            Part::Head | Part::NotModified => {}
        }
        Some(image)
    }

    fn add(&mut self, pieces: impl Iterator<Item = Bytes>, bytes_max: usize) -> Option<()> {
        for piece in pieces {
            if self.bytes.len() + piece.len() > bytes_max {
                return None;
            }
            self.bytes.extend_from_slice(&piece);
            self.content_bytes += piece.len();
        }
        Some(())
    }
}
