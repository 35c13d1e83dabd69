//! Numbers as people read them: three significant digits, a unit of a fitting size.

use super::super::figures::{Series, Settings};

/// A unit's size and its sign, the greatest first.
type Units = [(f64, &'static str)];

const COUNT: &Units = &[(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")];
const LATENCY: &Units = &[(1e6, " s"), (1e3, " ms"), (1.0, " µs")];
const BYTES: &Units = &[(1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")];

/// A number of things, such as `950`, `1.23 k`, `47.1 k`.
pub(super) fn count(value: f64) -> String {
    with_unit(value, COUNT)
}

/// A time of so many microseconds, such as `8.65 µs`, `1.25 ms`.
pub(super) fn latency(microseconds: f64) -> String {
    with_unit(microseconds, LATENCY)
}

/// The same with its sign, for what is added.
pub(super) fn added(microseconds: f64) -> String {
    format!("{}{}", if microseconds < 0.0 { "-" } else { "+" }, latency(microseconds.abs()))
}

/// So many bytes, such as `23.4 MB`.
pub(super) fn bytes(value: f64) -> String {
    with_unit(value, BYTES)
}

/// CPU seconds for 1000 requests as milliseconds, without the unit, such as `52.3`.
pub(super) fn cpu(seconds: f64) -> String {
    significant(seconds * 1e3)
}

/// A part as one percentage with a decimal place, or none where it is whole.
pub(super) fn percent(value: f64) -> String {
    let value = if value.abs() < 0.05 { 0.0 } else { value };
    if (value - value.round()).abs() < 0.05 { format!("{value:.0} %") } else { format!("{value:.1} %") }
}

/// A multiple, such as `x 4.2`, and `1/5.6` of what is less than one.
pub(super) fn ratio(value: f64) -> String {
    ratio_of(value, 2)
}

/// The same with three digits, for what is held against a bound.
pub(super) fn ratio_fine(value: f64) -> String {
    ratio_of(value, 3)
}

fn ratio_of(value: f64, places: i32) -> String {
    match value {
        v if v.is_finite() && v > 0.0 && v < 0.95 => format!("1/{}", digits(1.0 / v, places)),
        v => format!("x {}", digits(v, places)),
    }
}

/// A median, and the least and the greatest in its unit: `47.1 k` and `45.0–48.2`.
pub(super) type Spread = (String, String);

/// Of numbers of things.
pub(super) fn count_spread(series: &Series) -> Spread {
    spread(series, COUNT)
}

/// Of latencies, microseconds.
pub(super) fn latency_spread(series: &Series) -> Spread {
    spread(series, LATENCY)
}

/// Of CPU, as [`cpu`] shows it.
pub(super) fn cpu_spread(series: &Series) -> Spread {
    spread(&Series(series.0.iter().map(|seconds| seconds * 1e3).collect()), &[(1.0, "")])
}

/// The same of numbers of things in one text: `47.1 k (45.0–48.2)`.
pub(super) fn count_with_spread(series: &Series) -> String {
    let (median, range) = count_spread(series);
    if range.is_empty() { median } else { format!("{median} ({range})") }
}

/// A multiple in a sentence, such as `4.2 times`.
pub(super) fn times(value: f64) -> String {
    format!("{} times", digits(value, 2))
}

/// Whether cores went to sleep.
pub(super) fn sleep(settings: &Settings) -> String {
    match &settings.awake {
        Some(how) => format!("Idle cores were kept awake ({how})."),
        None => "Idle cores slept.".to_owned(),
    }
}

/// Each program with its version: `Envoy 1.40.0, nginx 1.22.1`.
pub(super) fn programs(settings: &Settings) -> String {
    let programs: Vec<String> =
        settings.components.iter().map(|(name, version)| format!("{name} {version}")).collect();
    programs.join(", ")
}

/// A number of pods: `1 pod`, `50 pods`.
pub(super) fn pods(number: u32) -> String {
    format!("{number} {}", if number == 1 { "pod" } else { "pods" })
}

/// Three significant digits.
pub(super) fn significant(value: f64) -> String {
    digits(value, 3)
}

/// Breaks a text at spaces, where a line would be longer than `width` characters.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn with_unit(value: f64, units: &Units) -> String {
    let (size, sign) = unit(value, units);
    format!("{}{sign}", significant(value / size))
}

fn spread(series: &Series, units: &Units) -> Spread {
    if series.0.is_empty() {
        return ("–".to_owned(), String::new());
    }
    let (size, sign) = unit(series.median(), units);
    let [median, min, max] =
        [series.median(), series.min(), series.max()].map(|value| significant(value / size));
    let range = if series.0.len() > 1 { format!("{min}–{max}") } else { String::new() };
    (format!("{median}{sign}"), range)
}

/// The greatest unit that is not greater than the value once that is rounded.
fn unit(value: f64, units: &Units) -> (f64, &'static str) {
    let fits = |(size, _): &&(f64, &'static str)| value.abs() >= size * 0.9995;
    units.iter().find(fits).or(units.last()).copied().unwrap_or((1.0, ""))
}

/// So many significant digits, whole numbers as they are; an en dash for what is no number.
fn digits(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // As few places behind the point as show so many digits; 99.96 is 100, and 99.6 is not.
    let places = (0..=6).find(|places| {
        let shown = 10f64.powi(i32::try_from(*places).unwrap_or_default());
        value.abs() * shown >= 10f64.powi(digits - 1) - 0.05
    });
    format!("{value:.*}", places.unwrap_or(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit_that_fits() {
        assert_eq!(
            ["950", "1.23 k", "47.1 k", "412 k", "1.00 M"],
            [950.0, 1234.0, 47_100.0, 411_600.0, 999_800.0]
                .map(count)
                .map(|s| s)
                .each_ref()
                .map(String::as_str)
        );
        assert_eq!(
            ["8.65 µs", "347 µs", "1.25 ms", "0 µs"].map(str::to_owned),
            [8.65, 347.2, 1250.0, 0.0].map(latency)
        );
        assert_eq!(bytes(1.9e9), "1.90 GB");
        assert_eq!(cpu(0.000_85), "0.850");
        assert_eq!([99.6, 99.96].map(significant), ["99.6", "100"]);
        assert_eq!(significant(f64::NAN), "–");
    }

    #[test]
    fn what_is_added_has_a_sign() {
        assert_eq!([added(18.84), added(-2.5)], ["+18.8 µs", "-2.50 µs"]);
    }

    #[test]
    fn a_ratio_says_what_part_of_the_other() {
        assert_eq!(
            [4.21, 231.4, 0.179, 1.0, 0.97].map(ratio),
            ["x 4.2", "x 231", "1/5.6", "x 1.0", "x 0.97"]
        );
    }

    #[test]
    fn a_ratio_held_against_a_bound_has_a_digit_more() {
        assert_eq!([3.97, 1.0 / 30.3].map(ratio_fine), ["x 3.97", "1/30.3"]);
    }

    #[test]
    fn a_spread_has_one_unit() {
        assert_eq!(count_with_spread(&Series(vec![48_200.0, 950.0, 47_100.0])), "47.1 k (0.950–48.2)");
        assert_eq!(
            [Vec::new(), vec![950.0]].map(Series).map(|series| count_with_spread(&series)),
            ["–", "950"]
        );
        assert_eq!(cpu_spread(&Series(vec![0.85e-3; 2])), ("0.850".to_owned(), "0.850–0.850".to_owned()));
    }

    #[test]
    fn percentages_keep_a_decimal_place_only_where_it_says_something() {
        assert_eq!([90.0, 99.04, 99.5, -0.01].map(percent), ["90 %", "99 %", "99.5 %", "0 %"]);
    }

    #[test]
    fn no_line_is_longer_than_asked_unless_a_word_is() {
        assert_eq!(wrap("a bb ccc dddddddd e", 6), ["a bb", "ccc", "dddddddd", "e"]);
    }
}
