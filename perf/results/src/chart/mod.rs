//! Charts as SVG, the same bytes for HTML and PNG.
//!
//! Colours are Okabe and Ito's, which colour-blind readers tell apart; each also has its own marker. Colours that depend on the
//! background have a class, by which the report's style sheet changes them for dark screens. Legends stand below the plot, where
//! they hide nothing. A chart of a run that is not valid says so above the plot.

mod forest;
mod frame;
mod lines;
mod palette;
mod scale;
mod svg;
mod timeline;

pub(crate) use self::forest::{Forest, Ratio};
pub(crate) use self::lines::{Lines, Point, Series, Shape};
pub(crate) use self::svg::escape;
pub(crate) use self::timeline::{Bar, Segment, Timeline};

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// A name for its file: lower-case letters, digits and hyphens.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// The whole picture: one `<svg>` element, which refers to nothing outside.
    pub svg: String,
}
