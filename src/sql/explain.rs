//! The class of a text, in words.

use std::time::Instant;

use super::classify::{Classifier, Context};
use super::facts::CatalogFacts;
use super::judge::judge;
use super::lexer::{Tokens, scan};
use super::{Classified, Hint};

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
    let hint = match whole.hint {
        None => "none",
        Some(Hint::Primary) => "primary",
        Some(Hint::Replica) => "replica",
    };
    let mut lines = vec![
        format!("class:       {}", whole.class.as_str()),
        format!("why:         {}", whole.why),
        format!("rule:        {}", whole.why.rule.as_str()),
        format!("effects:     {}", whole.effects),
        format!("hint:        {hint}"),
        format!("fingerprint: {:016x}", whole.fingerprint),
    ];
    if !whole.settings.is_empty() {
        lines.insert(4, format!("settings:    {}", whole.settings.join(", ")));
    }
    lines
}
