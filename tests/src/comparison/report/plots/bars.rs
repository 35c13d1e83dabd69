//! Draws bars that lie: a panel for each load, a bar for each mode, its value at its end.

use anyhow::Result;
use plotters::{
    prelude::{ChartBuilder, PathElement, RGBColor, Rectangle},
    style::{
        Color, ShapeStyle, WHITE,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    super::numbers,
    axis::Axis,
    ink::{self, Area},
};

/// A bar.
pub(super) struct Bar {
    pub(super) label: &'static str,
    /// What it is made of, from the left.
    pub(super) parts: Vec<(RGBColor, f64)>,
    /// The least and the greatest value.
    pub(super) range: Option<(f64, f64)>,
    /// Its value in words.
    pub(super) text: String,
}

/// Bars over one axis.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

/// Pixels of the picture's width; two panels stand beside each other.
const WIDTH: u32 = 1040;

/// Pixels of a bar's height, with what is left between two.
const BAR: u32 = 25;

/// Pixels for title, axis and margins of a panel.
const AROUND: u32 = 100;

/// Pixels for the names of bars.
const NAMES: u32 = 164;

/// Pixels for the legend, where there is one.
const LEGEND: u32 = 30;

/// Pixels of a character, about.
const CHARACTER: f64 = 7.5;

/// All panels, two in a row, under the legend of the bars' parts.
pub(super) fn svg(
    name: &str,
    axis: &'static str,
    legend: &[(&str, RGBColor)],
    panels: &[Panel],
) -> Result<String> {
    let top = if legend.is_empty() { 0 } else { LEGEND };
    let bars = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or_default();
    let height = u32::try_from(bars)? * BAR + AROUND;
    let rows = panels.len().div_ceil(2);
    ink::svg(name, (WIDTH, top + u32::try_from(rows)? * height), |area| {
        let (above, below) = area.split_vertically(top);
        draw_legend(&above, legend)?;
        for (panel, area) in panels.iter().zip(below.split_evenly((rows, 2))) {
            draw(&area, axis, panel)?;
        }
        Ok(())
    })
}

fn draw_legend(area: &Area<'_>, legend: &[(&str, RGBColor)]) -> Result<()> {
    let mut left = 20;
    for (name, colour) in legend {
        let square = [(left, 9), (left + 13, 22)];
        area.draw(&Rectangle::new(square, colour.filled()))?;
        area.draw(&Rectangle::new(square, ink::TEXT))?;
        area.draw_text(name, &ink::text(ink::TEXT_SIZE, HPos::Left, VPos::Center), (left + 20, 16))?;
        left += 42 + (name.chars().count() as f64 * CHARACTER) as i32;
    }
    Ok(())
}

fn draw(area: &Area<'_>, axis: &'static str, panel: &Panel) -> Result<()> {
    let length = |bar: &Bar| bar.parts.iter().map(|(_, value)| value).sum::<f64>();
    let longest = panel.bars.iter().map(|bar| length(bar).max(bar.range.map_or(0.0, |(_, most)| most)));
    let x = Axis::linear(axis, longest.fold(0.0, f64::max), numbers::count);
    let mut builder = ChartBuilder::on(area);
    builder.margin(10).margin_top(ink::TITLE).x_label_area_size(44).y_label_area_size(NAMES);
    let mut context = builder.build_cartesian_2d(x.clone(), Axis::places(panel.bars.len()))?;
    ink::mesh(&mut context.configure_mesh()).x_desc(x.title).draw()?;
    ink::title(area, context.plotting_area(), &panel.title)?;

    for (at, bar) in panel.bars.iter().enumerate() {
        let middle = (panel.bars.len() - at) as f64 - 0.5;
        let pixel = |value: f64| ink::own(area, context.backend_coord(&(value, middle)));
        draw_bar(area, bar, &pixel)?;
    }
    Ok(())
}

/// Draws a bar into the whole panel; `pixel` says where on the bar's middle line a value is.
fn draw_bar(area: &Area<'_>, bar: &Bar, pixel: &dyn Fn(f64) -> (i32, i32)) -> Result<()> {
    let half = i32::try_from(BAR)? / 2 - 5;
    let (zero, middle) = pixel(0.0);
    let mut sum = 0.0;
    for (colour, value) in &bar.parts {
        let (from, to) = (pixel(sum).0, pixel(sum + value).0);
        area.draw(&Rectangle::new([(from, middle - half), (to, middle + half)], colour.filled()))?;
        sum += value;
    }
    let mut end = pixel(sum).0;
    area.draw(&Rectangle::new([(zero, middle - half), (end, middle + half)], ink::TEXT))?;
    if let Some((least, most)) = bar.range {
        let (least, most) = (pixel(least).0, pixel(most).0);
        // White around it: it lies half on its bar, whatever colour that has.
        draw_range(area, (least, most), middle, ShapeStyle::from(WHITE).stroke_width(3))?;
        draw_range(area, (least, most), middle, ShapeStyle::from(ink::TEXT).stroke_width(1))?;
        end = end.max(most);
    }
    area.draw_text(bar.label, &ink::text(ink::TEXT_SIZE, HPos::Right, VPos::Center), (zero - 8, middle))?;
    area.draw_text(&bar.text, &ink::text(ink::TEXT_SIZE, HPos::Left, VPos::Center), (end + 7, middle))?;
    Ok(())
}

fn draw_range(area: &Area<'_>, (least, most): (i32, i32), middle: i32, style: ShapeStyle) -> Result<()> {
    let stroke = |at| [(at, middle - 3), (at, middle + 3)];
    for line in [[(least, middle), (most, middle)], stroke(least), stroke(most)] {
        area.draw(&PathElement::new(line, style))?;
    }
    Ok(())
}
