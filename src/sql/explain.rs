//! The class of a text, in words.

use std::time::Instant;

use super::classify::{Classifier, Context};
use super::facts::CatalogFacts;
use super::judge::judge;
use super::lexer::{Tokens, scan};
use super::{Classified, Hint};
use crate::types::OwnSetting;

/// Lines that say what a text is and why, and the same of each of its statements when there are several.
pub fn explain(text: &[u8], facts: &CatalogFacts) -> Vec<String> {
    let context = Context {
        facts,
        facts_version: 0,
        standard_conforming_strings: true,
        safe_encoding: true,
        now: Instant::now(),
    };
    let whole = Classifier::new(0).classify(text, &context);
    let mut lines = summary(&whole);
    let mut scanned = Tokens::default();
    if scan(text, true, &mut scanned).is_err() {
        return lines;
    }
    let mut statements = Vec::new();
    judge(text, &scanned, facts, |statement, finding| {
        let verb = String::from_utf8_lossy(statement.name(0)).to_uppercase();
        statements.push(format!(
            "{verb}: {}, {}, effects {}",
            finding.class.as_str(),
            finding.why,
            finding.change.effects
        ));
    });
    if statements.len() > 1 {
        lines.extend(statements.iter().enumerate().map(|(n, line)| format!("statement {}: {line}", n + 1)));
    }
    lines
}

fn summary(whole: &Classified) -> Vec<String> {
    let hints = hints(whole);
    let mut lines = vec![
        format!("class:       {}", whole.class.as_str()),
        format!("why:         {}", whole.why),
        format!("rule:        {}", whole.why.rule.as_str()),
        format!("effects:     {}", whole.effects),
        format!("hint:        {hints}"),
        format!("fingerprint: {:016x}", whole.fingerprint),
    ];
    if !whole.settings.is_empty() {
        lines.insert(4, format!("settings:    {}", whole.settings.join(", ")));
    }
    if let Some(bad) = whole.refusal() {
        lines.push(format!("refused:     {} (SQLSTATE {})", bad.message, bad.sqlstate));
    }
    lines
}

/// As one would write them.
fn hints(whole: &Classified) -> String {
    let hints = whole.hints();
    let values = OwnSetting::ALL.into_iter().filter_map(|setting| hints.get(setting));
    let values = values.map(|value| format!("{}={value}", value.setting().short_name()));
    let all: Vec<_> = whole.hint.map(Hint::as_str).map(str::to_owned).into_iter().chain(values).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
