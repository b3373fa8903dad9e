use super::palette;
use super::scale::{Scale, label};
use super::svg::{Anchor, Svg, width, wrap};

/// Of every chart, in pixels.
pub(super) const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
const LEGEND_SIZE: f64 = 13.0;
const LEGEND_LINE: f64 = 22.0;

/// What stands around a plot.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    pub(super) subtitle: &'a str,
    /// Why the figures may not be believed; empty if they may.
    pub(super) invalid: &'a str,
    /// Pixels between the left edge and the plot.
    pub(super) left: f64,
    /// The plot's height in pixels.
    pub(super) height: f64,
}

/// Where the plot is.
#[derive(Clone, Copy)]
pub(super) struct Plot {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// An entry of a legend: how its sample is drawn is markup around (0, 0), 28 pixels wide.
pub(super) struct Key {
    pub(super) sample: String,
    pub(super) name: String,
    /// The class by which a click hides what it stands for.
    pub(super) group: String,
}

impl Frame<'_> {
    /// Draws the heading, and says where the plot goes.
    pub(super) fn head(&self, svg: &mut Svg) -> Plot {
        let mut y = 34.0;
        let title = super::escape(self.title);
        svg.raw(format_args!(
            r##"<text x="{MARGIN}" y="{y}" font-size="19" class="ink" fill="#1a1a1a">{title}</text>"##
        ));
        for line in wrap(self.subtitle, 13.0, WIDTH - 2.0 * MARGIN) {
            y += 20.0;
            svg.text((MARGIN, y), 13.0, "muted", Anchor::Start, &line);
        }
        for line in wrap(self.invalid, 13.0, WIDTH - 2.0 * MARGIN) {
            y += 20.0;
            svg.text((MARGIN, y), 13.0, "alarm", Anchor::Start, &line);
        }
        let top = y + 22.0;
        Plot { left: self.left, right: WIDTH - MARGIN, top, bottom: top + self.height }
    }
}

impl Plot {
    /// Draws the horizontal axis below the plot.
    pub(super) fn x_axis(&self, svg: &mut Svg, scale: &Scale, name: &str) {
        for tick in scale.ticks() {
            let x = scale.at(tick);
            svg.rule("grid", (x, self.top), (x, self.bottom));
            svg.text((x, self.bottom + 19.0), 12.0, "muted", Anchor::Middle, &label(tick));
        }
        svg.rule("axis", (self.left, self.bottom), (self.right, self.bottom));
        let middle = f64::midpoint(self.left, self.right);
        svg.text((middle, self.bottom + 42.0), 13.0, "ink", Anchor::Middle, &axis_name(name, scale));
    }

    /// Draws the vertical axis left of the plot, its name on its side.
    pub(super) fn y_axis(&self, svg: &mut Svg, scale: &Scale, name: &str) {
        for tick in scale.ticks() {
            let y = scale.at(tick);
            svg.rule("grid", (self.left, y), (self.right, y));
            svg.text((self.left - 8.0, y + 4.0), 12.0, "muted", Anchor::End, &label(tick));
        }
        svg.rule("axis", (self.left, self.top), (self.left, self.bottom));
        let middle = f64::midpoint(self.top, self.bottom);
        let name = super::escape(&axis_name(name, scale));
        svg.raw(format_args!(
            r##"<text transform="translate(22 {middle:.1}) rotate(-90)" font-size="13" class="ink" fill="#1a1a1a" text-anchor="middle">{name}</text>"##
        ));
    }

    /// Draws a legend below the plot, and says how high the picture is.
    pub(super) fn legend(&self, svg: &mut Svg, keys: &[Key]) -> f64 {
        let mut x = self.left;
        let mut y = self.bottom + 74.0;
        for key in keys {
            let wide = 36.0 + width(&key.name, LEGEND_SIZE) + 22.0;
            if x > self.left && x + wide > WIDTH - MARGIN {
                x = self.left;
                y += LEGEND_LINE;
            }
            let (sample, name, group) = (&key.sample, super::escape(&key.name), &key.group);
            svg.raw(format_args!(
                r##"<g class="key" data-group="{group}" transform="translate({x:.1} {y:.1})"><g transform="translate(0 -4.5)">{sample}</g><text x="36" font-size="{LEGEND_SIZE}" class="ink" fill="#1a1a1a">{name}</text></g>"##
            ));
            x += wide;
        }
        if keys.is_empty() { self.bottom + 60.0 } else { y + 20.0 }
    }
}

fn axis_name(name: &str, scale: &Scale) -> String {
    if scale.is_log() { format!("{name} (logarithmic)") } else { name.to_owned() }
}

/// A cross over a marker of a run that is not valid.
pub(super) fn cross() -> String {
    format!(r#"<path d="M-6,-6 L6,6 M6,-6 L-6,6" stroke="{}" stroke-width="2" fill="none"/>"#, palette::ALARM)
}
