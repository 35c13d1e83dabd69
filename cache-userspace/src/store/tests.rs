//! The store under its limits, under threads and under invalidation.
