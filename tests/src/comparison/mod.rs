//! Sidestep beside what people use today: `cargo xtask bench`.
//!
//! `plan` says what is measured, `site` makes a way of reaching the origin with a node and pods of its own, `load` asks,
//! `cost` reads what that took; `figures` is what comes out, and `report` shows it. Everything but the measuring itself
//! is pure.

pub mod awake;
pub mod cost;
pub mod figures;
pub mod load;
pub mod plan;
pub mod report;
pub mod run;
pub mod site;
