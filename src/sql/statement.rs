//! One statement's tokens, and what was found about it.

use super::change::Change;
use super::keyword::Keyword;
use super::lexer::{Kind, Token, Tokens};
use super::own::Own;
use super::{Begin, ByName, Class, Effects, Rule, Sole, Why};

/// One statement of a scanned text, without its semicolon. Positions past the end are harmless: they have no kind
/// and no keyword.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    pub(super) tokens: &'a [Token],
    pub(super) scanned: &'a Tokens,
    pub(super) text: &'a [u8],
}

impl<'a> Statement<'a> {
    pub(super) fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|t| t.kind)
    }

    /// `Keyword::None` for anything but an unquoted keyword.
    pub(super) fn keyword(&self, at: usize) -> Keyword {
        self.tokens.get(at).map_or(Keyword::None, |t| t.keyword)
    }

    pub(super) fn is(&self, at: usize, kind: Kind) -> bool {
        self.kind(at) == Some(kind)
    }

    /// A name that is not a reserved word.
    pub(super) fn is_name(&self, at: usize) -> bool {
        match self.kind(at) {
            Some(Kind::Word) => !self.keyword(at).is_reserved(),
            Some(Kind::Quoted | Kind::Encoded) => true,
            _ => false,
        }
    }

    /// An unquoted name or keyword, given in lower case.
    pub(super) fn is_word(&self, at: usize, word: &[u8]) -> bool {
        self.is(at, Kind::Word) && self.name(at) == word
    }

    /// The bytes of a name (in lower case unless quoted) or an operator; empty for anything else.
    pub(super) fn name(&self, at: usize) -> &'a [u8] {
        self.tokens.get(at).map_or(&[], |t| self.scanned.name(*t))
    }

    /// What stands before the dot before `at`.
    pub(super) fn qualifier(&self, at: usize) -> Option<&'a [u8]> {
        let named =
            at >= 2 && self.is(at - 1, Kind::Dot) && matches!(self.kind(at - 2), Some(Kind::Word | Kind::Quoted));
        named.then(|| self.name(at - 2))
    }

    /// The literal's bytes as the client wrote them, with its quotes.
    pub(super) fn literal(&self, at: usize) -> Option<&'a [u8]> {
        let token = self.tokens.get(at).filter(|t| t.kind == Kind::Literal)?;
        self.text.get(token.start as usize..token.end as usize)
    }

    /// The statement from `at` on.
    pub(super) fn from(&self, at: usize) -> Self {
        Self { tokens: self.tokens.get(at..).unwrap_or_default(), ..*self }
    }

    /// The statement before `at`.
    pub(super) fn until(&self, at: usize) -> Self {
        Self { tokens: self.tokens.get(..at).unwrap_or_default(), ..*self }
    }

    /// The position of the parenthesis that closes the one at `open`, if that is near: for questions that a text may
    /// make us ask at every token.
    pub(super) fn closing_nearby(&self, open: usize) -> Option<usize> {
        const NEAR_TOKENS: usize = 256;
        self.until(open.saturating_add(NEAR_TOKENS).min(self.tokens.len())).closing(open)
    }

    /// The position of the parenthesis that closes the one at `open`.
    pub(super) fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close if depth <= 1 => return Some(at),
                Kind::Close => depth -= 1,
                _ => {}
            }
        }
        None
    }
}

/// What the rules found: starts as a read and only gets worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) class: Class,
    pub(super) why: Why,
    pub(super) change: Change,
    pub(super) begins: Option<Begin>,
    pub(super) sole: Option<Sole>,
    pub(super) by_name: Option<ByName>,
    pub(super) transaction_control: bool,
    pub(super) own: Option<Box<Own>>,
    pub(super) mentions_own: bool,
    /// It is one EXPLAIN ROUTE.
    pub(super) explains_route: bool,
}

impl Finding {
    /// A read, unless worse is found.
    pub(super) fn read(rule: Rule) -> Self {
        Self {
            class: Class::Read,
            why: Why { rule, name: None },
            change: Change::default(),
            begins: None,
            sole: None,
            by_name: None,
            transaction_control: false,
            own: None,
            mentions_own: false,
            explains_route: false,
        }
    }

    pub(super) fn write(rule: Rule, name: &[u8]) -> Self {
        let mut finding = Self::read(rule);
        finding.worsen(Class::Write, rule, name);
        finding
    }

    pub(super) fn control(mut self) -> Self {
        self.transaction_control = true;
        self
    }

    pub(super) fn with(mut self, effects: Effects) -> Self {
        self.change.add(effects);
        self
    }

    /// The first of the worst findings gives the reason.
    pub(super) fn worsen(&mut self, class: Class, rule: Rule, name: &[u8]) {
        if class > self.class {
            self.class = class;
            self.why = Why { rule, name: printable(name) };
        }
    }

    /// Takes in the finding of the text's next statement.
    pub(super) fn join(&mut self, next: Self) {
        let says_nothing = |rule| matches!(rule, Rule::Empty | Rule::TransactionControl | Rule::BeginReadOnly);
        if next.class > self.class || next.class == self.class && says_nothing(self.why.rule) {
            self.class = next.class;
            self.why = next.why;
        }
        self.change.join(&next.change);
        self.transaction_control |= next.transaction_control;
        match (&mut self.own, next.own) {
            (Some(own), Some(next)) => own.join(*next),
            (own, next) => *own = own.take().or(next),
        }
        self.mentions_own |= next.mentions_own;
        self.begins = None;
        self.sole = None;
        self.by_name = None;
        self.explains_route = false;
    }
}

/// A name to show: cut, and without bytes that are no text.
fn printable(name: &[u8]) -> Option<Box<str>> {
    const SHOWN_BYTES: usize = 63;
    let shown = name.get(..SHOWN_BYTES).unwrap_or(name);
    (!shown.is_empty()).then(|| String::from_utf8_lossy(shown).into())
}
