//! Axes: which part of a line of numbers is shown, and where it is marked.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Marks of an axis within one decade, where it has room for them.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

/// Decades that leave room for [`STEPS`].
const DECADES_FINE: f64 = 2.2;

/// Decades that a logarithmic axis shows at least.
const DECADES_MIN: f64 = 0.6;

/// A linear axis is so much longer than its greatest value, for a text at the end of a bar.
const ROOM: f64 = 1.26;

/// An axis. All its numbers are those of the picture: logarithms where it is logarithmic.
#[derive(Clone)]
pub(super) struct Axis {
    /// What it shows, with the unit where the marks have none.
    pub(super) title: &'static str,
    /// From where to where.
    pub(super) range: Range<f64>,
    /// Marks with their texts.
    pub(super) marks: Vec<(f64, String)>,
    /// Lines without texts.
    pub(super) minor: Vec<f64>,
    /// Where in the picture a value is.
    pub(super) place: fn(f64) -> f64,
}

/// A percentile by how many nines it has: 90 is 1, 99 is 2.
pub(super) fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// A number without the zeros that end its decimal places, in front of its unit if it has one.
fn rounded(text: &str) -> String {
    let (number, unit) = text.split_once(' ').map_or((text, ""), |(number, unit)| (number, unit));
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

impl Axis {
    /// Percentiles from 50 to 99.9, by their [`nines`]; values are nines.
    pub(super) fn nines() -> Self {
        let marks = [50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9].map(|p| (nines(p), format!("{p} %")));
        Self {
            title: "requests answered within this time",
            range: nines(50.0)..nines(99.9),
            marks: marks.to_vec(),
            minor: Vec::new(),
            place: |value| value,
        }
    }

    /// Evenly spaced names; values count from 0.
    pub(super) fn steps<const N: usize>(title: &'static str, names: [&str; N]) -> Self {
        let marks = names.iter().enumerate().map(|(at, name)| (at as f64, (*name).to_owned())).collect();
        Self { title, range: -0.2..N as f64 - 0.8, marks, minor: Vec::new(), place: |value| value }
    }

    /// Logarithmic, around these values, of which none is 0 or less.
    pub(super) fn log(
        title: &'static str,
        values: impl Iterator<Item = f64>,
        text: fn(f64) -> String,
    ) -> Self {
        let (least, most) =
            values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        let (from, to) = (least.log10() - 0.08, most.log10() + 0.08);
        // So wide at least that a mark lies in it.
        let wider = (DECADES_MIN - (to - from)).max(0.0) / 2.0;
        let (from, to) = (from - wider, to + wider);
        let is_fine = to - from <= DECADES_FINE;
        let decades = || (from.floor() as i32..=to.ceil() as i32).map(|power| 10f64.powi(power));
        let within = |value: &f64| (from..=to).contains(&value.log10());
        let steps: &[f64] = if is_fine { &STEPS } else { &STEPS[..1] };
        let marked = decades().flat_map(|decade| steps.iter().map(move |step| step * decade)).filter(within);
        let minor =
            decades().flat_map(|decade| (2..10).map(move |step| f64::from(step) * decade)).filter(within);
        Self {
            title,
            range: from..to,
            marks: marked.map(|value| (value.log10(), rounded(&text(value)))).collect(),
            minor: minor.map(f64::log10).collect(),
            place: f64::log10,
        }
    }

    /// Logarithmic, marked at these values and nowhere else.
    pub(super) fn log_at(title: &'static str, values: &[u32]) -> Self {
        let place = |value: &u32| f64::from((*value).max(1)).log10();
        let (least, most) =
            (values.iter().map(place).fold(f64::MAX, f64::min), values.iter().map(place).fold(0.0, f64::max));
        let marks = values.iter().map(|value| (place(value), value.to_string())).collect();
        Self { title, range: least - 0.06..most + 0.06, marks, minor: Vec::new(), place: f64::log10 }
    }

    /// From 0 to this value and some room, with some five marks.
    pub(super) fn linear(title: &'static str, most: f64, text: fn(f64) -> String) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let decade = 10f64.powf((most / 5.0).log10().floor());
        let step = STEPS.iter().chain(&[10.0]).map(|step| step * decade).find(|step| most / step <= 5.5);
        let step = step.unwrap_or(most);
        let marks = (0..=10).map(|at| f64::from(at) * step).filter(|value| *value <= most * 1.001);
        Self {
            title,
            range: 0.0..most * ROOM,
            marks: marks.map(|value| (value, rounded(&text(value)))).collect(),
            minor: Vec::new(),
            place: |value| value,
        }
    }

    /// So many places without marks, each 1 long.
    pub(super) fn places(number: usize) -> Self {
        let (marks, minor) = (Vec::new(), Vec::new());
        Self { title: "", range: 0.0..number.max(1) as f64, marks, minor, place: |value| value }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        from + (part * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return self.minor.clone();
        }
        self.marks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, at: &f64) -> String {
        let near = |(mark, _): &&(f64, String)| (mark - at).abs() < 1e-9;
        self.marks.iter().find(near).map_or_else(String::new, |(_, text)| text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::numbers, *};

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.marks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn a_logarithmic_axis_holds_its_values_and_some_marks() {
        let axis = Axis::log("", [13.0, 340.0].into_iter(), numbers::count);
        assert_eq!(texts(&axis), ["20", "50", "100", "200"]);
        assert!(axis.range.contains(&13f64.log10()) && axis.range.contains(&340f64.log10()));
        let axis = Axis::log("", [2.0, 34_000.0].into_iter(), numbers::count);
        assert_eq!(texts(&axis), ["10", "100", "1 k", "10 k"]);
        assert!(!Axis::log("", [34.0].into_iter(), numbers::count).marks.is_empty());
    }

    #[test]
    fn a_linear_axis_begins_at_nothing_and_has_round_marks() {
        assert_eq!(texts(&Axis::linear("", 470.0, numbers::count)), ["0", "100", "200", "300", "400"]);
        assert_eq!(texts(&Axis::linear("", 0.0, numbers::count)).len(), 6);
    }

    #[test]
    fn nines_count_nines() {
        assert!((nines(99.9) - 3.0).abs() < 1e-9 && (nines(90.0) - 1.0).abs() < 1e-9);
    }
}
