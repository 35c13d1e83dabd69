//! Why a hit of the daemon is not given by the kernel from now on.

macro_rules! refusals {
    ($($(#[$doc:meta])+ $variant:ident = $word:literal,)+) => {
        /// Why a response was not promoted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$doc])+ $variant,)+
        }

        impl Refusal {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it in figures.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

refusals! {
    /// Not a GET or HEAD.
    Method = "method",
    /// Not HTTP/1.1.
    Version = "version",
    /// The request has content, or says that it has none.
    Content = "content",
    /// The connection ends after the answer, or has options that the kernel does not know.
    Connection = "connection",
    /// The request has a field that is for whoever looks at each request.
    Field = "field",
    /// The head is too long, or has lines that the kernel does not look at.
    Head = "head",
    /// The response is not simply fresh.
    Stale = "stale",
    /// The response is, or becomes, older than can be written.
    Age = "age",
    /// The response is in a transfer coding, which only the end of the connection ends.
    Coded = "coded",
    /// The response answers several queries (No-Vary-Search), or another one under its path does.
    Search = "no-vary-search",
    /// A response under the key varies on a field that the kernel skips.
    Vary = "vary-skipped",
    /// The response is too large.
    TooLarge = "too-large",
    /// The workload has ended.
    Workload = "workload",
    /// Room was made for it; it is there a moment later.
    Grace = "grace",
    /// All is full, and the workload has its share.
    Quota = "quota",
    /// All is full of what is asked for more often.
    Worth = "worth",
    /// The client's lease ended meanwhile.
    Lease = "lease",
    /// The response was purged, replaced or evicted meanwhile.
    Gone = "gone",
    /// The kernel refused.
    Kernel = "kernel",
}
