//! Sidestep beside what people use today: `cargo xtask bench`.
//!
//! `plan` says what is measured, `topology` makes the node with its pods, `modes` puts each way of reaching the origin
//! into it, `load` asks, `cost` reads what that took; `figures` is what comes out, and `report` shows it. Everything but
//! the measuring itself is pure.

pub mod figures;
pub mod plan;
pub mod report;
