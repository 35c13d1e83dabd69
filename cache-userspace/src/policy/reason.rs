//! Why something was not looked up or not stored: one word each, the same in `Cache-Status`, metrics and logs, and one
//! sentence each, for `explain`.
//!
//! Pure data; `eligible` and `storing` choose the word, `store` and `respond` pass it on.

use std::fmt;

/// Makes the enum of its table: the sentence is the documentation too.
macro_rules! reasons {
    ($($name:ident $word:literal $sentence:literal)*) => {
        /// Why a request is not looked up or a response is not stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $sentence] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of [`Reason::code`].
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word, fit for an RFC 9211 `detail` as token and as string.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// One sentence for people, with the clause.
            pub fn in_words(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

reasons! {
    Method "method"
        "The method is not one that stored responses answer (GET, HEAD, QUERY), or not one whose answers are stored."
    Range "range"
        "The request has several Range fields (RFC 9110 §14.2), or one and a method for which it is not defined."
    Conditional "conditional"
        "The request has a condition that only the origin server can judge (RFC 9110 §13.1)."
    RequestNoStore "request-no-store"
        "The request says `no-store` (RFC 9111 §5.2.1.5)."
    ConnectionOption "connection-option"
        "The request nominates end-to-end fields as connection options (RFC 9110 §7.6.1)."
    Upgrade "upgrade"
        "The request wants another protocol (RFC 9110 §7.8)."
    Expect "expect"
        "The request expects an interim answer (RFC 9110 §10.1.1)."
    Content "content"
        "The request has content and its method gives it no meaning."
    ContentTooLarge "content-too-large"
        "The content of the QUERY (RFC 10008) is larger than what is looked up by."
    ContentLate "content-late"
        "The content of the QUERY did not come in time, or not to its end."
    ContentRoom "content-room"
        "The contents of other QUERYs leave no room for this one's."
    Host "host"
        "The request has no usable Host (RFC 9110 §7.2)."
    HealthPath "health-path"
        "The request asks for somebody's health, which must never come from a cache: by its path, or as a kubelet's probe."
    Status "status"
        "The status code is not one that is stored (RFC 9111 §3)."
    Partial "partial"
        "The response is a part of a representation, of which too little is known (RFC 9111 §3.3)."
    Malformed "malformed"
        "`Cache-Control` or `Vary` cannot be read with certainty."
    ResponseNoStore "response-no-store"
        "The response says `no-store` (RFC 9111 §5.2.2.5)."
    ResponseNoCache "response-no-cache"
        "The response says `no-cache` (RFC 9111 §5.2.2.4) and has nothing to validate it with."
    Private "private"
        "The response says `private` (RFC 9111 §5.2.2.7)."
    Authorization "authorization"
        "The request was authorized and the response does not allow sharing (RFC 9111 §3.5)."
    SetCookie "set-cookie"
        "The response sets a cookie and does not say that it may be shared (RFC 9111 §7.3)."
    Cookie "cookie"
        "The request carries cookies and the response does not say that it is for everybody."
    VaryStar "vary-star"
        "The response varies on something that no request tells (RFC 9111 §4.1)."
    VaryCookie "vary-cookie"
        "The response varies by identity: Cookie or Authorization."
    Groups "groups"
        "The response belongs to more groups, or to groups with longer names, than are remembered (RFC 9875 §2)."
    NoFreshness "no-freshness"
        "The response has no freshness lifetime (RFC 9111 §4.2.1); to be kept for validation it must have an ETag or \
         Last-Modified and, in safe, explicitly allow reuse."
    Expired "expired"
        "The response was stale when it arrived (RFC 9111 §4.2) and has nothing to validate it with."
    ForOne "for-one"
        "The response is stored, but each request must validate it for itself (RFC 9111 §5.2.2.4), so that nobody waits for \
         another's answer."
    DelimitedByClose "delimited-by-close"
        "Only the end of the connection ended the content: cut short, it would look complete (RFC 9112 §6.3)."
    Connection "connection"
        "The response came on a connection that belongs to one client: by a login, or since an answer on it may have been \
         followed by content that nobody asked for."
    Trailers "trailers"
        "The response, or a QUERY, has a trailer section."
    TooLarge "too-large"
        "The content exceeds the limit of an object."
    StoreFull "store-full"
        "The store's byte budget is used up."
    Purged "purged"
        "A purge or an unsafe request concerned the resource since the forward began."
    Incomplete "incomplete"
        "The content ended before its announced length (RFC 9111 §3.3)."
    Superseded "superseded"
        "What was to be updated was replaced or evicted meanwhile."
    Admission "admission"
        "The store is nearly full, and what would have to give way is asked for more often."
    MeshReply "mesh-reply"
        "A proxy of the mesh gave the answer, not the origin server."
    Settling "settling"
        "The service, who is behind it or its routes changed a moment ago: proxies may still work by what was before."
    Off "off"
        "The switch is off: new connections go direct, and what still comes here is only forwarded."
    NoService "no-service"
        "The address of the connection is no longer a service's that is known to speak HTTP."
    ForeignHost "foreign-host"
        "The Host is none of the service's names, and a mesh may send the request elsewhere by it."
    Split "split"
        "A route of the mesh divides requests between several destinations."
    Mirror "mirror"
        "A route of the mesh sends requests to somebody else besides."
    Fault "fault"
        "A route of the mesh injects faults."
    Affinity "affinity"
        "The mesh sends requests of one client to one server."
    RateLimit "rate-limit"
        "The mesh counts requests."
    Claims "claims"
        "The mesh looks into tokens to decide who may ask."
    Condition "policy-condition"
        "A policy of the mesh has a condition that a cache cannot judge."
    ExternalAuthorization "ext-authz"
        "The mesh asks somebody else who may ask."
    Filter "filter"
        "A filter in the mesh's proxies may do anything."
    DirectResponse "direct-response"
        "A route of the mesh answers or redirects requests itself."
    ServiceEntry "service-entry"
        "A ServiceEntry speaks of the host, and who is behind it is not known."
    Elsewhere "elsewhere"
        "A route of the mesh leads to what is no service of the cluster."
    UnknownRoute "unknown-route"
        "A route or policy of the mesh has parts that are not understood."
    Unreadable "unreadable-policy"
        "Routes or policies cannot be read."
    PolicyOff "policy-off"
        "A CachePolicy says that answers of this service are not given from the cache."
    Quota "quota"
        "The owner has its share of the store."
}

impl Reason {
    /// Bits that a code takes.
    pub const CODE_BITS: u32 = 6;

    /// A number for it, below 2^[`Reason::CODE_BITS`]; it means something within this process only.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason of a number.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
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

const _: () = assert!(Reason::ALL.len() <= 1 << Reason::CODE_BITS);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_a_code_and_a_sentence() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(usize::from(reason.code()), index);
            assert_eq!(Reason::of_code(reason.code()), Some(*reason));
            let word = reason.as_str();
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{word}");
            assert_eq!(Reason::ALL.iter().filter(|other| other.as_str() == word).count(), 1, "{word}");
            assert!(reason.in_words().ends_with('.'), "{word}");
        }
        assert_eq!(Reason::of_code(63), None);
    }
}
