//! Errors in the client's own terms: the names that it gave to its statements, and positions in the text that it sent.
//! Pure.

use super::statements::ClientStatements;

/// How a text was changed on its way to the server: behind `at` bytes it is so much longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    at: usize,
    longer: isize,
}

impl Shift {
    pub fn between(before: &[u8], after: &[u8]) -> Self {
        let at = before.iter().zip(after).take_while(|(a, b)| a == b).count();
        Self { at, longer: after.len().cast_signed() - before.len().cast_signed() }
    }

    /// From a position, counted from 1, in the text that the server got.
    fn back(self, position: usize) -> usize {
        if position <= self.at { position } else { position.saturating_add_signed(-self.longer).max(self.at + 1) }
    }
}

/// All names that we give to statements begin so.
const OURS: &[u8] = b"causeway_";

/// The body of an `ErrorResponse` as the client should read it; `None`: as it is.
pub fn reworded(body: &[u8], shift: Option<Shift>, statements: &ClientStatements) -> Option<Vec<u8>> {
    let names_ours = memchr::memmem::find(body, OURS).is_some();
    if !names_ours && shift.is_none() {
        return None;
    }
    let mut out = Vec::with_capacity(body.len());
    for field in body.split(|&byte| byte == 0) {
        match (field.split_first(), shift) {
            (Some((b'P', position)), Some(shift)) => {
                let position = std::str::from_utf8(position).ok()?.parse().ok()?;
                out.extend_from_slice(format!("P{}", shift.back(position)).as_bytes());
            }
            _ => put_with_own_names(field, statements, &mut out),
        }
        out.push(0);
    }
    // `split` gives one more piece than there are NULs.
    out.pop();
    Some(out)
}

fn put_with_own_names(mut text: &[u8], statements: &ClientStatements, out: &mut Vec<u8>) {
    while let Some(at) = memchr::memmem::find(text, OURS) {
        let (before, ours) = text.split_at(at);
        let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let (name, rest) = ours.split_at(ours.iter().position(|byte| !is_in_name(byte)).unwrap_or(ours.len()));
        out.extend_from_slice(before);
        out.extend_from_slice(statements.name_of(name).unwrap_or(name));
        text = rest;
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::prepared::Statements;

    #[test]
    fn errors_speak_of_what_the_client_sent() {
        let (interner, mut statements) = (Statements::new(7), ClientStatements::new(1));
        let (sent, named) = (b"PREPARE p AS SELECT nope", interner.own_sql(b"PREPARE p AS SELECT nope").unwrap());
        let shift = Shift::between(sent, named.text());
        let ours = String::from_utf8(named.name().to_vec()).unwrap();
        statements.define(b"p", Arc::clone(&named)).unwrap();
        let position = 21 + named.text().len() - sent.len();
        for (body, shift, expected) in [
            (format!("M\"{ours}\" is not there\0P{position}\0\0"), Some(shift), Some("M\"p\" is not there\0P21\0\0")),
            (format!("Mcauseway_x\0P{position}\0\0"), Some(shift), Some("Mcauseway_x\0P21\0\0")),
            ("Mnope\0P3\0\0".to_owned(), Some(shift), Some("Mnope\0P3\0\0")),
            ("Mnope\0P300\0\0".to_owned(), None, None),
        ] {
            let got = reworded(body.as_bytes(), shift, &statements);
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{body}");
        }
    }
}
