use super::frame::{Frame, Key, WIDTH};
use super::palette::colour;
use super::scale::Scale;
use super::svg::{Anchor, Svg};
use super::{Chart, escape};

/// Ratios with their intervals, one below the other, around a line at 1.
pub(crate) struct Forest {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// Why not all of it may be believed; empty if it may.
    pub(crate) invalid: String,
    pub(crate) ratios: Vec<Ratio>,
}

/// A row.
pub(crate) struct Ratio {
    pub(crate) label: String,
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// What B is: better, worse, or neither.
    pub(crate) better: Option<bool>,
}

const ROW: f64 = 26.0;

impl Forest {
    /// Draws it.
    pub(crate) fn draw(&self) -> Chart {
        let mut svg = Svg::default();
        let height = ROW * self.ratios.len() as f64 + 8.0;
        let frame = Frame {
            title: &self.title,
            subtitle: &self.subtitle,
            invalid: &self.invalid,
            left: 250.0,
            height,
        };
        let mut plot = frame.head(&mut svg);
        // Figures stand right of the plot.
        plot.right -= 150.0;
        let reach = self
            .ratios
            .iter()
            .flat_map(|ratio| [1.0 / ratio.low, ratio.high])
            .filter(|reach| reach.is_finite());
        let reach = reach.fold(1.02_f64, f64::max).min(10.0).powf(1.1);
        let x = Scale::between(1.0 / reach, reach, reach > 6.0, (plot.left, plot.right));
        plot.x_axis(&mut svg, &x, "B ÷ A, with its 95 % interval");
        svg.rule("axis", (x.at(1.0), plot.top), (x.at(1.0), plot.bottom));
        for (n, ratio) in self.ratios.iter().enumerate() {
            let y = plot.top + 4.0 + ROW * (n as f64 + 0.5);
            svg.text((plot.left - 12.0, y + 4.5), 13.0, "ink", Anchor::End, &ratio.label);
            ratio.draw(&mut svg, &x, y);
            let figures = format!("{:.3}  ({:.3} to {:.3})", ratio.mean, ratio.low, ratio.high);
            svg.text((WIDTH - 24.0, y + 4.5), 12.0, "muted", Anchor::End, &figures);
        }
        let height = plot.legend(&mut svg, &keys());
        Chart {
            name: self.name.clone(),
            title: self.title.clone(),
            svg: svg.finish(WIDTH, height, &self.title),
        }
    }
}

impl Ratio {
    fn draw(&self, svg: &mut Svg, x: &Scale, y: f64) {
        let (low, mean, high) = (x.at(self.low), x.at(self.mean), x.at(self.high));
        let kind = kind(self.better);
        let (colour, marker) = (colour(kind), shape(kind));
        let tip = escape(&format!(
            "{}: {:.3}, 95 % interval {:.3} to {:.3}",
            self.label, self.mean, self.low, self.high
        ));
        svg.raw(format_args!(
            r#"<g><path d="M{low:.1},{y:.1}H{high:.1}M{low:.1},{:.1}v8M{high:.1},{:.1}v8" stroke="{colour}" stroke-width="2" fill="none"/><path transform="translate({mean:.1} {y:.1})" d="{marker}" fill="{colour}"/><title>{tip}</title></g>"#,
            y - 4.0,
            y - 4.0
        ));
    }
}

fn keys() -> Vec<Key> {
    [("B is better", Some(true)), ("B is worse", Some(false)), ("no difference seen", None)]
        .into_iter()
        .map(|(name, better)| {
            let kind = kind(better);
            Key {
                sample: format!(
                    r#"<path transform="translate(14 0)" d="{}" fill="{}"/>"#,
                    shape(kind),
                    colour(kind)
                ),
                name: name.into(),
                group: String::new(),
            }
        })
        .collect()
}

/// Blue, orange and grey: told apart by everybody.
fn kind(better: Option<bool>) -> usize {
    match better {
        Some(true) => 0,
        Some(false) => 1,
        None => 6,
    }
}

fn shape(kind: usize) -> &'static str {
    super::palette::marker(kind)
}
