//! The first packet of a connection, which has no tag, both ways
//! ([start-up](https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP),
//! [versions](https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-VERSIONS)).

use bytes::Bytes;

use super::frame;
use crate::error::{Error, Fault, Result, sqlstate};

/// The longest first packet that PostgreSQL reads, with its length field; so do we.
pub const MAX_PACKET_BYTES: usize = 10_000;
/// `SSLRequest`, a whole packet.
pub const SSL_REQUEST: [u8; 8] = *b"\0\0\0\x08\x04\xd2\x16\x2f";

const CANCEL_CODE: u32 = 80_877_102;
const SSL_CODE: u32 = 80_877_103;
const GSS_ENC_CODE: u32 = 80_877_104;
const MAJOR: u16 = 3;
const NEWEST_MINOR: u16 = 2;
/// A SQLSTATE of PostgreSQL's for a value that a parameter can't have.
const INVALID_PARAMETER_VALUE: &str = "22023";
const SYNTAX_ERROR: &str = "42601";

/// What a client opens a connection with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// Answered with one byte, `S` or `N`.
    Ssl,
    /// Encryption by GSSAPI; answered with one byte, `N`.
    GssEnc,
    Cancel(CancelKey),
    Startup(Startup),
}

/// Names one session of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CancelKey {
    pub process_id: i32,
    /// 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: Bytes,
}

/// A [StartupMessage](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// What the client asked for; [`Startup::minor`] is what it gets.
    pub requested_minor: u16,
    /// In the client's order. Values are in no particular encoding.
    pub parameters: Vec<(String, Bytes)>,
    /// Names of `_pq_.` options. We know none of them.
    pub protocol_options: Vec<String>,
}

/// The `replication` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    Off,
    Physical,
    /// `replication=database`: also takes SQL.
    Logical,
}

/// Reads the first packet without its length field.
///
/// # Errors
/// 08P01 for a malformed packet, 0A000 for a protocol version that is not 3.x, both with PostgreSQL's own words.
pub fn parse(packet: &Bytes) -> Result<First> {
    let invalid_length = || Error::protocol("invalid length of startup packet");
    let (code, _) = packet.split_first_chunk::<4>().ok_or_else(invalid_length)?;
    let rest = packet.slice(4..);
    match u32::from_be_bytes(*code) {
        SSL_CODE if rest.is_empty() => Ok(First::Ssl),
        GSS_ENC_CODE if rest.is_empty() => Ok(First::GssEnc),
        SSL_CODE | GSS_ENC_CODE => Err(invalid_length()),
        CANCEL_CODE => cancel_key(&rest).map(First::Cancel),
        _ => {
            let [a, b, c, d] = *code;
            let [major, minor] = [[a, b], [c, d]].map(u16::from_be_bytes);
            if major != MAJOR {
                return Err(Error::new(
                    Fault::Client,
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    format!(
                        "unsupported frontend protocol {major}.{minor}: server supports {MAJOR}.0 to {MAJOR}.{NEWEST_MINOR}"
                    ),
                ));
            }
            startup(minor, &rest).map(First::Startup)
        }
    }
}

fn cancel_key(body: &Bytes) -> Result<CancelKey> {
    match body.split_first_chunk::<4>() {
        Some((process_id, secret)) if (4..=256).contains(&secret.len()) => {
            Ok(CancelKey { process_id: i32::from_be_bytes(*process_id), secret: body.slice(4..) })
        }
        _ => Err(Error::protocol("invalid length of cancel request packet")),
    }
}

fn startup(requested_minor: u16, body: &Bytes) -> Result<Startup> {
    let bad_layout = || Error::protocol("invalid startup packet layout: expected terminator as last byte");
    let mut startup = Startup { requested_minor, parameters: Vec::new(), protocol_options: Vec::new() };
    let mut rest: &[u8] = body;
    loop {
        let name = frame::take_cstr(&mut rest).ok_or_else(bad_layout)?;
        if name.is_empty() {
            break;
        }
        let name = std::str::from_utf8(name)
            .map_err(|_| Error::protocol("invalid startup packet: a parameter name is not UTF-8"))?;
        let value = frame::take_cstr(&mut rest).ok_or_else(bad_layout)?;
        if name.starts_with("_pq_.") {
            startup.protocol_options.push(name.to_owned());
        } else {
            startup.parameters.push((name.to_owned(), body.slice_ref(value)));
        }
    }
    if rest.is_empty() { Ok(startup) } else { Err(bad_layout()) }
}

impl Startup {
    /// The minor version that we speak with this client: at most 2, which has longer cancel keys. 1 is reserved and
    /// the same as 0.
    pub fn minor(&self) -> u16 {
        self.requested_minor.min(NEWEST_MINOR)
    }

    /// A [NegotiateProtocolVersion](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-NEGOTIATEPROTOCOLVERSION)
    /// frame, when the client asked for a version or an option that we don't have. It goes before any other answer.
    pub fn negotiation(&self) -> Option<Vec<u8>> {
        if self.requested_minor == self.minor() && self.protocol_options.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        frame::put(&mut out, b'v', |body| {
            // Servers send the whole version here, where the documentation says "minor".
            body.extend_from_slice(&version(self.minor()).to_be_bytes());
            let count = u32::try_from(self.protocol_options.len()).unwrap_or(u32::MAX);
            body.extend_from_slice(&count.to_be_bytes());
            for name in &self.protocol_options {
                body.extend_from_slice(name.as_bytes());
                body.push(0);
            }
        });
        Some(out)
    }

    /// The value of a parameter; the last one when it comes twice, as in PostgreSQL.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Who wants to log in.
    ///
    /// # Errors
    /// 28000 without one, or when it is not UTF-8 (no configured user can be meant).
    pub fn user(&self) -> Result<&str> {
        let refused = |message| Error::new(Fault::Client, sqlstate::INVALID_AUTHORIZATION, message);
        match self.get("user").map(|user| std::str::from_utf8(user)) {
            None | Some(Ok("")) => Err(refused("no PostgreSQL user name specified in startup packet")),
            Some(Ok(user)) => Ok(user),
            Some(Err(_)) => Err(refused("the user name in the startup packet is not UTF-8")),
        }
    }

    /// The database; the user's name without one.
    ///
    /// # Errors
    /// As for [`Startup::user`]; 3D000 when the name is not UTF-8.
    pub fn database(&self) -> Result<&str> {
        match self.get("database") {
            Some(name) if !name.is_empty() => std::str::from_utf8(name).map_err(|_| {
                Error::new(
                    Fault::Client,
                    sqlstate::INVALID_CATALOG_NAME,
                    "the database name in the startup packet is not UTF-8",
                )
            }),
            _ => self.user(),
        }
    }

    /// # Errors
    /// 22023 for a value that PostgreSQL would not take either.
    pub fn replication(&self) -> Result<Replication> {
        let Some(value) = self.get("replication") else { return Ok(Replication::Off) };
        if value.as_ref() == b"database" {
            return Ok(Replication::Logical);
        }
        match boolean(value) {
            Some(true) => Ok(Replication::Physical),
            Some(false) => Ok(Replication::Off),
            None => Err(Error::new(
                Fault::Client,
                INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"replication\": \"{}\"", String::from_utf8_lossy(value)),
            )
            .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")),
        }
    }

    /// Run-time parameters in the order in which they take effect: those in `options`, then those of the packet.
    ///
    /// # Errors
    /// 42601 for `options` that PostgreSQL would not take either, 0A000 for switches other than `-c` and `--`.
    pub fn settings(&self) -> Result<Vec<(String, Bytes)>> {
        let mut settings = match self.get("options") {
            Some(options) => parse_options(options)?,
            None => Vec::new(),
        };
        let named = |name: &str| !matches!(name, "user" | "database" | "options" | "replication");
        settings.extend(self.parameters.iter().filter(|(name, _)| named(name)).cloned());
        Ok(settings)
    }
}

/// `parse_bool` of PostgreSQL: unique prefixes, any case.
fn boolean(value: &[u8]) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let starts = |word: &[u8], least: usize| value.len() >= least && word.starts_with(&value);
    if starts(b"true", 1) || starts(b"yes", 1) || value == b"on" || value == b"1" {
        Some(true)
    } else if starts(b"false", 1) || starts(b"no", 1) || starts(b"off", 2) || value == b"0" {
        Some(false)
    } else {
        None
    }
}

/// Reads the `options` parameter: `-c name=value`, `-cname=value` and `--name=value`, split at white space that no
/// backslash escapes; in names `-` stands for `_`
/// ([options](https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS)).
///
/// # Errors
/// See [`Startup::settings`].
pub fn parse_options(options: &[u8]) -> Result<Vec<(String, Bytes)>> {
    let mut words = split_options(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.as_slice() {
            b"-c" => words.next().ok_or_else(|| bad_argument(&word)).and_then(|next| assignment("-c ", &next))?,
            [b'-', b'-', rest @ ..] => assignment("--", rest)?,
            [b'-', b'c', rest @ ..] => assignment("-c ", rest)?,
            _ => return Err(bad_argument(&word)),
        };
        settings.push(setting);
    }
    Ok(settings)
}

fn assignment(switch: &str, text: &[u8]) -> Result<(String, Bytes)> {
    let syntax = |what: &str| {
        let message = format!("{switch}{} {what}", String::from_utf8_lossy(text));
        Error::new(Fault::Client, SYNTAX_ERROR, message)
    };
    let equals = memchr::memchr(b'=', text).ok_or_else(|| syntax("requires a value"))?;
    let (name, value) = text.split_at(equals);
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).ok_or_else(|| syntax("has no name"))?;
    Ok((name.replace('-', "_"), Bytes::copy_from_slice(&value[1..])))
}

/// PostgreSQL takes other switches too, all short for settings.
fn bad_argument(word: &[u8]) -> Error {
    let word = String::from_utf8_lossy(word);
    let hint = "Use -c name=value or --name=value.";
    if word.len() > 1 && word.starts_with('-') && word != "-c" {
        let message = format!("\"options\" has the switch {word}, which is not supported");
        return Error::new(Fault::Client, sqlstate::FEATURE_NOT_SUPPORTED, message).hint(hint);
    }
    let message = format!("invalid command-line argument for server process: {word}");
    Error::new(Fault::Client, SYNTAX_ERROR, message).hint(hint)
}

fn split_options(options: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = options.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.extend(word.take()),
            // A backslash at the very end stands for nothing.
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

fn version(minor: u16) -> u32 {
    u32::from(MAJOR) << 16 | u32::from(minor)
}

/// Appends a `StartupMessage` of protocol 3.0, as we send it to nodes.
pub fn put_startup<'a>(out: &mut Vec<u8>, parameters: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
    put_untagged(out, version(0), |body| {
        for (name, value) in parameters {
            for text in [name.as_bytes(), value] {
                body.extend(text.iter().filter(|&&byte| byte != 0));
                body.push(0);
            }
        }
        body.push(0);
    });
}

/// Appends a [CancelRequest](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-CANCELREQUEST).
pub fn put_cancel(out: &mut Vec<u8>, key: &CancelKey) {
    put_untagged(out, CANCEL_CODE, |body| {
        body.extend_from_slice(&key.process_id.to_be_bytes());
        body.extend_from_slice(&key.secret);
    });
}

fn put_untagged(out: &mut Vec<u8>, code: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&code.to_be_bytes());
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(code: u32, body: &[u8]) -> Bytes {
        [&code.to_be_bytes(), body].concat().into()
    }

    fn started(minor: u16, body: &[u8]) -> Startup {
        match parse(&packet(version(minor), body)).unwrap() {
            First::Startup(startup) => startup,
            other => panic!("not a startup message: {other:?}"),
        }
    }

    #[test]
    fn requests_without_parameters_are_told_apart() {
        let key = |secret: &[u8]| First::Cancel(CancelKey { process_id: 258, secret: Bytes::copy_from_slice(secret) });
        for (code, body, expected) in [
            (SSL_CODE, b"".to_vec(), Some(First::Ssl)),
            (GSS_ENC_CODE, b"".to_vec(), Some(First::GssEnc)),
            (CANCEL_CODE, b"\0\0\x01\x02abcd".to_vec(), Some(key(b"abcd"))),
            (CANCEL_CODE, [b"\0\0\x01\x02".as_slice(), &[9; 256]].concat(), Some(key(&[9; 256]))),
            (CANCEL_CODE, [b"\0\0\x01\x02".as_slice(), &[9; 257]].concat(), None),
            (CANCEL_CODE, b"\0\0\x01\x02abc".to_vec(), None),
            (CANCEL_CODE, b"".to_vec(), None),
            (SSL_CODE, b"x".to_vec(), None),
            (GSS_ENC_CODE, b"x".to_vec(), None),
        ] {
            assert_eq!(parse(&packet(code, &body)).ok(), expected, "{code} {body:?}");
        }
        assert_eq!(parse(&Bytes::copy_from_slice(&SSL_REQUEST[4..])).unwrap(), First::Ssl);
    }

    #[test]
    fn what_is_not_a_startup_packet_is_refused_in_postgresqls_words() {
        let layout = "invalid startup packet layout: expected terminator as last byte";
        let version_0 = "unsupported frontend protocol 0.0: server supports 3.0 to 3.2";
        for (packet, sqlstate, message) in [
            (packet(2 << 16, b"user\0a\0\0"), "0A000", "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"),
            (packet(4 << 16 | 1, b""), "0A000", "unsupported frontend protocol 4.1: server supports 3.0 to 3.2"),
            (packet(0, b""), "0A000", version_0),
            (Bytes::from_static(b"\0\x03"), "08P01", "invalid length of startup packet"),
            (packet(version(0), b""), "08P01", layout),
            (packet(version(0), b"user\0a\0"), "08P01", layout),
            (packet(version(0), b"user\0a"), "08P01", layout),
            (packet(version(0), b"user\0a\0\0x"), "08P01", layout),
        ] {
            let error = parse(&packet).unwrap_err();
            assert_eq!((error.sqlstate(), error.message()), (sqlstate, message));
        }
    }

    #[test]
    fn minor_versions_and_options_are_negotiated() {
        let frame = |minor: u8, options: &[u8], count: u8| {
            let length = 12 + u8::try_from(options.len()).unwrap();
            Some([&[b'v', 0, 0, 0, length, 0, 3, 0, minor, 0, 0, 0, count], options].concat())
        };
        for (asked, body, minor, negotiation) in [
            (0, b"user\0a\0\0".as_slice(), 0, None),
            (2, b"user\0a\0\0", 2, None),
            (1, b"user\0a\0\0", 1, None),
            (1, b"user\0a\0_pq_.a\x001\0\0", 1, frame(1, b"_pq_.a\0", 1)),
            (3, b"user\0a\0\0", 2, frame(2, b"", 0)),
            (9999, b"user\0a\0\0", 2, frame(2, b"", 0)),
            (0, b"_pq_.a\x001\0user\0a\0_pq_.b\0\0\0", 0, frame(0, b"_pq_.a\0_pq_.b\0", 2)),
            (2, b"_pq_.a\x001\0user\0a\0\0", 2, frame(2, b"_pq_.a\0", 1)),
        ] {
            let startup = started(asked, body);
            assert_eq!((startup.minor(), startup.negotiation()), (minor, negotiation), "3.{asked}");
            assert_eq!(startup.user().unwrap(), "a");
        }
    }

    #[test]
    fn user_database_and_replication_follow_postgresql() {
        use Replication::{Logical, Off, Physical};
        for (body, user, database, replication) in [
            (b"user\0a\0\0".as_slice(), Some("a"), Some("a"), Some(Off)),
            (b"user\0a\0database\0d\0replication\0true\0\0", Some("a"), Some("d"), Some(Physical)),
            (b"user\0a\0database\0\0replication\0database\0\0", Some("a"), Some("a"), Some(Logical)),
            (b"user\0a\0user\0b\0replication\0OFF\0\0", Some("b"), Some("b"), Some(Off)),
            (b"user\0a\0replication\0maybe\0\0", Some("a"), Some("a"), None),
            (b"user\0a\0replication\0o\0\0", Some("a"), Some("a"), None),
            (b"user\0a\0replication\0\0\0", Some("a"), Some("a"), None),
            (b"user\0\xff\0database\0\xff\0\0", None, None, Some(Off)),
            (b"user\0\0\0", None, None, Some(Off)),
            (b"\0", None, None, Some(Off)),
        ] {
            let startup = started(0, body);
            assert_eq!(startup.user().ok(), user, "{body:?}");
            assert_eq!(startup.database().ok(), database, "{body:?}");
            assert_eq!(startup.replication().ok(), replication, "{body:?}");
        }
    }

    #[test]
    fn options_are_split_as_postgresql_does() {
        for (options, expected) in [
            ("", vec![]),
            ("-c a=b", vec![("a", "b")]),
            ("  -ca=b\t--c-d=e=f ", vec![("a", "b"), ("c_d", "e=f")]),
            (r"-c search_path=a,\ b\\c", vec![("search_path", r"a, b\c")]),
            ("-c a= --b=", vec![("a", ""), ("b", "")]),
            ("--causeway.consistency=strong", vec![("causeway.consistency", "strong")]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(name, value)| (name.to_owned(), Bytes::from(value))).collect();
            assert_eq!(parse_options(options.as_bytes()).unwrap(), expected, "{options}");
        }
        for (options, sqlstate) in [
            ("-c", "42601"),
            ("-c a", "42601"),
            ("--a", "42601"),
            ("--=x", "42601"),
            ("-d 5", "0A000"),
            ("-", "42601"),
            ("a=b", "42601"),
            ("\\", "42601"),
        ] {
            assert_eq!(parse_options(options.as_bytes()).unwrap_err().sqlstate(), sqlstate, "{options}");
        }
    }

    #[test]
    fn settings_of_the_packet_come_after_those_in_options() {
        let startup = started(0, b"user\0a\0TimeZone\0UTC\0database\0d\0options\0-c x=1 -c TimeZone=CET\0\0");
        let names: Vec<_> =
            startup.settings().unwrap().into_iter().map(|(name, value)| (name, value.to_vec())).collect();
        let expected = [("x", "1"), ("TimeZone", "CET"), ("TimeZone", "UTC")];
        assert_eq!(names, expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_parser_panic(
            code in prop_oneof![any::<u32>(), Just(version(0)), Just(version(2)), Just(CANCEL_CODE)],
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..400),
                "(user|options|_pq_.x|replication|a)\0(-c |--)?[ a-z=\\\\]{0,20}\0\0?".prop_map(String::into_bytes),
            ],
            cut in 0..4usize,
        ) {
            if let Ok(First::Startup(startup)) = parse(&packet(code, &body).slice(cut..)) {
                let _ = (startup.user(), startup.database(), startup.replication(), startup.settings());
                let _ = startup.negotiation();
            }
        }

        #[test]
        fn what_we_send_reads_back(values in prop::collection::vec("[^\0]{0,20}", 0..5), secret in prop::collection::vec(any::<u8>(), 4..=256)) {
            let names = ["user", "database", "a", "b", "c"];
            let sent: Vec<_> = names.iter().copied().zip(values.iter().map(String::as_bytes)).collect();
            let mut out = Vec::new();
            put_startup(&mut out, sent.iter().copied());
            let (length, rest) = out.split_first_chunk::<4>().unwrap();
            prop_assert_eq!(u32::from_be_bytes(*length) as usize, out.len());
            let First::Startup(startup) = parse(&Bytes::copy_from_slice(rest)).unwrap() else { panic!() };
            prop_assert_eq!(startup.minor(), 0);
            let read: Vec<_> = startup.parameters.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
            prop_assert_eq!(read, sent);

            let key = CancelKey { process_id: 7, secret: secret.into() };
            let mut out = Vec::new();
            put_cancel(&mut out, &key);
            prop_assert_eq!(parse(&Bytes::copy_from_slice(&out[4..])).unwrap(), First::Cancel(key));
        }
    }
}
