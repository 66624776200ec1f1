//! The kinds of queries that are measured. A query is one round trip: what is sent, and its answer to ReadyForQuery.

use causeway::wire::frame;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A SELECT as a simple Query.
    Simple,
    /// Parse, Bind, Describe, Execute and Sync with the unnamed statement.
    Extended,
    /// Bind, Execute and Sync of a statement that was parsed once.
    Prepared,
    /// BEGIN, UPDATE, SELECT, COMMIT, each a simple Query.
    Transaction,
}

/// A query's bytes, and the tags of its answer.
pub struct Query {
    pub bytes: Vec<u8>,
    pub answer: &'static str,
}

/// The queries of one transaction; all counts of queries are multiples of it.
pub const TRANSACTION: usize = 4;

/// Rows that each client has for itself.
const ROWS: usize = 500;

/// The table that the queries are about. Its keys all have four digits, so that queries are equally long.
pub const TABLE: &str = "CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL); INSERT INTO hot SELECT i, 0 FROM generate_series(1000, 9999) i";

impl Kind {
    pub const ALL: [Self; 4] = [Self::Simple, Self::Extended, Self::Prepared, Self::Transaction];

    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
            Self::Transaction => "transaction",
        }
    }

    /// What a client sends once, before the queries.
    pub fn introduction(self) -> Option<Query> {
        (self == Self::Prepared).then(|| {
            let mut bytes = Vec::new();
            parse(&mut bytes, "hot");
            frame::put(&mut bytes, b'S', |_| {});
            Query { bytes, answer: "1 Z" }
        })
    }

    /// The query with this number of the client with this number.
    pub fn query(self, client: usize, number: usize) -> Query {
        let id = format!("{}", 1000 + client * ROWS + number / TRANSACTION % ROWS);
        let select = format!("SELECT n FROM hot WHERE id = {id}");
        let mut bytes = Vec::new();
        let answer = match self {
            Self::Simple => simple(&mut bytes, &select),
            Self::Extended => {
                parse(&mut bytes, "");
                bind(&mut bytes, "", &id);
                frame::put(&mut bytes, b'D', |out| out.extend_from_slice(b"P\0"));
                execute_and_sync(&mut bytes);
                "1 2 T D C Z"
            }
            Self::Prepared => {
                bind(&mut bytes, "hot", &id);
                execute_and_sync(&mut bytes);
                "2 D C Z"
            }
            Self::Transaction => match number % TRANSACTION {
                0 => command(&mut bytes, "BEGIN"),
                1 => command(&mut bytes, &format!("UPDATE hot SET n = n + 1 WHERE id = {id}")),
                2 => simple(&mut bytes, &select),
                _ => command(&mut bytes, "COMMIT"),
            },
        };
        Query { bytes, answer }
    }
}

fn simple(bytes: &mut Vec<u8>, sql: &str) -> &'static str {
    frame::put(bytes, b'Q', |out| out.extend_from_slice(&[sql.as_bytes(), b"\0"].concat()));
    "T D C Z"
}

fn command(bytes: &mut Vec<u8>, sql: &str) -> &'static str {
    simple(bytes, sql);
    "C Z"
}

fn parse(bytes: &mut Vec<u8>, name: &str) {
    let sql = "SELECT n FROM hot WHERE id = $1";
    // No type of a parameter is given.
    frame::put(bytes, b'P', |out| out.extend_from_slice(&[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat()));
}

/// One parameter, and all formats are text.
fn bind(bytes: &mut Vec<u8>, statement: &str, parameter: &str) {
    let length = u32::try_from(parameter.len()).unwrap().to_be_bytes();
    frame::put(bytes, b'B', |out| {
        out.extend_from_slice(&[b"\0", statement.as_bytes(), b"\0\0\0\0\x01"].concat());
        out.extend_from_slice(&[&length, parameter.as_bytes(), b"\0\0"].concat());
    });
}

fn execute_and_sync(bytes: &mut Vec<u8>) {
    frame::put(bytes, b'E', |out| out.extend_from_slice(b"\0\0\0\0\0"));
    frame::put(bytes, b'S', |_| {});
}
