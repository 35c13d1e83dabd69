//! Draws lines over a common axis, each named where it ends.

use anyhow::Result;
use plotters::{
    prelude::{ChartBuilder, DashedLineSeries, LineSeries, PathElement},
    style::{
        Color, ShapeStyle,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    super::{super::plan::Mode, find::short},
    axis::Axis,
    ink::{self, Area},
};

/// A mode's line, in values of its axes.
pub(super) struct Line {
    pub(super) mode: Mode,
    pub(super) points: Vec<(f64, f64)>,
    /// What stands behind its name.
    pub(super) note: String,
}

/// Axes with lines.
pub(super) struct Chart {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

/// Pixels of the whole picture.
const SIZE: (u32, u32) = (1040, 440);

/// Pixels for the names at the right.
const NAMES_WIDTH: u32 = 274;

/// Pixels between two names, at least.
const NAMES_APART: i32 = 20;

/// Pixels below a panel's frame, and left of it.
const BELOW: i32 = 46;
const LEFT: i32 = 82;

/// Panels beside each other, each with its title; names stand at the right of the last one.
pub(super) fn svg(name: &str, panels: &[(&str, Chart)]) -> Result<String> {
    ink::svg(name, SIZE, |area| {
        let width = (SIZE.0 - NAMES_WIDTH) / u32::try_from(panels.len())?.max(1);
        let mut rest = area.clone();
        for (at, (title, chart)) in panels.iter().enumerate() {
            let is_last = at + 1 == panels.len();
            let (panel, after) = if is_last { (rest.clone(), rest) } else { rest.split_horizontally(width) };
            draw(&panel, title, chart, is_last)?;
            rest = after;
        }
        Ok(())
    })
}

fn draw(area: &Area<'_>, title: &str, chart: &Chart, is_named: bool) -> Result<()> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).margin_right(if is_named { NAMES_WIDTH } else { 12 });
    builder.x_label_area_size(BELOW).y_label_area_size(LEFT);
    if !title.is_empty() {
        builder.margin_top(ink::TITLE);
    }
    let mut context = builder.build_cartesian_2d(chart.x.clone(), chart.y.clone())?;
    ink::mesh(&mut context.configure_mesh()).x_desc(chart.x.title).y_desc(chart.y.title).draw()?;
    ink::title(area, context.plotting_area(), title)?;

    let mut ends = Vec::new();
    for line in &chart.lines {
        let ink = ink::ink(line.mode);
        let style = ShapeStyle::from(ink.colour).stroke_width(2);
        let points: Vec<_> =
            line.points.iter().map(|(x, y)| ((chart.x.place)(*x), (chart.y.place)(*y))).collect();
        match ink.dashes {
            None => drop(context.draw_series(LineSeries::new(points.iter().copied(), style))?),
            Some((drawn, left_out)) => {
                let dashed = DashedLineSeries::new(points.clone(), drawn, left_out, style);
                context.draw_series(dashed)?;
            }
        }
        let pixels = points.iter().map(|point| ink::own(area, context.backend_coord(point)));
        let mut last = None;
        for pixel in pixels {
            ink::mark(area, pixel, ink)?;
            last = Some(pixel);
        }
        ends.extend(last.map(|pixel| (pixel, line)));
    }
    if is_named { names(area, ends) } else { Ok(()) }
}

/// Writes each line's name beside its end, further up or down where names would stand on each other.
fn names(area: &Area<'_>, mut ends: Vec<((i32, i32), &Line)>) -> Result<()> {
    ends.sort_by_key(|((_, y), _)| *y);
    let bottom = i32::try_from(SIZE.1)? - BELOW - 12;
    let places = apart(&ends.iter().map(|((_, y), _)| *y).collect::<Vec<_>>(), bottom);
    let left = i32::try_from(area.dim_in_pixel().0)? - i32::try_from(NAMES_WIDTH)?;
    for (((x, y), line), place) in ends.into_iter().zip(places) {
        let ink = ink::ink(line.mode);
        let way = vec![(x + 7, y), (left + 6, y), (left + 18, place), (left + 22, place)];
        area.draw(&PathElement::new(way, ShapeStyle::from(ink.colour.mix(0.45)).stroke_width(1)))?;
        ink::mark(area, (left + 30, place), ink)?;
        let style = ink::text(ink::TEXT_SIZE, HPos::Left, VPos::Center);
        let name = if line.note.is_empty() {
            short(line.mode).to_owned()
        } else {
            format!("{}, {}", short(line.mode), line.note)
        };
        area.draw_text(&name, &style, (left + 41, place))?;
    }
    Ok(())
}

/// Heights in ascending order, moved until they are [`NAMES_APART`] and above the bottom.
fn apart(heights: &[i32], bottom: i32) -> Vec<i32> {
    let mut places: Vec<i32> = Vec::new();
    for height in heights {
        let least = places.last().map_or(i32::MIN, |above| above + NAMES_APART);
        places.push(least.max(*height));
    }
    let mut most = bottom;
    for place in places.iter_mut().rev() {
        *place = most.min(*place);
        most = *place - NAMES_APART;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_apart_and_above_the_bottom() {
        assert_eq!(apart(&[10, 100], 200), [10, 100]);
        assert_eq!(apart(&[10, 11, 100], 200), [10, 30, 100]);
        assert_eq!(apart(&[10, 198, 199, 200], 200), [10, 160, 180, 200]);
    }
}
