//! Backend messages: what Causeway itself says to clients, and cheap views of what a server said.
//!
//! Encoders append a whole frame to `out`. Parsers take a message's body (what follows the length), borrow from it,
//! and are lenient: whatever a server sends, they answer with less rather than panic.

use std::hash::{BuildHasher, Hasher};

use super::frame::{put, take_cstr};
use crate::error::{Error, Fault};
use crate::types::Lsn;

/// The SQLSTATE of what is no error.
const SUCCESSFUL_COMPLETION: &str = "00000";

/// [ParseComplete](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PARSECOMPLETE), a whole frame.
pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// [CloseComplete](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-CLOSECOMPLETE), a whole frame.
pub const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
/// There are no rows to describe.
pub const NO_DATA: &[u8] = b"n\0\0\0\x04";
/// A `ParameterDescription` of none.
pub const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// How bad it is, in the words of the protocol
/// ([error fields](https://www.postgresql.org/docs/current/protocol-error-fields.html)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session ends.
    Fatal,
    Warning,
    Notice,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// The transaction status byte of ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

impl TransactionStatus {
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// An [Authentication message](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-AUTHENTICATIONOK):
/// what we ask of a client, or what a node asks of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    Ok,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    /// The names of the mechanisms, the server's favourite first.
    Sasl(Vec<&'a str>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// Kerberos, GSSAPI, SSPI, or a number that we do not know.
    Other(u32),
}

/// Appends an `ErrorResponse` with the fields S, V, C, M and, where there are any, D and H.
pub fn put_error(out: &mut Vec<u8>, severity: Severity, error: &Error) {
    put_report(out, b'E', severity, error);
}

/// Appends a [NoticeResponse](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-NOTICERESPONSE)
/// with SQLSTATE 00000.
pub fn put_notice(out: &mut Vec<u8>, message: &str) {
    put_report(out, b'N', Severity::Notice, &Error::new(Fault::Client, SUCCESSFUL_COMPLETION, message));
}

fn put_report(out: &mut Vec<u8>, tag: u8, severity: Severity, error: &Error) {
    let severity = severity.as_str();
    let fields = [
        (b'S', Some(severity)),
        (b'V', Some(severity)),
        (b'C', Some(error.sqlstate())),
        (b'M', Some(error.message())),
        (b'D', error.detail_text()),
        (b'H', error.hint_text()),
    ];
    put(out, tag, |body| {
        for (field, text) in fields.into_iter().filter_map(|(field, text)| Some((field, text?))) {
            body.push(field);
            put_cstr(body, text.as_bytes());
        }
        body.push(0);
    });
}

/// What a column of text format holds, as far as clients care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Integer,
}

/// Appends a [RowDescription](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ROWDESCRIPTION)
/// of columns in text format that come from no table.
pub fn put_row_description(out: &mut Vec<u8>, columns: &[(&str, ColumnType)]) {
    put(out, b'T', |body| {
        body.extend_from_slice(&count(columns.len()).to_be_bytes());
        for (name, kind) in columns {
            put_cstr(body, name.as_bytes());
            // `text` and `int8`.
            let (oid, size): (u32, i16) = match kind {
                ColumnType::Text => (25, -1),
                ColumnType::Integer => (20, 8),
            };
            body.extend_from_slice(&[0; 6]);
            body.extend_from_slice(&oid.to_be_bytes());
            body.extend_from_slice(&size.to_be_bytes());
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            body.extend_from_slice(&[0; 2]);
        }
    });
}

/// Appends a [DataRow](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-DATAROW);
/// `None` is NULL.
pub fn put_data_row(out: &mut Vec<u8>, values: &[Option<String>]) {
    put(out, b'D', |body| {
        body.extend_from_slice(&count(values.len()).to_be_bytes());
        for value in values {
            let length = value.as_ref().map_or(-1, |text| i32::try_from(text.len()).unwrap_or(i32::MAX));
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(value.as_deref().unwrap_or_default().as_bytes());
        }
    });
}

fn count(columns: usize) -> u16 {
    u16::try_from(columns).unwrap_or(u16::MAX)
}

/// Appends a [ParameterStatus](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PARAMETERSTATUS).
pub fn put_parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put(out, b'S', |body| {
        put_cstr(body, name);
        put_cstr(body, value);
    });
}

/// Appends a [BackendKeyData](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-BACKENDKEYDATA):
/// 4 bytes of `secret` in protocol 3.0, up to 256 in 3.2.
pub fn put_backend_key(out: &mut Vec<u8>, process_id: i32, secret: &[u8]) {
    put(out, b'K', |body| {
        body.extend_from_slice(&process_id.to_be_bytes());
        body.extend_from_slice(secret);
    });
}

/// Appends a [ReadyForQuery](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY).
pub fn put_ready(out: &mut Vec<u8>, status: TransactionStatus) {
    put(out, b'Z', |body| body.push(status.as_byte()));
}

/// Appends a [CommandComplete](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-COMMANDCOMPLETE).
pub fn put_command_complete(out: &mut Vec<u8>, tag: &str) {
    put(out, b'C', |body| put_cstr(body, tag.as_bytes()));
}

/// Appends an Authentication message.
pub fn put_authentication(out: &mut Vec<u8>, message: &Authentication<'_>) {
    let (code, data): (u32, &[u8]) = match message {
        Authentication::Ok => (0, &[]),
        Authentication::CleartextPassword => (3, &[]),
        Authentication::Md5Password { salt } => (5, salt),
        Authentication::Sasl(_) => (10, &[]),
        Authentication::SaslContinue(data) => (11, data),
        Authentication::SaslFinal(data) => (12, data),
        Authentication::Other(code) => (*code, &[]),
    };
    put(out, b'R', |body| {
        body.extend_from_slice(&code.to_be_bytes());
        body.extend_from_slice(data);
        if let Authentication::Sasl(mechanisms) = message {
            for mechanism in mechanisms {
                put_cstr(body, mechanism.as_bytes());
            }
            body.push(0);
        }
    });
}

/// A NUL inside would end the string early and shift what follows: it is left out.
fn put_cstr(body: &mut Vec<u8>, text: &[u8]) {
    body.extend(text.iter().filter(|&&byte| byte != 0));
    body.push(0);
}

/// The parts of an `ErrorResponse` or `NoticeResponse` that decide something; the rest passes as raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// Not localised (V) when the server sends it, which every server since 9.6 does.
    pub severity: &'a [u8],
    /// `XX000` when it is missing or not five bytes long.
    pub sqlstate: [u8; 5],
    pub message: &'a [u8],
    pub detail: Option<&'a [u8]>,
    pub hint: Option<&'a [u8]>,
    /// The function in PostgreSQL's source that reported it.
    pub routine: &'a [u8],
}

impl ErrorFields<'_> {
    /// The server closes the connection after this one.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }
}

/// Looks into the body of an [ErrorResponse](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ERRORRESPONSE)
/// or `NoticeResponse`. Fields after the first malformed one are not seen.
pub fn error_fields(mut body: &[u8]) -> ErrorFields<'_> {
    let mut fields =
        ErrorFields { severity: b"", sqlstate: *b"XX000", message: b"", detail: None, hint: None, routine: b"" };
    while let Some((&field, rest)) = body.split_first().filter(|&(&field, _)| field != 0) {
        body = rest;
        let Some(text) = take_cstr(&mut body) else { break };
        match field {
            b'S' if fields.severity.is_empty() => fields.severity = text,
            b'V' => fields.severity = text,
            b'C' => fields.sqlstate = text.try_into().unwrap_or(fields.sqlstate),
            b'M' => fields.message = text,
            b'D' => fields.detail = Some(text),
            b'H' => fields.hint = Some(text),
            b'R' => fields.routine = text,
            _ => {}
        }
    }
    fields
}

/// Name and value of a `ParameterStatus`.
pub fn parameter_status(mut body: &[u8]) -> Option<(&[u8], &[u8])> {
    let name = take_cstr(&mut body)?;
    Some((name, take_cstr(&mut body)?))
}

/// Process id and secret of a `BackendKeyData`; the secret has 4 to 256 bytes.
pub fn backend_key(body: &[u8]) -> Option<(i32, &[u8])> {
    let (process_id, secret) = body.split_first_chunk::<4>()?;
    (4..=256).contains(&secret.len()).then_some((i32::from_be_bytes(*process_id), secret))
}

/// The tag of a `CommandComplete`, such as `INSERT 0 1`.
pub fn command_tag(mut body: &[u8]) -> Option<&[u8]> {
    take_cstr(&mut body)
}

/// A hash of what a `RowDescription` says of the columns' names and types, but not of their formats, which belong to a
/// portal. `None`: it is malformed.
pub fn row_shape(body: &[u8]) -> Option<u64> {
    let mut hasher = foldhash::quality::FixedState::default().build_hasher();
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    for _ in 0..u16::from_be_bytes(*count) {
        hasher.write(take_cstr(&mut rest)?);
        let (fields, after) = rest.split_first_chunk::<18>()?;
        // Between the table and column that it comes from, and the format: type, size and modifier.
        hasher.write(&fields[6..16]);
        rest = after;
    }
    Some(hasher.finish())
}

/// The values of a `DataRow`.
pub fn data_row(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        values.push(match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => None,
            Ok(length) => {
                let (value, after) = rest.split_at_checked(length)?;
                rest = after;
                Some(value)
            }
        });
    }
    Some(values)
}

/// The body of a `FunctionCallResponse` to [`ASK_REPLAYED`](super::frontend::ASK_REPLAYED); `None`: it says nothing of use.
pub fn replayed(body: &[u8]) -> Option<Lsn> {
    let (length, lsn) = body.split_first_chunk::<4>()?;
    let lsn = <[u8; 8]>::try_from(lsn).ok().filter(|_| *length == 8_i32.to_be_bytes())?;
    Some(Lsn(u64::from_be_bytes(lsn)))
}

/// The transaction status in a ReadyForQuery.
pub fn ready_status(body: &[u8]) -> Option<TransactionStatus> {
    match body {
        b"I" => Some(TransactionStatus::Idle),
        b"T" => Some(TransactionStatus::InTransaction),
        b"E" => Some(TransactionStatus::Failed),
        _ => None,
    }
}

/// What a node asks for; `None` when the message is malformed.
pub fn authentication(body: &[u8]) -> Option<Authentication<'_>> {
    let (code, mut data) = body.split_first_chunk::<4>()?;
    Some(match u32::from_be_bytes(*code) {
        0 => Authentication::Ok,
        3 => Authentication::CleartextPassword,
        5 => Authentication::Md5Password { salt: data.try_into().ok()? },
        10 => {
            let mut mechanisms = Vec::new();
            while data.first().is_some_and(|&byte| byte != 0) {
                mechanisms.push(std::str::from_utf8(take_cstr(&mut data)?).ok()?);
            }
            Authentication::Sasl(mechanisms)
        }
        11 => Authentication::SaslContinue(data),
        12 => Authentication::SaslFinal(data),
        other => Authentication::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::sqlstate;
    use crate::wire::frame::{HEADER_BYTES, header};

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out);
        assert_eq!(header(&out).unwrap().unwrap().frame_bytes, out.len(), "one whole frame");
        out
    }

    fn body(frame: &[u8]) -> &[u8] {
        &frame[HEADER_BYTES..]
    }

    #[test]
    fn frames_have_the_bytes_that_the_protocol_names() {
        let key: &[u8] = &[0xAB; 32];
        for (frame, expected) in [
            (encoded(|o| put_ready(o, TransactionStatus::Idle)), b"Z\0\0\0\x05I".to_vec()),
            (encoded(|o| put_ready(o, TransactionStatus::InTransaction)), b"Z\0\0\0\x05T".to_vec()),
            (encoded(|o| put_ready(o, TransactionStatus::Failed)), b"Z\0\0\0\x05E".to_vec()),
            (encoded(|o| put_command_complete(o, "BEGIN")), b"C\0\0\0\x0aBEGIN\0".to_vec()),
            (encoded(|o| put_backend_key(o, 7, &[1, 2, 3, 4])), b"K\0\0\0\x0c\0\0\0\x07\x01\x02\x03\x04".to_vec()),
            (encoded(|o| put_backend_key(o, -1, key)), [b"K\0\0\0\x28\xff\xff\xff\xff", key].concat()),
            (encoded(|o| put_parameter_status(o, b"a", b"b\0c")), b"S\0\0\0\x09a\0bc\0".to_vec()),
            (encoded(|o| put_authentication(o, &Authentication::Ok)), b"R\0\0\0\x08\0\0\0\0".to_vec()),
            (
                encoded(|o| put_authentication(o, &Authentication::Sasl(vec!["A", "B"]))),
                b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0".to_vec(),
            ),
            (
                encoded(|o| {
                    put_error(o, Severity::Error, &Error::new(Fault::Node, "40001", "m").detail("d").hint("h"));
                }),
                b"E\0\0\0\x23SERROR\0VERROR\0C40001\0Mm\0Dd\0Hh\0\0".to_vec(),
            ),
            (encoded(|o| put_notice(o, "m")), b"N\0\0\0\x1fSNOTICE\0VNOTICE\0C00000\0Mm\0\0".to_vec()),
            (
                encoded(|o| put_row_description(o, &[("a", ColumnType::Text), ("b", ColumnType::Integer)])),
                b"T\0\0\0\x2e\0\x02a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0\
                  b\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0"
                    .to_vec(),
            ),
            (
                encoded(|o| put_data_row(o, &[Some("x".into()), None])),
                b"D\0\0\0\x0f\0\x02\0\0\0\x01x\xff\xff\xff\xff".to_vec(),
            ),
            (encoded(|o| o.extend_from_slice(PARSE_COMPLETE)), b"1\0\0\0\x04".to_vec()),
            (encoded(|o| o.extend_from_slice(CLOSE_COMPLETE)), b"3\0\0\0\x04".to_vec()),
        ] {
            assert_eq!(frame, expected, "{:?}", String::from_utf8_lossy(&frame));
        }
    }

    #[test]
    fn errors_carry_both_severities_code_message_and_hint() {
        let error = Error::new(Fault::Limit, sqlstate::TOO_MANY_CONNECTIONS, "too\0many").hint("raise max_client_conn");
        let frame = encoded(|out| put_error(out, Severity::Fatal, &error));
        assert_eq!(body(&frame), b"SFATAL\0VFATAL\0C53300\0Mtoomany\0Hraise max_client_conn\0\0");
        let fields = error_fields(body(&frame));
        assert!(fields.is_fatal());
        assert_eq!((&fields.sqlstate, fields.message), (b"53300", b"toomany".as_slice()));
        assert_eq!(fields.hint, Some(b"raise max_client_conn".as_slice()));
    }

    #[test]
    fn error_fields_are_read_leniently() {
        for (body, severity, code, message) in [
            (b"SERREUR\0VERROR\0C25006\0Mlecture seule\0\0".as_slice(), "ERROR", "25006", "lecture seule"),
            (b"VERROR\0SERREUR\0C25006\0\0", "ERROR", "25006", ""),
            (b"SFATAL\0Mbye\0\0", "FATAL", "XX000", "bye"),
            (b"C123\0Mshort code\0", "", "XX000", "short code"),
            (b"SERROR\0Mnot ended", "ERROR", "XX000", ""),
            (b"", "", "XX000", ""),
            (b"\0SFATAL\0", "", "XX000", ""),
        ] {
            let fields = error_fields(body);
            assert_eq!(fields.severity, severity.as_bytes());
            assert_eq!(fields.sqlstate, code.as_bytes());
            assert_eq!(fields.message, message.as_bytes());
        }
    }

    #[test]
    fn small_messages_are_read_and_malformed_ones_refused() {
        assert_eq!(parameter_status(b"TimeZone\0UTC\0"), Some((b"TimeZone".as_slice(), b"UTC".as_slice())));
        for bad in [b"".as_slice(), b"\0", b"name", b"name\0value"] {
            assert_eq!(parameter_status(bad), None);
        }
        assert_eq!(backend_key(b"\0\0\0\x05abcd"), Some((5, b"abcd".as_slice())));
        for bad in [b"".as_slice(), b"\0\0\0\x05", b"\0\0\0\x05abc", &[0; 4 + 257]] {
            assert_eq!(backend_key(bad), None);
        }
        assert_eq!(command_tag(b"SELECT 1\0"), Some(b"SELECT 1".as_slice()));
        assert_eq!(command_tag(b"SELECT 1"), None);
        for (body, status) in [
            (b"I".as_slice(), Some(TransactionStatus::Idle)),
            (b"T", Some(TransactionStatus::InTransaction)),
            (b"E", Some(TransactionStatus::Failed)),
            (b"", None),
            (b"X", None),
            (b"II", None),
        ] {
            assert_eq!(ready_status(body), status);
        }
    }

    #[test]
    fn authentication_messages_round_trip() {
        for message in [
            Authentication::Ok,
            Authentication::CleartextPassword,
            Authentication::Md5Password { salt: [1, 0, 255, 4] },
            Authentication::Sasl(vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
            Authentication::Sasl(Vec::new()),
            Authentication::SaslContinue(b"r=x"),
            Authentication::SaslFinal(b"v=y"),
            Authentication::Other(7),
        ] {
            let frame = encoded(|out| put_authentication(out, &message));
            assert_eq!(authentication(body(&frame)), Some(message));
        }
        for bad in
            [b"".as_slice(), b"\0\0\0", b"\0\0\0\x05abc", b"\0\0\0\x05abcde", b"\0\0\0\x0aSCRAM", b"\0\0\0\x0a\xff\0\0"]
        {
            assert_eq!(authentication(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_a_parser_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let fields = error_fields(&body);
            prop_assert!(fields.message.len() < body.len().max(1));
            let _ = (parameter_status(&body), backend_key(&body), command_tag(&body));
            let _ = (ready_status(&body), authentication(&body));
        }

        #[test]
        fn any_text_of_ours_makes_one_frame_that_reads_back(message in ".{0,200}", hint in ".{0,50}") {
            let error = Error::protocol(message.clone()).hint(hint.clone());
            let frame = encoded(|out| put_error(out, Severity::Error, &error));
            let fields = error_fields(body(&frame));
            let [message, hint] = [message, hint].map(|text| text.replace('\0', "").into_bytes());
            prop_assert_eq!(fields.message, &message);
            prop_assert_eq!(fields.hint, Some(hint.as_slice()));
        }
    }
}
