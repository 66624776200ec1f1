//! Bars in groups, as SVG that is readable on light and dark backgrounds and loads nothing.

use std::fmt::Write as _;

#[derive(Debug)]
pub struct Bar {
    pub name: &'static str,
    pub value: f64,
    /// To the peer that all are compared with.
    pub ratio: Option<f64>,
    pub ours: bool,
}

#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    pub bars: Vec<Bar>,
}

/// Pixels.
const WIDTH: f64 = 820.0;
const LEFT: f64 = 110.0;
const LONGEST: f64 = 560.0;
const BAR: f64 = 18.0;
const STEP: f64 = 23.0;
const HEAD: f64 = 42.0;
const NOTE: f64 = 19.0;
const GROUP_HEAD: f64 = 30.0;
const GROUP_GAP: f64 = 12.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}\
     .title{font-size:17px;font-weight:600}\
     .group{font-weight:600}\
     .note{fill:#59636e}\
     .bar{fill:#9aa4af}\
     .ours{fill:#0969da}\
     .own{font-weight:600}\
     @media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.bar{fill:#59636e}.ours{fill:#4493f8}}";

/// Title and names are ours: only in the notes may something have to be escaped.
pub fn draw(title: &str, notes: &[&str], groups: &[Group]) -> String {
    let most = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value).fold(0.0, f64::max);
    let mut body = String::new();
    let mut y = HEAD;
    for note in notes {
        let note = note.replace('&', "&amp;").replace('<', "&lt;");
        // Writing to a string cannot fail.
        let _ = writeln!(body, r#"<text class="note" x="0" y="{y}">{note}</text>"#);
        y += NOTE;
    }
    for group in groups.iter().filter(|group| !group.bars.is_empty()) {
        let _ = writeln!(body, r#"<text class="group" x="0" y="{:.0}">{}</text>"#, y + 18.0, group.title);
        y += GROUP_HEAD;
        for bar in &group.bars {
            draw_bar(&mut body, bar, y, most);
            y += STEP;
        }
        y += GROUP_GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"0\" y=\"20\">{title}</text>\n\
         {body}</svg>\n"
    )
}

fn draw_bar(body: &mut String, bar: &Bar, y: f64, most: f64) {
    let length = (bar.value / most * LONGEST).max(1.0);
    let (bar_class, text_class) = if bar.ours { ("ours", "own") } else { ("bar", "name") };
    let ratio = bar.ratio.map(|ratio| format!(" · {ratio:.2}×")).unwrap_or_default();
    let middle = y + 13.5;
    let _ = writeln!(
        body,
        "<text class=\"{text_class}\" x=\"{:.0}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{bar_class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\
         <text class=\"{text_class}\" x=\"{:.1}\" y=\"{middle}\">{:.3}{ratio}</text>",
        LEFT - 8.0,
        bar.name,
        LEFT + length + 8.0,
        bar.value,
    );
}
