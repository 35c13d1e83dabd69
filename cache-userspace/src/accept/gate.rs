//! Whether new connections of a workload are redirected: not while too many are open. What was redirected already is
//! served whatever the limits say, since it cannot go direct any more; pausing is what keeps it few.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Descriptors that are not for connections: the runtime, the kernel's maps and programs, logs, the admin socket.
const DESCRIPTORS_RESERVED: usize = 64;
/// Descriptors of one workload: links, listeners, cgroup, network namespace.
const DESCRIPTORS_PER_WORKLOAD: usize = 16;
/// Descriptors of one connection: its own, and one upstream.
const DESCRIPTORS_PER_CONNECTION: usize = 2;
/// How often accepting is looked over before a pause for want of descriptors ends.
const EXHAUSTED_REVIEWS: u8 = 2;

/// How many connections of all workloads the descriptors of the process are enough for.
#[derive(Debug)]
pub struct Budget {
    descriptors: usize,
    workloads: AtomicUsize,
    open: AtomicUsize,
}

impl Budget {
    /// A budget for a process that may open so many files.
    pub fn new(descriptors: usize) -> Self {
        Self { descriptors, workloads: AtomicUsize::new(0), open: AtomicUsize::new(0) }
    }

    fn is_spent(&self) -> bool {
        let workloads = self.workloads.load(Ordering::Relaxed);
        let others = DESCRIPTORS_RESERVED + workloads * DESCRIPTORS_PER_WORKLOAD;
        let connections_max = self.descriptors.saturating_sub(others) / DESCRIPTORS_PER_CONNECTION;
        self.open.load(Ordering::Relaxed) >= connections_max
    }
}

/// The gate of one workload.
pub struct Gate {
    budget: Arc<Budget>,
    open_max: usize,
    tell: Box<dyn Fn(bool) + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: usize,
    exhausted: u8,
    is_paused: bool,
    has_ended: bool,
}

/// One open connection; it counts until this is dropped.
pub struct Place(Arc<Gate>);

impl Gate {
    /// An open gate. `tell` is called with true where new connections are to go direct, with false where they are to
    /// come again; never twice with the same, never by two threads at once, and not after `end`.
    pub fn new(budget: Arc<Budget>, open_max: usize, tell: Box<dyn Fn(bool) + Send + Sync>) -> Self {
        budget.workloads.fetch_add(1, Ordering::Relaxed);
        Self { budget, open_max, tell, state: Mutex::default() }
    }

    /// Counts a connection that was accepted, and says whether it is beyond a limit.
    pub fn enter(self: &Arc<Self>) -> (Place, bool) {
        self.budget.open.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        let was_paused = state.is_paused;
        state.open += 1;
        self.follow(&mut state);
        drop(state);
        (Place(self.clone()), was_paused)
    }

    /// Pauses for a while: nothing more could be accepted.
    pub fn exhausted(&self) {
        let mut state = self.lock();
        state.exhausted = EXHAUSTED_REVIEWS;
        self.follow(&mut state);
    }

    /// Looks whether a pause may end; to be called about once a second.
    pub fn review(&self) {
        let mut state = self.lock();
        state.exhausted = state.exhausted.saturating_sub(1);
        self.follow(&mut state);
    }

    /// Nothing is told any more: the workload, if it is known at all, is another enrolment's.
    pub fn end(&self) {
        self.lock().has_ended = true;
    }

    fn follow(&self, state: &mut State) {
        // Distance between the limit and coming back, so that it is not told of every connection.
        let open_max = if state.is_paused { self.open_max - self.open_max / 16 } else { self.open_max };
        let is_paused = state.exhausted > 0 || state.open >= open_max || self.budget.is_spent();
        if is_paused != state.is_paused && !state.has_ended {
            state.is_paused = is_paused;
            (self.tell)(is_paused);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of `tell` leaves the counts as they are.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.budget.workloads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.budget.open.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.0.lock();
        state.open -= 1;
        self.0.follow(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(budget: &Arc<Budget>, open_max: usize) -> (Arc<Gate>, Arc<Mutex<Vec<bool>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = told.clone();
        let tell = Box::new(move |is_paused| telling.lock().unwrap().push(is_paused));
        (Arc::new(Gate::new(budget.clone(), open_max, tell)), told)
    }

    fn plenty() -> Arc<Budget> {
        Arc::new(Budget::new(1 << 20))
    }

    #[test]
    fn at_the_limit_new_connections_go_direct_until_some_have_ended() {
        let (gate, told) = gate(&plenty(), 32);
        let mut places: Vec<_> = (0..32).map(|_| gate.enter()).collect();
        assert_eq!(*told.lock().unwrap(), [true]);
        assert!(places.iter().all(|(_, is_over)| !is_over));

        // Redirected a moment before: served, and counted as too many.
        let (late, is_over) = gate.enter();
        assert!(is_over);
        drop(late);
        places.pop();
        places.pop();
        assert_eq!(*told.lock().unwrap(), [true]);
        places.pop();
        assert_eq!(*told.lock().unwrap(), [true, false]);
    }

    #[test]
    fn after_the_end_nothing_is_told() {
        let (gate, told) = gate(&plenty(), 1);
        gate.end();
        let place = gate.enter();
        gate.exhausted();
        drop(place);
        gate.review();
        assert!(told.lock().unwrap().is_empty());
    }

    #[test]
    fn a_pause_for_want_of_descriptors_ends_after_two_quiet_reviews() {
        let (gate, told) = gate(&plenty(), 32);
        gate.exhausted();
        gate.review();
        gate.exhausted();
        gate.review();
        assert_eq!(*told.lock().unwrap(), [true]);
        gate.review();
        assert_eq!(*told.lock().unwrap(), [true, false]);
    }

    #[test]
    fn all_workloads_together_leave_descriptors_for_upstream() {
        let others = DESCRIPTORS_RESERVED + 2 * DESCRIPTORS_PER_WORKLOAD;
        let budget = Arc::new(Budget::new(others + 4 * DESCRIPTORS_PER_CONNECTION));
        let ((a, a_told), (b, b_told)) = (gate(&budget, 32), gate(&budget, 32));
        let _first: Vec<_> = (0..3).map(|_| a.enter()).collect();
        assert!(a_told.lock().unwrap().is_empty());
        let fourth = b.enter();
        assert_eq!(*b_told.lock().unwrap(), [true]);
        a.review();
        assert_eq!(*a_told.lock().unwrap(), [true]);

        drop(fourth);

        a.review();
        assert_eq!((*a_told.lock().unwrap()).last(), Some(&false));
        assert_eq!(*b_told.lock().unwrap(), [true, false]);
    }
}
