//! PostgreSQL's lexical rules over bytes
//! (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>, `scan.l`).
//!
//! One pass, no recursion, linear time. Literals are seen but not kept: what comes out is the text's *shape*, its
//! names in lower case and its operators, which is what rules and fingerprint look at.

use super::hint::Comments;
use super::keyword::{Keyword, keyword};

/// Of longer texts only the comments before the first token are scanned.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 20;
/// Texts of more tokens are not scanned to their end.
const MAX_TOKENS: usize = 1 << 18;
/// What the buffers may keep for the next text.
const KEPT_BYTES: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An unquoted name or keyword.
    Word,
    /// A quoted name.
    Quoted,
    /// `U&"…"`: a name that we do not decode.
    Encoded,
    /// A string, bit string, number or parameter: rules cannot tell them apart, nor can the fingerprint.
    Literal,
    Operator,
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    Comma,
    Semicolon,
    Dot,
    Colon,
    /// `::`
    Typecast,
}

/// `start..end` is a range of the shape, for a literal a range of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) keyword: Keyword,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Why a text has no end that we could find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unscannable {
    TooLong,
    /// A string, quoted name or comment that does not end, or a byte that PostgreSQL's lexer refuses.
    Malformed,
}

/// A scanned text; its buffers serve again for the next one.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) list: Vec<Token>,
    /// The text without literals, comments and white space; an encoding from which no two different token lists
    /// come out alike, but for lists of literals after IN.
    pub(super) shape: Vec<u8>,
    /// Those before the first token.
    pub(super) comments: Comments,
}

impl Tokens {
    fn clear(&mut self) {
        self.list.clear();
        self.list.shrink_to(KEPT_BYTES / size_of::<Token>());
        self.shape.clear();
        self.shape.shrink_to(KEPT_BYTES);
        self.comments = Comments::default();
    }

    /// The bytes of a name or an operator; empty for anything else.
    pub(super) fn name(&self, token: Token) -> &[u8] {
        match token.kind {
            Kind::Word | Kind::Quoted | Kind::Operator => {
                self.shape.get(token.start as usize..token.end as usize).unwrap_or_default()
            }
            _ => &[],
        }
    }
}

/// Scans `text` into `out`.
///
/// `standard_strings` is the session's `standard_conforming_strings`: when it is off, a backslash escapes in plain
/// strings too.
pub(super) fn scan(text: &[u8], standard_strings: bool, out: &mut Tokens) -> Result<(), Unscannable> {
    out.clear();
    let mut lexer = Lexer { text, at: 0, standard_strings, out, statement: Keyword::None, in_list: false };
    lexer.run()
}

const LITERAL: u8 = 1;
const SEPARATOR: u8 = 2;
const QUOTED: u8 = 3;
const ENCODED: u8 = 4;
const BODY: u8 = 5;

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    standard_strings: bool,
    out: &'a mut Tokens,
    /// The first word of the statement.
    statement: Keyword,
    /// Only literals and commas so far in a list after IN.
    in_list: bool,
}

/// What `\` and a doubled quote mean inside quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Doubling,
    Backslash,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), Unscannable> {
        while let Some(&byte) = self.text.get(self.at) {
            if self.out.list.len() >= MAX_TOKENS {
                return Err(Unscannable::TooLong);
            }
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == Some(b'-') => self.at = line_end(self.text, self.at),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment()?,
                _ if self.text.len() > MAX_TEXT_BYTES => return Err(Unscannable::TooLong),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => self.word_or_prefixed()?,
                b'"' => self.quoted_name()?,
                b'\'' => self.string(self.at, self.plain_escapes())?,
                b'$' => self.dollar()?,
                b'0'..=b'9' => self.number(),
                b'.' if self.peek(1) == Some(b'.') => {
                    self.single(Kind::Dot);
                    self.single(Kind::Dot);
                }
                b'.' if self.peek(1).is_some_and(|b| b.is_ascii_digit()) => self.number(),
                b':' => self.colon(),
                b if is_operator(b) => self.operators(),
                b'(' => self.single(Kind::Open),
                b')' => self.single(Kind::Close),
                b'[' => self.single(Kind::OpenBracket),
                b']' => self.single(Kind::CloseBracket),
                b',' => self.single(Kind::Comma),
                b'.' => self.single(Kind::Dot),
                b';' => self.single(Kind::Semicolon),
                _ => return Err(Unscannable::Malformed),
            }
        }
        Ok(())
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn plain_escapes(&self) -> Escapes {
        if self.standard_strings { Escapes::Doubling } else { Escapes::Backslash }
    }

    fn push(&mut self, kind: Kind, keyword: Keyword, start: usize, end: usize) {
        if kind == Kind::Semicolon {
            self.statement = Keyword::None;
        } else if self.out.list.last().is_none_or(|t| t.kind == Kind::Semicolon) {
            self.statement = keyword;
        }
        let opens_list = kind == Kind::Open
            && self.out.list.last().is_some_and(|t| t.keyword == Keyword::In && t.kind == Kind::Word);
        self.in_list = opens_list || self.in_list && matches!(kind, Kind::Literal | Kind::Comma);
        self.out.list.push(Token { kind, keyword, start: offset(start), end: offset(end) });
    }

    fn single(&mut self, kind: Kind) {
        let start = self.out.shape.len();
        self.out.shape.push(self.text[self.at]);
        self.at += 1;
        self.push(kind, Keyword::None, start, start + 1);
    }

    /// A literal at `start..self.at`. The body of DO is code, and the first argument of `set_config` and
    /// `current_setting` is a name: they belong to the shape.
    fn literal(&mut self, start: usize) {
        let in_list = self.in_list;
        let is_kept = self.statement == Keyword::Do || self.is_setting();
        self.push(Kind::Literal, Keyword::None, start, self.at);
        let shape = &mut self.out.shape;
        if is_kept {
            let body = &self.text[start..self.at];
            shape.push(BODY);
            shape.extend_from_slice(&offset(body.len()).to_le_bytes());
            shape.extend_from_slice(body);
        } else if in_list && shape.ends_with(&[LITERAL, b',']) {
            shape.pop();
        } else {
            shape.push(LITERAL);
        }
    }

    /// Next is the first argument of `set_config` or `current_setting`.
    fn is_setting(&self) -> bool {
        match self.out.list.as_slice() {
            [.., name, open] if open.kind == Kind::Open => {
                matches!(self.out.name(*name), b"set_config" | b"current_setting")
            }
            _ => false,
        }
    }

    fn block_comment(&mut self) -> Result<(), Unscannable> {
        let start = self.at;
        let mut depth = 1_u32;
        self.at += 2;
        while depth > 0 {
            let found = memchr::memchr2(b'*', b'/', &self.text[self.at..]).ok_or(Unscannable::Malformed)?;
            self.at += found;
            match (self.text[self.at], self.peek(1)) {
                (b'*', Some(b'/')) => (depth, self.at) = (depth - 1, self.at + 2),
                (b'/', Some(b'*')) => (depth, self.at) = (depth + 1, self.at + 2),
                _ => self.at += 1,
            }
        }
        if self.out.list.is_empty() {
            self.out.comments.read(&self.text[start + 2..self.at - 2]);
        }
        Ok(())
    }

    fn word_or_prefixed(&mut self) -> Result<(), Unscannable> {
        let start = self.at;
        match (self.text[start] | 0x20, self.peek(1), self.peek(2)) {
            (b'e', Some(b'\''), _) => {
                self.at += 1;
                self.string(start, Escapes::Backslash)
            }
            (b'b' | b'x', Some(b'\''), _) => {
                self.at += 1;
                self.string(start, Escapes::Doubling)
            }
            (b'n', Some(b'\''), _) => {
                self.at += 1;
                self.string(start, self.plain_escapes())
            }
            (b'u', Some(b'&'), Some(b'\'')) => {
                self.at += 2;
                self.string(start, self.plain_escapes())
            }
            (b'u', Some(b'&'), Some(b'"')) => {
                self.at += 2;
                self.encoded_name(start)
            }
            _ => {
                self.word();
                Ok(())
            }
        }
    }

    fn word(&mut self) {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|&b| !is_word(b)).unwrap_or(rest.len());
        let shape = &mut self.out.shape;
        let start = shape.len();
        shape.extend(rest[..length].iter().map(u8::to_ascii_lowercase));
        let end = shape.len();
        let keyword = keyword(&shape[start..end]);
        shape.push(SEPARATOR);
        self.at += length;
        self.push(Kind::Word, keyword, start, end);
    }

    /// A string whose first quote is at `self.at` and whose literal began at `start`. After white space with a line
    /// break the next quote continues the same string.
    fn string(&mut self, start: usize, escapes: Escapes) -> Result<(), Unscannable> {
        self.at += 1;
        loop {
            self.skip_to_closing(b'\'', escapes)?;
            match continued_string(self.text, self.at) {
                Some(next) => self.at = next,
                None => break,
            }
        }
        self.literal(start);
        Ok(())
    }

    /// Moves behind the quote that closes.
    fn skip_to_closing(&mut self, quote: u8, escapes: Escapes) -> Result<(), Unscannable> {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let found = match escapes {
                Escapes::Doubling => memchr::memchr(quote, rest),
                Escapes::Backslash => memchr::memchr2(quote, b'\\', rest),
            };
            self.at += found.ok_or(Unscannable::Malformed)?;
            if self.text[self.at] == quote && self.peek(1) != Some(quote) {
                self.at += 1;
                return Ok(());
            }
            self.at += 2;
        }
    }

    fn quoted_name(&mut self) -> Result<(), Unscannable> {
        let first = self.at + 1;
        self.at = first;
        self.skip_to_closing(b'"', Escapes::Doubling)?;
        let inside = &self.text[first..self.at - 1];
        let shape = &mut self.out.shape;
        shape.push(QUOTED);
        shape.extend_from_slice(&offset(inside.len()).to_le_bytes());
        let start = shape.len();
        let mut rest = inside;
        while let Some(doubled) = memchr::memchr(b'"', rest) {
            shape.extend_from_slice(&rest[..=doubled]);
            rest = rest.get(doubled + 2..).unwrap_or_default();
        }
        shape.extend_from_slice(rest);
        let end = shape.len();
        self.push(Kind::Quoted, Keyword::None, start, end);
        Ok(())
    }

    fn encoded_name(&mut self, start: usize) -> Result<(), Unscannable> {
        self.at += 1;
        self.skip_to_closing(b'"', Escapes::Doubling)?;
        let bytes = &self.text[start..self.at];
        let shape = &mut self.out.shape;
        shape.push(ENCODED);
        shape.extend_from_slice(&offset(bytes.len()).to_le_bytes());
        shape.extend_from_slice(bytes);
        self.push(Kind::Encoded, Keyword::None, 0, 0);
        Ok(())
    }

    /// `$1`, `$$…$$` or `$tag$…$tag$`.
    fn dollar(&mut self) -> Result<(), Unscannable> {
        let start = self.at;
        let rest = &self.text[start + 1..];
        let first = rest.first().copied().unwrap_or_default();
        if first.is_ascii_digit() {
            self.at += 1 + digits(rest);
        } else {
            let tag = rest.iter().position(|&b| b == b'$' || !is_word(b)).ok_or(Unscannable::Malformed)?;
            if rest[tag] != b'$' {
                return Err(Unscannable::Malformed);
            }
            let delimiter = &self.text[start..start + tag + 2];
            let body = start + delimiter.len();
            let end = memchr::memmem::find(&self.text[body..], delimiter).ok_or(Unscannable::Malformed)?;
            self.at = body + end + delimiter.len();
        }
        self.literal(start);
        Ok(())
    }

    /// Digits with `_` between them, a fraction, an exponent, or a number after `0x`, `0o`, `0b`.
    fn number(&mut self) {
        let start = self.at;
        if self.text[start] == b'0' && self.peek(1).is_some_and(|b| matches!(b | 0x20, b'x' | b'o' | b'b')) {
            let rest = &self.text[start + 2..];
            self.at += 2 + rest.iter().position(|b| !b.is_ascii_hexdigit() && *b != b'_').unwrap_or(rest.len());
            return self.literal(start);
        }
        self.at += digits(&self.text[self.at..]);
        if self.peek(0) == Some(b'.') && self.peek(1) != Some(b'.') {
            self.at += 1;
            self.at += digits(&self.text[self.at..]);
        }
        let exponent = self.peek(0).is_some_and(|b| b | 0x20 == b'e');
        let sign = usize::from(self.peek(1).is_some_and(|b| matches!(b, b'+' | b'-')));
        if exponent && self.peek(1 + sign).is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1 + sign;
            self.at += digits(&self.text[self.at..]);
        }
        self.literal(start);
    }

    fn colon(&mut self) {
        let (kind, length) = match self.peek(1) {
            Some(b':') => (Kind::Typecast, 2),
            Some(b'=') => (Kind::Operator, 2),
            _ => (Kind::Colon, 1),
        };
        self.named(kind, length);
    }

    /// One run of operator characters, up to a comment in it. A trailing `+` or `-` belongs to the operator only if
    /// that also has one of ``~ ! @ # ^ & | ` ? %``; otherwise it is an operator of its own.
    fn operators(&mut self) {
        let rest = &self.text[self.at..];
        let mut length = rest.iter().position(|&b| !is_operator(b)).unwrap_or(rest.len());
        if let Some(comment) = rest[..length].windows(2).position(|pair| pair == b"--" || pair == b"/*") {
            length = comment;
        }
        let run = &rest[..length];
        let signs = run.iter().rev().take_while(|&&b| matches!(b, b'+' | b'-')).count();
        let keeps_signs = signs > 0 && run[..length - 1].iter().any(|b| b"~!@#^&|`?%".contains(b));
        if signs == 0 || keeps_signs {
            return self.named(Kind::Operator, length);
        }
        let mut left = signs;
        if signs < length {
            self.named(Kind::Operator, length - signs);
        }
        while left > 0 && self.out.list.len() < MAX_TOKENS {
            self.named(Kind::Operator, 1);
            left -= 1;
        }
    }

    /// A token of `length` bytes that keeps its text.
    fn named(&mut self, kind: Kind, length: usize) {
        let shape = &mut self.out.shape;
        let start = shape.len();
        shape.extend_from_slice(&self.text[self.at..self.at + length]);
        let end = shape.len();
        shape.push(SEPARATOR);
        self.at += length;
        self.push(kind, Keyword::None, start, end);
    }
}

/// Texts are no longer than [`MAX_TEXT_BYTES`], so their shapes (at most six bytes for one) fit.
fn offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

const WORD: u8 = 1;
const OPERATOR: u8 = 2;

/// What a byte may be part of.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "under 256")]
        if (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_' || byte as u8 == b'$' || byte >= 0x80 {
            classes[byte] = WORD;
        }
        byte += 1;
    }
    let operators = b"~!@#^&|`?+-*/%<>=";
    let mut at = 0;
    while at < operators.len() {
        classes[operators[at] as usize] = OPERATOR;
        at += 1;
    }
    classes
};

/// May continue an unquoted name.
pub(super) fn is_word(byte: u8) -> bool {
    CLASSES[usize::from(byte)] == WORD
}

fn is_operator(byte: u8) -> bool {
    CLASSES[usize::from(byte)] == OPERATOR
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !b.is_ascii_digit() && *b != b'_').unwrap_or(bytes.len())
}

/// Where the line that holds `at` ends.
pub(super) fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr2(b'\n', b'\r', &text[at..]).map_or(text.len(), |found| at + found)
}

/// Behind the quote that continues a string which closed before `at`.
fn continued_string(text: &[u8], mut at: usize) -> Option<usize> {
    let mut line_break = false;
    loop {
        match *text.get(at)? {
            b' ' | b'\t' | 0x0b | 0x0c => at += 1,
            b'\n' | b'\r' => (line_break, at) = (true, at + 1),
            b'-' if text.get(at + 1) == Some(&b'-') => at = line_end(text, at),
            b'\'' if line_break => return Some(at + 1),
            _ => return None,
        }
    }
}
