//! Why something was not looked up or not stored: one word each, the same in `Cache-Status`, metrics and logs.
//!
//! Pure data; `eligible` and `storing` choose the word, `store` and `respond` pass it on.

use std::fmt;

/// Why a request is not looked up or a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The method is none of GET, HEAD and QUERY, or not one that stores.
    Method,
    /// The request has several Range fields (RFC 9110 §14.2), or one and a method for which it is not defined.
    Range,
    /// The request is conditional (RFC 9110 §13.1).
    Conditional,
    /// The request says `no-store` (RFC 9111 §5.2.1.5).
    RequestNoStore,
    /// The request nominates end-to-end fields as connection options (RFC 9110 §7.6.1).
    ConnectionOption,
    /// The request wants another protocol (RFC 9110 §7.8).
    Upgrade,
    /// The request expects an interim answer (RFC 9110 §10.1.1).
    Expect,
    /// The request has content and its method gives it no meaning.
    Content,
    /// The content of a QUERY (RFC 10008) is larger than what is looked up by.
    ContentTooLarge,
    /// The content of a QUERY did not come in time, or not to its end.
    ContentLate,
    /// The contents of other QUERYs leave no room for this one's.
    ContentRoom,
    /// The request has no usable Host (RFC 9110 §7.2).
    Host,
    /// The request asks for somebody's health, which must never come from a cache.
    HealthPath,
    /// The status code is not one that is stored (RFC 9111 §3).
    Status,
    /// The response is a part of a representation, of which too little is known (RFC 9111 §3.3).
    Partial,
    /// `Cache-Control` or `Vary` cannot be read with certainty.
    Malformed,
    /// The response says `no-store` (RFC 9111 §5.2.2.5).
    ResponseNoStore,
    /// The response says `no-cache` (RFC 9111 §5.2.2.4) and has nothing to validate it with.
    ResponseNoCache,
    /// The response says `private` (RFC 9111 §5.2.2.7).
    Private,
    /// The request was authorized and the response does not allow sharing (RFC 9111 §3.5).
    Authorization,
    /// The response sets a cookie and does not say that it may be shared (RFC 9111 §7.3).
    SetCookie,
    /// The request carries cookies and the response does not say that it is for everybody.
    Cookie,
    /// The response varies on something that no request tells (RFC 9111 §4.1).
    VaryStar,
    /// The response varies by identity: Cookie or Authorization.
    VaryCookie,
    /// The response belongs to more groups, or to groups with longer names, than are remembered (RFC 9875 §2).
    Groups,
    /// The response has no freshness lifetime (RFC 9111 §4.2.1) and nothing to validate it with.
    NoFreshness,
    /// The response was stale when it arrived (RFC 9111 §4.2) and has nothing to validate it with.
    Expired,
    /// Only the end of the connection ended the content.
    DelimitedByClose,
    /// The response came on a connection that belongs to one client: by a login, or since an answer on it may have
    /// been followed by content that nobody asked for.
    Connection,
    /// The response, or a QUERY, has a trailer section.
    Trailers,
    /// The content exceeds the limit of an object.
    TooLarge,
    /// The store's byte budget is used up.
    StoreFull,
    /// A purge or an unsafe request concerned the resource since the forward began.
    Purged,
    /// The content ended before its announced length (RFC 9111 §3.3).
    Incomplete,
    /// What was to be updated was replaced or evicted meanwhile.
    Superseded,
    /// The store is nearly full, and what would have to give way is asked for more often.
    Admission,
    /// The owner has its share of the store.
    Quota,
}

impl Reason {
    /// The word, fit for an RFC 9211 `detail` as token and as string.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Range => "range",
            Self::Conditional => "conditional",
            Self::RequestNoStore => "request-no-store",
            Self::ConnectionOption => "connection-option",
            Self::Upgrade => "upgrade",
            Self::Expect => "expect",
            Self::Content => "content",
            Self::ContentTooLarge => "content-too-large",
            Self::ContentLate => "content-late",
            Self::ContentRoom => "content-room",
            Self::Host => "host",
            Self::HealthPath => "health-path",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::Malformed => "malformed",
            Self::ResponseNoStore => "response-no-store",
            Self::ResponseNoCache => "response-no-cache",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::Cookie => "cookie",
            Self::VaryStar => "vary-star",
            Self::VaryCookie => "vary-cookie",
            Self::Groups => "groups",
            Self::NoFreshness => "no-freshness",
            Self::Expired => "expired",
            Self::DelimitedByClose => "delimited-by-close",
            Self::Connection => "connection",
            Self::Trailers => "trailers",
            Self::TooLarge => "too-large",
            Self::StoreFull => "store-full",
            Self::Purged => "purged",
            Self::Incomplete => "incomplete",
            Self::Superseded => "superseded",
            Self::Admission => "admission",
            Self::Quota => "quota",
        }
    }

    /// The word of RFC 9211 §2.2 for a request that was forwarded for this reason without being looked up.
    pub fn fwd(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request",
            _ => "bypass",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
