//! SVG to PNG, without a browser and with the font that comes with this crate, so that each machine draws the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

use crate::Chart;

/// Roboto, Apache License 2.0; `assets/README.md` says where from and which characters.
pub(super) const FONT: &[u8] = include_bytes!("../../assets/Roboto-Regular-subset.ttf");

/// Pixels of a picture for one of the chart.
const SCALE: f32 = 2.0;

/// A chart that can't be made a picture.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// A file can't be written.
    #[error("can't write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A bug of this crate: its SVG is not understood.
    #[error("the chart {chart} can't be drawn: {problem}")]
    Draw {
        /// Which.
        chart: String,
        /// Why.
        problem: String,
    },
}

pub(super) fn write(charts: &[Chart], folder: &Path) -> Result<usize, DrawError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| DrawError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(fail(folder))?;
    let fonts = fonts();
    for chart in charts {
        let path = folder.join(format!("{}.png", chart.name));
        fs::write(&path, picture(chart, &fonts)?).map_err(fail(&path))?;
    }
    Ok(charts.len())
}

fn fonts() -> Arc<fontdb::Database> {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    Arc::new(fonts)
}

/// The PNG of `chart`.
pub(super) fn picture(chart: &Chart, fonts: &Arc<fontdb::Database>) -> Result<Vec<u8>, DrawError> {
    let fail = |problem: String| DrawError::Draw { chart: chart.name.clone(), problem };
    let options = usvg::Options {
        fontdb: Arc::clone(fonts),
        font_family: "Roboto".into(),
        // No file is looked up: a chart refers to nothing outside.
        resources_dir: None,
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_str(&chart.svg, &options).map_err(|error| fail(error.to_string()))?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or_else(|| fail("it has no size".into()))?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or_else(|| fail("it has no size".into()))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| fail(error.to_string()))
}
