//! The class of a text, in words.

use std::collections::BTreeSet;

use super::change::is_parameter;
use super::facts::CatalogFacts;
use super::judge::judge;
use super::lexer::{Kind, Tokens, scan};
use super::{Classified, Hint};
use crate::types::OwnSetting;

/// A row of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    pub name: String,
    pub value: String,
}

impl Property {
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// What a text is taken for and why, and the same of each of its statements when there are several.
pub fn explain(text: &[u8], classified: &Classified, facts: &CatalogFacts) -> Vec<Property> {
    let mut rows = summary(classified);
    let mut scanned = Tokens::default();
    if scan(text, true, &mut scanned).is_err() {
        return rows;
    }
    let mut statements = Vec::new();
    judge(text, &scanned, facts, |statement, finding| {
        let verb = String::from_utf8_lossy(statement.name(0)).to_uppercase();
        let (class, why, effects) = (finding.class.as_str(), &finding.why, finding.change.effects);
        statements.push(format!("{verb}: {class}, {why}, effects {effects}"));
    });
    if statements.len() > 1 {
        rows.extend(statements.into_iter().zip(1..).map(|(said, n)| Property::new(format!("statement {n}"), said)));
    }
    rows
}

/// The numbers of the parameters (`$1`) in a text, ascending.
pub fn parameters(text: &[u8]) -> impl Iterator<Item = u16> {
    let mut scanned = Tokens::default();
    // What cannot be scanned has none that we know of.
    let _ = scan(text, true, &mut scanned);
    let literals = scanned.list.iter().filter(|token| token.kind == Kind::Literal);
    let literals = literals.filter_map(|token| text.get(token.start as usize..token.end as usize));
    let numbers = literals.filter(|literal| is_parameter(literal)).filter_map(|literal| literal.get(1..));
    let numbers: BTreeSet<u16> = numbers.filter_map(|digits| str::from_utf8(digits).ok()?.parse().ok()).collect();
    numbers.into_iter()
}

fn summary(whole: &Classified) -> Vec<Property> {
    let mut rows = vec![
        Property::new("class", whole.class.as_str()),
        Property::new("decided by", format!("{} ({})", whole.why, whole.why.rule.as_str())),
        Property::new("effects", whole.effects.to_string()),
        Property::new("hint", hints(whole)),
        Property::new("fingerprint", format!("{:016x}", whole.fingerprint)),
    ];
    if !whole.settings.is_empty() {
        rows.insert(3, Property::new("settings", whole.settings.join(", ")));
    }
    if let Some(bad) = whole.refusal() {
        rows.push(Property::new("refused", format!("{} (SQLSTATE {})", bad.message, bad.sqlstate)));
    }
    rows
}

/// As one would write them.
fn hints(whole: &Classified) -> String {
    let hints = whole.hints();
    let values = OwnSetting::ALL.into_iter().filter_map(|setting| hints.get(setting));
    let values = values.map(|value| format!("{}={value}", value.setting().short_name()));
    let all: Vec<_> = whole.hint.map(Hint::as_str).map(str::to_owned).into_iter().chain(values).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
