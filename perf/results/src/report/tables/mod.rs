//! The report's tables as HTML.

mod comparison;
mod overview;
mod run;

use std::fmt::Write as _;

use crate::chart::escape;

pub(super) use self::comparison::comparison;
pub(super) use self::overview::{overview, versus};
pub(super) use self::run::{how, run};

/// A table of a header (`name` or `name, unit`) and rows; the first column is text, the others are figures.
fn table(caption: &str, header: Vec<String>, rows: &[Vec<String>]) -> String {
    let mut html = format!("<div class=\"wide\"><table><caption>{}</caption>\n<thead><tr>", escape(caption));
    for cell in header {
        // Into a string, writing cannot fail.
        let _ = match cell.split_once(", ") {
            Some((name, unit)) => {
                write!(html, "<th scope=\"col\">{}<small>{}</small></th>", escape(name), escape(unit))
            }
            None => write!(html, "<th scope=\"col\">{}</th>", escape(&cell)),
        };
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in rows {
        html += "<tr>";
        for (n, cell) in row.iter().enumerate() {
            let class = if cell.contains("INVALID") { " class=\"alarm\"" } else { "" };
            let _ = match n {
                0 => write!(html, "<th scope=\"row\"{class}>{}</th>", escape(cell)),
                _ => write!(html, "<td{class}>{}</td>", escape(cell)),
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}
