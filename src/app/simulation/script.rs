//! What a client says, by seed: batches of all kinds, each of which names its client.

use fastrand::Rng;

use crate::wire::frame::put;
use crate::wire::frontend::{Bind, Parse, SYNC, Target, put_query, tag};

const FLUSH: &[u8] = b"H\0\0\0\x04";

/// Batches, one after the other; whoever sends them is `client`.
pub(super) fn script(random: &mut Rng, client: usize) -> Vec<Vec<u8>> {
    let batches = random.usize(1..10);
    let mut writer = Writer { random, client, number: 0, prepared: Vec::new() };
    let mut script = Vec::new();
    for _ in 0..batches {
        if writer.random.u8(..5) == 0 {
            let begin = if writer.random.bool() { "BEGIN" } else { "BEGIN READ ONLY" };
            script.push(message_query(begin));
            script.extend((0..writer.random.usize(..3)).map(|_| writer.batch()));
            script.push(message_query(if writer.random.bool() { "COMMIT" } else { "ROLLBACK" }));
        } else {
            script.push(writer.batch());
        }
    }
    script
}

fn message_query(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_query(&mut out, text.as_bytes());
    out
}

struct Writer<'a> {
    random: &'a mut Rng,
    client: usize,
    number: usize,
    /// Names that the client has prepared, unless an error kept it from that.
    prepared: Vec<String>,
}

impl Writer<'_> {
    fn batch(&mut self) -> Vec<u8> {
        match self.random.u8(..12) {
            0..3 => {
                let texts: Vec<_> = (0..self.random.usize(1..4)).map(|_| self.text()).collect();
                message_query(&texts.join("; "))
            }
            3 => self.copy_in(),
            4..7 => self.unnamed(),
            7..10 => self.named(),
            10 => [self.unnamed(), self.named(), self.unnamed()].concat(),
            _ => [self.prepare(), FLUSH.to_vec(), SYNC.to_vec()].concat(),
        }
    }

    fn text(&mut self) -> String {
        self.number += 1;
        let owner = format!("c{}.{}", self.client, self.number);
        let rows = [0, 1, 1, 1, 3, 30][self.random.usize(..6)];
        let bytes = [0, 5, 200, 3000, 20_000][self.random.usize(..5)] / rows.max(1) * rows.min(1);
        match self.random.u8(..16) {
            0..7 => format!("SELECT s FROM rows_{rows}_{bytes} WHERE s = '{owner}'"),
            7 => format!("SELECT s FROM noisy, rows_{rows}_{bytes} WHERE s = '{owner}'"),
            8 => format!("/* causeway: replica */ SELECT risky(s) FROM rows_{rows}_{bytes} WHERE s = '{owner}'"),
            9..12 => format!("INSERT INTO t VALUES ('{owner}')"),
            12 => format!("SELECT 1/0 AS \"{owner}\""),
            13 => format!("SELEKT '{owner}'"),
            14 => format!("COPY (SELECT '{owner}' FROM rows_{rows}_{bytes}) TO STDOUT"),
            _ => format!("INSERT INTO noisy VALUES ('{owner}')"),
        }
    }

    fn copy_in(&mut self) -> Vec<u8> {
        let mut out = message_query("COPY t FROM STDIN");
        for _ in 0..self.random.usize(..4) {
            let bytes = self.random.usize(..3000);
            put(&mut out, tag::COPY_DATA, |out| out.extend(vec![b'x'; bytes]));
        }
        let ends_well = self.random.u8(..4) > 0;
        put(&mut out, if ends_well { tag::COPY_DONE } else { tag::COPY_FAIL }, |out| {
            out.extend_from_slice(if ends_well { b"" } else { b"no\0" });
        });
        out
    }

    fn unnamed(&mut self) -> Vec<u8> {
        let text = self.text();
        let mut out = Vec::new();
        Parse { name: b"", text: text.as_bytes(), types: &[0, 0] }.write(&mut out);
        self.run(b"", &mut out);
        out.extend_from_slice(SYNC);
        out
    }

    /// A statement prepared now or before, run once or twice.
    fn named(&mut self) -> Vec<u8> {
        let mut out = if self.prepared.is_empty() || self.random.u8(..3) == 0 { self.prepare() } else { Vec::new() };
        for _ in 0..self.random.usize(1..3) {
            let name = self.prepared[self.random.usize(..self.prepared.len())].clone();
            self.run(name.as_bytes(), &mut out);
        }
        if self.random.u8(..6) == 0 {
            let name = self.prepared.swap_remove(self.random.usize(..self.prepared.len()));
            Target::Statement(name.as_bytes()).write(tag::CLOSE, &mut out);
        }
        out.extend_from_slice(SYNC);
        out
    }

    fn prepare(&mut self) -> Vec<u8> {
        let (text, name) = (self.text(), format!("s{}", self.number));
        let mut out = Vec::new();
        Parse { name: name.as_bytes(), text: text.as_bytes(), types: &[0, 0] }.write(&mut out);
        if self.random.bool() {
            Target::Statement(name.as_bytes()).write(tag::DESCRIBE, &mut out);
        }
        self.prepared.push(name);
        out
    }

    fn run(&mut self, statement: &[u8], out: &mut Vec<u8>) {
        Bind { portal: b"", statement, rest: &[0; 6] }.write(out);
        if self.random.bool() {
            Target::Portal(b"").write(tag::DESCRIBE, out);
        }
        let limited = self.random.u8(..4) == 0;
        for _ in 0..if limited { 2 } else { 1 } {
            put(out, tag::EXECUTE, |out| out.extend([0, 0, 0, 0, if limited { 2 } else { 0 }]));
        }
        if self.random.u8(..5) == 0 {
            out.extend_from_slice(FLUSH);
        }
    }
}
