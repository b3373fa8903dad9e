use super::frame::{Frame, Key, WIDTH};
use super::palette::ALARM;
use super::scale::Scale;
use super::svg::{Anchor, Svg};
use super::{Chart, escape};

/// Requests as bars over time, one below the other.
pub(crate) struct Timeline {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// Why not all of it may be believed; empty if it may.
    pub(crate) invalid: String,
    /// What segments may be, by number.
    pub(crate) legend: Vec<&'static str>,
    pub(crate) bars: Vec<Bar>,
}

/// A request.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) segments: Vec<Segment>,
    /// When it failed, was cancelled or was left, in seconds, and which.
    pub(crate) ended: Option<(f64, String)>,
}

/// A part of a request's time, in seconds.
pub(crate) struct Segment {
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// What it is: a number in the legend.
    pub(crate) kind: usize,
}

const ROW: f64 = 13.0;

impl Timeline {
    /// Draws it.
    pub(crate) fn draw(&self) -> Chart {
        let mut svg = Svg::default();
        let height = ROW * self.bars.len() as f64 + 8.0;
        let frame = Frame {
            title: &self.title,
            subtitle: &self.subtitle,
            invalid: &self.invalid,
            left: 72.0,
            height,
        };
        let plot = frame.head(&mut svg);
        let parts = || self.bars.iter().flat_map(|bar| &bar.segments);
        let start = parts().map(|part| part.from).fold(f64::INFINITY, f64::min);
        let (start, end) = if start.is_finite() {
            (start, parts().map(|part| part.to).fold(start, f64::max))
        } else {
            (0.0, 1.0)
        };
        let x = Scale::between(start, end.max(start + 1e-3), false, (plot.left, plot.right));
        plot.x_axis(&mut svg, &x, "time since the start of the run, s");
        for (n, bar) in self.bars.iter().enumerate() {
            self.bar(&mut svg, bar, plot.top + 6.0 + ROW * n as f64, &x, plot.left);
        }
        let height = plot.legend(&mut svg, &self.keys());
        Chart {
            name: self.name.clone(),
            title: self.title.clone(),
            svg: svg.finish(WIDTH, height, &self.title),
        }
    }

    fn bar(&self, svg: &mut Svg, bar: &Bar, top: f64, x: &Scale, left: f64) {
        svg.text((left - 8.0, top + 8.5), 10.0, "muted", Anchor::End, &bar.label);
        for part in &bar.segments {
            let (from, to) = (x.at(part.from), x.at(part.to));
            let name = self.legend.get(part.kind).copied().unwrap_or_default();
            let tip = escape(&format!("{}: {name}, {:.1} ms", bar.label, (part.to - part.from) * 1e3));
            let (wide, colour) = ((to - from).max(0.4), segment_colour(part.kind));
            svg.raw(format_args!(
                r#"<rect x="{from:.1}" y="{top:.1}" width="{wide:.1}" height="{:.1}" fill="{colour}" class="k{}"><title>{tip}</title></rect>"#,
                ROW - 3.0,
                part.kind
            ));
        }
        if let Some((at, how)) = &bar.ended {
            let (at, middle, tip) =
                (x.at(*at), top + (ROW - 3.0) / 2.0, escape(&format!("{}: {how}", bar.label)));
            svg.raw(format_args!(
                r#"<path transform="translate({at:.1} {middle:.1})" d="M-4,-4L4,4M4,-4L-4,4" stroke="{ALARM}" stroke-width="2"><title>{tip}</title></path>"#
            ));
        }
    }

    fn keys(&self) -> Vec<Key> {
        let used =
            |kind: usize| self.bars.iter().any(|bar| bar.segments.iter().any(|part| part.kind == kind));
        let mut keys: Vec<Key> = (0..self.legend.len())
            .filter(|&kind| used(kind))
            .map(|kind| Key {
                sample: format!(
                    r#"<rect x="4" y="-5" width="20" height="10" fill="{}"/>"#,
                    segment_colour(kind)
                ),
                name: self.legend[kind].to_owned(),
                group: format!("k{kind}"),
            })
            .collect();
        if self.bars.iter().any(|bar| bar.ended.is_some()) {
            keys.push(Key {
                sample: format!(r#"<path transform="translate(14 0)" d="M-4,-4L4,4M4,-4L-4,4" stroke="{ALARM}" stroke-width="2"/>"#),
                name: "failed, cancelled or unfinished".into(),
                group: String::new(),
            });
        }
        keys
    }
}

/// In the legend's order; waiting for the client is grey.
fn segment_colour(kind: usize) -> &'static str {
    const COLOURS: [&str; 7] = ["#b5b5b5", "#e69f00", "#0072b2", "#cc79a7", "#d55e00", "#56b4e9", "#009e73"];
    COLOURS[kind % COLOURS.len()]
}
