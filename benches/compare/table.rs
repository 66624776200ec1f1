//! Tables that line up in a terminal and are Markdown too.

use crate::figures::median;

/// The first column is to the left, the others to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// As many cells as the head has.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn print(&self, title: &str, notes: &[String]) {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        println!("\n{title}\n");
        for (number, row) in self.rows.iter().enumerate() {
            println!("{}", line(row, &widths));
            if number == 0 {
                let rule = |(column, &width): (usize, &usize)| match column {
                    0 => format!("|{}", "-".repeat(width + 2)),
                    _ => format!("|{}:", "-".repeat(width + 1)),
                };
                println!("{}|", widths.iter().enumerate().map(rule).collect::<String>());
            }
        }
        for note in notes {
            println!("  {note}");
        }
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cell = |(column, (text, &width)): (usize, (&String, &usize))| match column {
        0 => format!("| {text:<width$} "),
        _ => format!("| {text:>width$} "),
    };
    row.iter().zip(widths).enumerate().map(cell).collect::<String>() + "|"
}

/// A value with so many digits after the point, or a dash.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The median, and what it is the median of: `0.93 (0.91 0.93 0.96)`.
pub fn spread(values: Vec<f64>) -> String {
    let each = values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(" ");
    median(values).map_or_else(|| "-".to_owned(), |middle| format!("{middle:.2} ({each})"))
}
