//! The outcome, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// A sentence that holds or does not.
#[derive(Debug)]
pub(crate) struct Promise {
    pub(crate) what: String,
    pub(crate) found: String,
    pub(crate) holds: bool,
}

impl Promise {
    /// That `found` is at most `most`.
    pub(crate) fn at_most(what: &str, found: f64, most: f64, unit: &str) -> Self {
        let what = format!("{what} at most {most}{unit}");
        Self { what, found: format!("{found:.2}{unit}"), holds: found <= most }
    }
}

/// A table of measurements, and what follows from it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) title: String,
    /// Name and decimals of each column; the first is what the others are plotted against.
    pub(crate) columns: Vec<(&'static str, usize)>,
    pub(crate) rows: Vec<Vec<f64>>,
    /// Columns that are plotted as well.
    pub(crate) plotted: Vec<usize>,
    pub(crate) notes: Vec<String>,
    pub(crate) promises: Vec<Promise>,
}

/// Width of a plot's longest bar.
const BAR: f64 = 48.0;

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.title);
        let line = |cells: &mut dyn Iterator<Item = String>| {
            cells.map(|cell| format!("{cell:>13}")).collect::<String>() + "\n"
        };
        text += &line(&mut self.columns.iter().map(|(name, _)| (*name).to_owned()));
        for row in &self.rows {
            let cell = |(value, (_, decimals)): (&f64, &(&str, usize))| format!("{value:.*}", *decimals);
            text += &line(&mut row.iter().zip(&self.columns).map(cell));
        }
        for column in &self.plotted {
            text += &self.plot(*column);
        }
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        for Promise { what, found, holds } in &self.promises {
            let _ = writeln!(
                text,
                "{} {what}: {found}",
                if *holds { "holds:        " } else { "DOES NOT HOLD:" }
            );
        }
        text
    }

    /// Bars from zero: what is flat looks flat.
    fn plot(&self, column: usize) -> String {
        let (name, decimals) = self.columns.get(column).copied().unwrap_or_default();
        let (axis, axis_decimals) = self.columns.first().copied().unwrap_or_default();
        let value = |row: &Vec<f64>, at: usize| row.get(at).copied().unwrap_or(0.0);
        let most = self.rows.iter().map(|row| value(row, column)).fold(f64::MIN_POSITIVE, f64::max);
        let mut text = format!("\n{name} by {axis}\n");
        for row in &self.rows {
            let (at, height) = (value(row, 0), value(row, column));
            let bar = "#".repeat((height / most * BAR).round() as usize);
            let _ = writeln!(text, "{at:>13.axis_decimals$} |{bar} {height:.decimals$}");
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let row = |row: &Vec<f64>| -> Value {
            row.iter()
                .zip(&self.columns)
                .map(|(value, (name, _))| ((*name).to_owned(), json!(value)))
                .collect()
        };
        let promise =
            |Promise { what, found, holds }: &Promise| json!({"what": what, "found": found, "holds": holds});
        let value = json!({
            "title": self.title,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "notes": self.notes,
            "promises": self.promises.iter().map(promise).collect::<Vec<_>>(),
        });
        format!("{value:#}")
    }
}
