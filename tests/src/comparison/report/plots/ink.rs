//! What each mode looks like, and the texts around.
//!
//! The colours are those of Okabe and Ito (2008) and of Paul Tol's "muted" scheme, made for eyes of every kind; the parts
//! of a bar are five steps of viridis, whose lightness tells them apart in black and white.

use anyhow::Result;
use plotters::{
    chart::MeshStyle,
    coord::{CoordTranslate, Shift},
    prelude::{
        Circle, Cross, DrawingArea, DrawingBackend, IntoFont, PathElement, Polygon, RGBColor, Rectangle,
        SVGBackend, ShapeStyle,
    },
    style::{
        Color, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{super::super::plan::Mode, axis::Axis};

/// A part of the picture, in pixels of its own.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What is drawn behind a chart.
type Mesh<'a, 'b> = MeshStyle<'a, 'b, Axis, Axis, SVGBackend<'a>>;

/// The colour of axes and texts.
pub(super) const TEXT: RGBColor = RGBColor(0x33, 0x33, 0x33);

/// The colour of lines at marks.
pub(super) const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// The colour of lines between marks.
pub(super) const GRID_MINOR: RGBColor = RGBColor(0xf0, 0xf0, 0xf0);

/// Colours of the parts of a bar, from the client to what is nobody's.
pub(super) const PARTS: [RGBColor; 5] = [
    RGBColor(0x44, 0x01, 0x54),
    RGBColor(0x3b, 0x52, 0x8b),
    RGBColor(0x21, 0x91, 0x8c),
    RGBColor(0x7a, 0xd1, 0x51),
    RGBColor(0xfd, 0xe7, 0x25),
];

/// Pixels above a panel's frame for its title.
pub(super) const TITLE: i32 = 32;

/// The size of texts, pixels.
pub(super) const TEXT_SIZE: f64 = 14.0;

/// What plotters divides a text's size by before it writes it into an SVG.
const SVG_TEXT: f64 = 1.24;

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Marker {
    Bar,
    Cross,
    Square { is_filled: bool },
    Diamond,
    Up,
    Down,
    Circle { is_filled: bool },
    Star,
}

/// What a mode's line looks like.
#[derive(Clone, Copy)]
pub(super) struct Ink {
    pub(super) colour: RGBColor,
    pub(super) marker: Marker,
    /// Pixels drawn, and pixels left out; none of a line without gaps.
    pub(super) dashes: Option<(u32, u32)>,
}

/// What this mode looks like: Envoy warm and square, caches in triangles, Sidestep blue and round.
pub(super) fn ink(mode: Mode) -> Ink {
    let of = |red, green, blue, marker, dashes| Ink { colour: RGBColor(red, green, blue), marker, dashes };
    match mode {
        Mode::Direct => of(0x00, 0x00, 0x00, Marker::Cross, Some((2, 4))),
        Mode::Relay => of(0x77, 0x77, 0x77, Marker::Bar, Some((1, 3))),
        Mode::Sidecar => of(0xd5, 0x5e, 0x00, Marker::Square { is_filled: true }, None),
        Mode::SidecarBoth => of(0x88, 0x22, 0x55, Marker::Square { is_filled: false }, Some((8, 4))),
        Mode::EnvoyCache => of(0xe6, 0x9f, 0x00, Marker::Diamond, Some((12, 4))),
        Mode::Nginx => of(0x00, 0x9e, 0x73, Marker::Up, None),
        Mode::Varnish => of(0xaa, 0x44, 0x99, Marker::Down, Some((6, 3))),
        Mode::SidestepMiss => of(0x56, 0xb4, 0xe9, Marker::Circle { is_filled: false }, Some((4, 3))),
        Mode::SidestepOff => of(0x00, 0x72, 0xb2, Marker::Circle { is_filled: true }, None),
        Mode::Sidestep => of(0x33, 0x22, 0x88, Marker::Star, None),
    }
}

/// Draws a mode's mark around this pixel.
pub(super) fn mark<C>(area: &DrawingArea<SVGBackend<'_>, C>, (x, y): (i32, i32), ink: Ink) -> Result<()>
where
    C: CoordTranslate<From = (i32, i32)>,
{
    let line = ShapeStyle::from(ink.colour).stroke_width(2);
    let polygon = |corners: [(i32, i32); 4]| {
        Polygon::new(corners.map(|(right, down)| (x + right, y + down)).to_vec(), ink.colour.filled())
    };
    match ink.marker {
        Marker::Bar => area.draw(&PathElement::new(vec![(x - 6, y), (x + 6, y)], line))?,
        Marker::Cross => area.draw(&Cross::new((x, y), 4, line))?,
        Marker::Square { is_filled: true } => {
            area.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], ink.colour.filled()))?;
        }
        Marker::Square { is_filled: false } => {
            let corners = [(x - 4, y - 4), (x + 4, y + 4)];
            area.draw(&Rectangle::new(corners, plotters::style::WHITE.filled()))?;
            area.draw(&Rectangle::new(corners, line))?;
        }
        Marker::Diamond => area.draw(&polygon([(0, -6), (6, 0), (0, 6), (-6, 0)]))?,
        Marker::Up => area.draw(&polygon([(0, -6), (6, 5), (-6, 5), (0, -6)]))?,
        Marker::Down => area.draw(&polygon([(0, 6), (6, -5), (-6, -5), (0, 6)]))?,
        Marker::Circle { is_filled: true } => area.draw(&Circle::new((x, y), 5, ink.colour.filled()))?,
        Marker::Circle { is_filled: false } => {
            area.draw(&Circle::new((x, y), 4, plotters::style::WHITE.filled()))?;
            area.draw(&Circle::new((x, y), 4, line))?;
        }
        Marker::Star => {
            for (right, down) in [(0, 6), (6, 0), (4, 4), (4, -4)] {
                area.draw(&PathElement::new(vec![(x - right, y - down), (x + right, y + down)], line))?;
            }
        }
    }
    Ok(())
}

/// A text style of this size in pixels, whose anchor is there.
pub(super) fn text(size: f64, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size * SVG_TEXT).into_font())
        .color(&TEXT)
        .pos(Pos::new(horizontal, vertical))
}

/// Axes, marks and their texts in the picture's style.
pub(super) fn mesh<'a, 'b, 'c>(mesh: &'c mut Mesh<'a, 'b>) -> &'c mut Mesh<'a, 'b> {
    mesh.axis_style(TEXT)
        .bold_line_style(GRID)
        .light_line_style(GRID_MINOR)
        .set_all_tick_mark_size(4)
        .label_style(text(TEXT_SIZE, HPos::Center, VPos::Center))
        .axis_desc_style(text(TEXT_SIZE, HPos::Center, VPos::Center))
}

/// Writes a panel's title above the middle of its frame.
pub(super) fn title<C: CoordTranslate>(
    area: &Area<'_>,
    frame: &DrawingArea<SVGBackend<'_>, C>,
    title: &str,
) -> Result<()> {
    let (across, down) = frame.get_pixel_range();
    let (middle, top) = own(area, (i32::midpoint(across.start, across.end), down.start));
    area.draw_text(title, &text(15.0, HPos::Center, VPos::Bottom), (middle, top - 8))?;
    Ok(())
}

/// A picture of this size, with a name for who does not see it.
pub(super) fn svg(
    name: &str,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let area =
            plotters::prelude::IntoDrawingArea::into_drawing_area(SVGBackend::with_string(&mut svg, size));
        draw(&area)?;
        area.present()?;
    }
    Ok(svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{name}\" "), 1))
}

/// The same area's own pixel of a pixel of the whole picture.
pub(super) fn own<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, (x, y): (i32, i32)) -> (i32, i32) {
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

#[cfg(test)]
mod tests {
    use super::{super::super::super::plan::MODES, *};

    #[test]
    fn modes_differ_in_colour_and_without_it() {
        for (at, (mode, ..)) in MODES.iter().enumerate() {
            for (other, ..) in &MODES[at + 1..] {
                assert_ne!(ink(*mode).colour, ink(*other).colour);
                assert_ne!(ink(*mode).marker, ink(*other).marker);
            }
        }
    }

    #[test]
    fn parts_of_a_bar_grow_lighter() {
        let lightness = |RGBColor(red, green, blue): &RGBColor| {
            0.299 * f64::from(*red) + 0.587 * f64::from(*green) + 0.114 * f64::from(*blue)
        };
        assert!(PARTS.windows(2).all(|pair| lightness(&pair[0]) + 20.0 < lightness(&pair[1])));
    }
}
