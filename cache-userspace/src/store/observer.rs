//! Whoever keeps copies of stored responses elsewhere is told here what has become of them.

use super::PurgePlace;

/// Is told of changes, after each and before whoever caused it goes on.
///
/// Evictions are changes too: what an origin says later of what is not stored would not be told. Called without any lock of the store held.
pub trait Observer: Send + Sync {
    /// Other responses are stored under a key than before.
    fn changed(&self, key: &[u8]);
    /// What stands in this place of the purge log is dead.
    fn invalidated(&self, place: PurgePlace);
    /// Everything is dead.
    fn cleared(&self);
}
