//! The content of a QUERY (RFC 10008): read before the look-up, since it is part of the key, and kept until the answer
//! comes, so that it can be sent and sent again.
//!
//! What is too large, too slow or not alone is not looked up; what was read of it then goes forward before the rest.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::{Path, is_query};
use crate::forward::{ForwardError, RequestBody};
use crate::http1::{Fields, Framing, Piece, RequestHead, encode};
use crate::policy::Reason;

/// What was read of a request's content before the request goes forward; by default nothing.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    /// Whether that is all of it, in a request that may be looked up.
    pub(super) is_whole: bool,
    /// Why the request is not to be looked up.
    pub(super) refusal: Option<Reason>,
    is_chunked: bool,
    /// There where the end was read.
    trailers: Option<Arc<Fields>>,
    /// Its share of what all contents together may have.
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Content {
    /// Nothing was read of it, since its request is not to be looked up.
    pub(super) fn refused(reason: Reason) -> Self {
        Self { refusal: Some(reason), ..Self::default() }
    }

    /// Writes it as its request frames it.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        if self.is_chunked && !self.bytes.is_empty() {
            out.put_slice(&encode::chunk_start(self.bytes.len()));
        }
        out.put_slice(&self.bytes);
        if self.is_chunked && !self.bytes.is_empty() {
            out.put_slice(b"\r\n");
        }
        if let Some(trailers) = &self.trailers {
            out.put_slice(&encode::chunked_end(Some(trailers)));
        }
    }
}

impl Path {
    /// Reads the content of a QUERY, as far as it may be looked up by it; nothing of another request.
    ///
    /// # Errors
    /// `ForwardError::BadContent`, `ForwardError::ClientGone`.
    pub(super) async fn content(
        &self,
        request: &RequestHead,
        body: &mut RequestBody<'_>,
    ) -> Result<Content, ForwardError> {
        if !is_query(request) {
            return Ok(Content::default());
        }
        let is_chunked = request.framing == Framing::Chunked;
        let bytes_max = self.limits.query_content_bytes_max;
        let expected = match request.framing {
            Framing::Length(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            Framing::Chunked | Framing::UntilClose => bytes_max,
            Framing::Empty => 0,
        };
        if expected > bytes_max {
            return Ok(Content::refused(Reason::ContentTooLarge));
        }
        let room =
            u32::try_from(expected).ok().and_then(|n| self.contents.clone().try_acquire_many_owned(n).ok());
        let Some(room) = room else { return Ok(Content::refused(Reason::ContentRoom)) };
        let until = Instant::now() + self.limits.query_content_timeout;
        let (mut bytes, mut trailers) = (Vec::new(), None);
        let refusal = loop {
            while let Some(piece) = body.decode().map_err(ForwardError::BadContent)? {
                match piece {
                    Piece::Data(data) => bytes.extend_from_slice(&data),
                    Piece::End(fields) => trailers = Some(fields),
                }
            }
            if bytes.len() > bytes_max {
                break Some(Reason::ContentTooLarge);
            }
            if body.is_done() {
                let has_trailers = trailers.as_ref().is_some_and(|fields| !fields.is_empty());
                break has_trailers.then_some(Reason::Trailers);
            }
            match timeout_at(until, body.more()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) | Err(_) => break Some(Reason::ContentLate),
                Ok(Err(_)) => return Err(ForwardError::ClientGone),
            }
        };
        Ok(Content {
            bytes: bytes.into(),
            is_whole: refusal.is_none(),
            refusal,
            is_chunked,
            trailers: trailers.map(Arc::new),
            _room: Some(Arc::new(room)),
        })
    }
}
