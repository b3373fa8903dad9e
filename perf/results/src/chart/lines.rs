use std::fmt::Write as _;

use super::frame::{Frame, Key, Plot, WIDTH, cross};
use super::palette::{colour, marker};
use super::scale::Scale;
use super::svg::Svg;
use super::{Chart, escape};

/// Lines over two axes.
pub(crate) struct Lines {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// Why not all of it may be believed; empty if it may.
    pub(crate) invalid: String,
    /// The horizontal axis, with its unit.
    pub(crate) x: String,
    /// The vertical axis, with its unit.
    pub(crate) y: String,
    /// The vertical axis's range, if it is not to follow from the values.
    pub(crate) y_range: Option<(f64, f64)>,
    /// Whether the horizontal axis may be logarithmic.
    pub(crate) x_fitting: bool,
    pub(crate) series: Vec<Series>,
}

/// A line.
pub(crate) struct Series {
    pub(crate) name: String,
    /// The colour and marker; those of one system have one number.
    pub(crate) colour: usize,
    pub(crate) shape: Shape,
    pub(crate) points: Vec<Point>,
}

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Solid, with a marker at each point.
    Marked,
    /// Dashed, with a marker at each point.
    MarkedDashed,
    /// From point to point, without markers: solid, dashed, dotted and so on by the number.
    Plain(usize),
}

/// A point of a line.
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// Whether it may be believed.
    pub(crate) valid: bool,
}

impl Lines {
    /// Draws it.
    pub(crate) fn draw(&self) -> Chart {
        let mut svg = Svg::default();
        let frame = Frame {
            title: &self.title,
            subtitle: &self.subtitle,
            invalid: &self.invalid,
            left: 92.0,
            height: 330.0,
        };
        let plot = frame.head(&mut svg);
        let (x, y) = self.scales(plot);
        plot.x_axis(&mut svg, &x, &self.x);
        plot.y_axis(&mut svg, &y, &self.y);
        for (n, series) in self.series.iter().enumerate() {
            series.draw(&mut svg, n, (&x, &y), (&self.x, &self.y));
        }
        let keys: Vec<Key> = self.series.iter().enumerate().map(|(n, series)| series.key(n)).collect();
        let height = plot.legend(&mut svg, &keys);
        Chart {
            name: self.name.clone(),
            title: self.title.clone(),
            svg: svg.finish(WIDTH, height, &self.title),
        }
    }

    fn scales(&self, plot: Plot) -> (Scale, Scale) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (across, up) = ((plot.left, plot.right), (plot.bottom, plot.top));
        let xs = points().map(|point| point.x);
        let x = if self.x_fitting { Scale::fitting(xs, across) } else { Scale::linear(xs, across) };
        let y = match self.y_range {
            Some((low, high)) => Scale::between(low, high, false, up),
            None => Scale::fitting(points().map(|point| point.y), up),
        };
        (x, y)
    }
}

impl Series {
    fn draw(&self, svg: &mut Svg, n: usize, (x, y): (&Scale, &Scale), names: (&str, &str)) {
        let mut path = String::new();
        for (n, point) in self.points.iter().enumerate() {
            let command = if n == 0 { 'M' } else { 'L' };
            // Into a string, writing cannot fail.
            let _ = write!(path, "{command}{:.1},{:.1}", x.at(point.x), y.at(point.y));
        }
        let (colour, dash) = (colour(self.colour), self.dash());
        svg.raw(format_args!(
            r#"<g class="series s{n}"><path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash} stroke-linejoin="round"/>"#
        ));
        if !matches!(self.shape, Shape::Plain(_)) {
            for point in &self.points {
                self.mark(svg, point, (x.at(point.x), y.at(point.y)), names);
            }
        }
        svg.raw(format_args!("</g>"));
    }

    fn mark(&self, svg: &mut Svg, point: &Point, (x, y): (f64, f64), names: (&str, &str)) {
        let (colour, marker) = (colour(self.colour), marker(self.colour));
        let tip = escape(&format!(
            "{}{}\n{}: {}\n{}: {}",
            self.name,
            if point.valid { "" } else { " (INVALID)" },
            names.0,
            crate::table::number(point.x),
            names.1,
            crate::table::number(point.y)
        ));
        let cross = if point.valid { String::new() } else { cross() };
        svg.raw(format_args!(
            r##"<g transform="translate({x:.1} {y:.1})"><path d="{marker}" fill="{colour}" class="dot" stroke="#ffffff"/>{cross}<title>{tip}</title></g>"##
        ));
    }

    fn key(&self, n: usize) -> Key {
        let (colour, dash) = (colour(self.colour), self.dash());
        let marker = match self.shape {
            Shape::Plain(_) => String::new(),
            _ => {
                format!(r#"<path transform="translate(14 0)" d="{}" fill="{colour}"/>"#, marker(self.colour))
            }
        };
        let sample =
            format!(r#"<path d="M0,0H28" stroke="{colour}" stroke-width="2"{dash} fill="none"/>{marker}"#);
        Key { sample, name: self.name.clone(), group: format!("s{n}") }
    }

    fn dash(&self) -> &'static str {
        match self.shape {
            Shape::Marked | Shape::Plain(0) => "",
            Shape::MarkedDashed | Shape::Plain(1) => r#" stroke-dasharray="7 4""#,
            Shape::Plain(2) => r#" stroke-dasharray="2 3""#,
            Shape::Plain(_) => r#" stroke-dasharray="9 3 2 3""#,
        }
    }
}
