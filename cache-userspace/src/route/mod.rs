//! What is done with a request: cached by the rules of its destination, or only passed on.
//!
//! Without a cluster and without policies there is one rule set for everything, and the switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::admin::{Position, Switch};
use crate::policy::Rules;

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// It may be answered from the store, by these rules.
    Cache(&'a Arc<Rules>),
    /// It is only forwarded; the word says why (RFC 9211 `detail`).
    Bypass(&'static str),
}

/// Finds the route of a request.
pub struct Routes {
    rules: Arc<Rules>,
    switch: Arc<Switch>,
    is_ending: AtomicBool,
}

impl Routes {
    /// The same rules for every destination, while the switch is on.
    pub fn new(rules: Rules, switch: Arc<Switch>) -> Self {
        Self { rules: Arc::new(rules), switch, is_ending: AtomicBool::new(false) }
    }

    /// The rules, whatever the switch says.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Ends each connection with its next answer from now on, so that the client's next one goes direct.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Whether a connection may go on after its next answer.
    pub fn lets_stay(&self) -> bool {
        !self.is_ending.load(Ordering::Relaxed) && matches!(self.find(), Route::Cache(_))
    }

    /// The route of the next request.
    pub fn find(&self) -> Route<'_> {
        match self.switch.in_effect() {
            Position::On => Route::Cache(&self.rules),
            Position::Off => Route::Bypass("off"),
        }
    }
}
