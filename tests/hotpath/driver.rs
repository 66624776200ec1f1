//! Clients that send queries one at a time, each as one write, and check the answers.

use std::thread;

use crate::kind::{Kind, Query, TRANSACTION};
use crate::raw::{RawClient, tags};
use crate::stage::{PASSWORD, USER};

pub struct Driver {
    kind: Kind,
    clients: Vec<RawClient>,
    /// Queries that each client has sent.
    sent: usize,
}

impl Driver {
    pub fn connect(port: u16, database: &str, kind: Kind, clients: usize) -> Self {
        let connect = |_| {
            let mut client = RawClient::connect("127.0.0.1", port);
            client.login(USER, PASSWORD, database);
            kind.introduction().into_iter().for_each(|query| ask(&mut client, &query));
            client
        };
        Self { kind, clients: (0..clients).map(connect).collect(), sent: 0 }
    }

    /// Sends `queries`, shared evenly by the clients, which work at the same time; gives how many that were.
    pub fn run(&mut self, queries: usize) -> usize {
        let each = queries / self.clients.len() / TRANSACTION * TRANSACTION;
        let (kind, sent) = (self.kind, self.sent);
        thread::scope(|scope| {
            for (number, client) in self.clients.iter_mut().enumerate() {
                scope.spawn(move || (sent..sent + each).for_each(|query| ask(client, &kind.query(number, query))));
            }
        });
        self.sent += each;
        each * self.clients.len()
    }
}

fn ask(client: &mut RawClient, query: &Query) {
    client.send(&query.bytes);
    let answer = client.read_to('Z');
    assert_eq!(tags(&answer), query.answer, "{answer:?}");
}
