//! What a run found, as people and programs read it: `report.json`, tables for a terminal, a page with plots, the
//! README's section, which targets are met, and what moved since another run.
//!
//! Everything here makes text of a [`Report`] and touches no file; measuring is left to its neighbours.

pub mod compare;
#[cfg(test)]
mod example;
mod find;
mod floor;
pub mod html;
mod numbers;
pub mod plots;
pub mod readme;
mod summary;
pub mod table;
pub mod targets;
pub mod unsuited;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::figures::{Report, SCHEMA};

/// Writes `report.json`.
///
/// # Errors
/// If a figure is no number, which JSON cannot say and [`read`] would refuse.
pub fn json(report: &Report) -> Result<String> {
    let mut text = serde_json::to_string_pretty(report).context("the report")?;
    text.push('\n');
    read(&text).context("the report holds a figure that is no number")?;
    Ok(text)
}

/// Reads a `report.json`.
///
/// # Errors
/// If it is no JSON, of a schema that is not [`SCHEMA`], or lacks a field.
pub fn read(text: &str) -> Result<Report> {
    let value: Value = serde_json::from_str(text).context("the report is no JSON")?;
    let schema = value.get("schema").context("the report names no schema")?;
    ensure!(
        schema.as_u64() == Some(u64::from(SCHEMA)),
        "the report has schema {schema}, and this program knows {SCHEMA} only: measure again, or read it with the \
         program of its commit"
    );
    serde_json::from_value(value).context("the report")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_as_it_was() {
        let report = example::report();
        assert_eq!(read(&json(&report).unwrap()).unwrap(), report);
    }

    #[test]
    fn another_schema_is_refused_with_both_numbers() {
        let text = json(&example::report()).unwrap().replacen("\"schema\": 1", "\"schema\": 7", 1);
        let why = format!("{:#}", read(&text).unwrap_err());
        assert!(why.contains("schema 7") && why.contains("knows 1"), "{why}");
        assert!(format!("{:#}", read("{}").unwrap_err()).contains("names no schema"));
        assert!(read("<html>").is_err());
    }

    #[test]
    fn a_figure_that_is_no_number_is_not_written() {
        let mut report = example::report();
        report.rows[0].open.rate = f64::NAN;
        assert!(json(&report).is_err());
    }
}
