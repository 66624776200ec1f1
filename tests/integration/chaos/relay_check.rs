//! The relay itself: what it passes on, delays, holds, tears, resets and closes, between two ends that are plain sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::frames::{SYNC, copy_data, message, query};
use crate::harness::{Env, check};

use super::relay::{Direction, End, Point, Relay, Splitter, Verdict, Weather};

const LIMIT: Duration = Duration::from_secs(20);
/// Long enough that what would come at once has come.
const MOMENT: Duration = Duration::from_millis(100);
const STARTUP: &[u8] = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";
const GREETING: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// A client and a server with the relay between them, past the start-up messages.
struct Ends {
    relay: Relay,
    client: TcpStream,
    server: TcpStream,
    listener: TcpListener,
}

impl Ends {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay::start(listener.local_addr().unwrap().port(), 7);
        let (client, server) = connect(&relay, &listener);
        let mut ends = Self { relay, client, server, listener };
        pass(&mut ends.client, &mut ends.server, STARTUP);
        pass(&mut ends.server, &mut ends.client, GREETING);
        ends
    }
}

fn connect(relay: &Relay, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (client, server)
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    assert_eq!(read(to, bytes.len()), bytes);
}

fn read(from: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

/// Nothing comes, and nothing closes.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    let outcome = stream.read(&mut [0]);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    matches!(outcome, Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()))
}

/// What comes until the end, and whether that is an RST.
fn to_end(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, false),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, true),
        Err(error) => panic!("neither closed nor reset: {error}"),
    }
}

pub fn bytes_pass(_: &Env) {
    let mut ends = Ends::new();
    let large = copy_data(&vec![b'x'; 300_000]);
    let mut writer = ends.client.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&large).unwrap());
        assert_eq!(read(&mut ends.server, large.len()), large);
    });
    pass(&mut ends.server, &mut ends.client, b"Z\0\0\0\x05I");
    // Each direction ends by itself, with what was left of a message.
    ends.client.write_all(&SYNC[..3]).unwrap();
    ends.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_end(&mut ends.server), (SYNC[..3].to_vec(), false));
    pass(&mut ends.server, &mut ends.client, b"Z\0\0\0\x05I");
    drop(ends.server);
    assert_eq!(to_end(&mut ends.client), (Vec::new(), false));
    // Who cannot be reached resets.
    drop(ends.listener);
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, ends.relay.port())).unwrap();
    assert_eq!(to_end(&mut client), (Vec::new(), true));
}

pub fn weather_delays(_: &Env) {
    let mut ends = Ends::new();
    let latency = Duration::from_millis(200);
    ends.relay.weather(Direction::ToServer, Weather { latency, jitter: latency, ..Weather::default() });
    let started = Instant::now();
    let messages: Vec<u8> = (0..200).flat_map(|number| query(number.to_string())).collect();
    pass(&mut ends.client, &mut ends.server, &messages);
    // Together, not one after the other, and in order.
    let elapsed = started.elapsed();
    assert!(elapsed >= latency && elapsed < 100 * latency, "{elapsed:?}");
    ends.relay.weather_all(Weather { bandwidth: Some(10_000), ..Weather::default() });
    let started = Instant::now();
    pass(&mut ends.server, &mut ends.client, &copy_data(&[0; 5_000]));
    assert!(started.elapsed() >= Duration::from_millis(450), "{:?}", started.elapsed());
    // A black hole, for connections that are there and for new ones, until it is gone.
    ends.relay.weather_all(Weather { frozen: true, ..Weather::default() });
    let (mut other_client, mut other_server) = connect(&ends.relay, &ends.listener);
    ends.client.write_all(SYNC).unwrap();
    other_client.write_all(STARTUP).unwrap();
    for stream in [&mut ends.client, &mut other_client, &mut ends.server, &mut other_server] {
        assert!(is_silent(stream));
    }
    ends.relay.weather_all(Weather::default());
    assert_eq!(read(&mut ends.server, SYNC.len()), SYNC);
    assert_eq!(read(&mut other_server, STARTUP.len()), STARTUP);
}

pub fn links_end(_: &Env) {
    for (how, is_reset) in [(End::Close, false), (End::Reset, true)] {
        let mut ends = Ends::new();
        ends.relay.end_all(how);
        assert_eq!(to_end(&mut ends.client), (Vec::new(), is_reset), "{how:?}");
        assert_eq!(to_end(&mut ends.server), (Vec::new(), is_reset), "{how:?}");
        let (mut client, mut server) = connect(&ends.relay, &ends.listener);
        pass(&mut client, &mut server, STARTUP);
        // Nobody is told of a port that is closed but who asks.
        ends.relay.listen(false);
        pass(&mut server, &mut client, GREETING);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, ends.relay.port())).is_err());
        ends.relay.listen(true);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Closed,
    Reset,
}

/// These bytes come, and then this happens.
fn expect(stream: &mut TcpStream, bytes: &[u8], fate: Fate, what: &str) {
    if fate == Fate::Open {
        assert_eq!(read(stream, bytes.len()), bytes, "{what}");
        assert!(is_silent(stream), "{what}");
    } else {
        assert_eq!(to_end(stream), (bytes.to_vec(), fate == Fate::Reset), "{what}");
    }
}

/// What happens to a message of 12 bytes that is held, and the bytes of it and the fate that come to the side that it
/// was for, and to the other side.
const VERDICTS: &[(Verdict, (usize, Fate), Fate)] = &[
    (Verdict::Pass, (12, Fate::Open), Fate::Open),
    (Verdict::Tear(0, End::Close), (0, Fate::Closed), Fate::Closed),
    (Verdict::Tear(7, End::Close), (7, Fate::Closed), Fate::Closed),
    (Verdict::Tear(0, End::Reset), (0, Fate::Reset), Fate::Reset),
    (Verdict::HalfClose, (0, Fate::Closed), Fate::Open),
    (Verdict::Freeze, (0, Fate::Open), Fate::Open),
];

pub fn traps_hold(_: &Env) {
    let (first, second) = (query("first "), query("second"));
    let (one, two) = (message(b'C', b"first \0"), message(b'C', b"second\0"));
    for &(verdict, (bytes, fate), other) in VERDICTS {
        let mut ends = Ends::new();
        let trap = ends.relay.arm(Point::Request("second".to_owned()));
        ends.client.write_all(&[&first[..], &second].concat()).unwrap();
        trap.wait(LIMIT);
        expect(&mut ends.server, &first, Fate::Open, "the request is held");
        pass(&mut ends.server, &mut ends.client, &one);
        trap.decide(verdict);
        expect(&mut ends.server, &second[..bytes], fate, &format!("{verdict:?} of a request"));
        expect(&mut ends.client, b"", other, &format!("{verdict:?} of a request"));

        let mut ends = Ends::new();
        let trap = ends.relay.arm(Point::Answer("second".to_owned(), b'C'));
        // Of other requests, no answer is held, and of this one no other.
        pass(&mut ends.client, &mut ends.server, &first);
        pass(&mut ends.server, &mut ends.client, &one);
        pass(&mut ends.client, &mut ends.server, &second);
        pass(&mut ends.server, &mut ends.client, GREETING);
        ends.server.write_all(&two).unwrap();
        trap.wait(LIMIT);
        assert!(is_silent(&mut ends.client));
        pass(&mut ends.client, &mut ends.server, &first);
        trap.decide(verdict);
        expect(&mut ends.client, &two[..bytes], fate, &format!("{verdict:?} of an answer"));
        expect(&mut ends.server, b"", other, &format!("{verdict:?} of an answer"));
    }
}

pub fn traps_count(_: &Env) {
    let text = query("first ");
    check(&[(STARTUP.len(), 0), (STARTUP.len() + 5, 5), (STARTUP.len() + text.len(), text.len())], |&limit| {
        let mut ends = Ends::new();
        let trap = ends.relay.arm(Point::Bytes(Direction::ToServer, limit as u64));
        trap.decide(Verdict::Tear(0, End::Close));
        ends.client.write_all(&[&text[..], &text].concat()).unwrap();
        let (bytes, _) = to_end(&mut ends.server);
        bytes.len()
    });
}

pub fn the_start_is_followed(_: &Env) {
    use Direction::{ToClient, ToServer};
    const SSL: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
    const CANCEL: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02";
    let text = query("SELECT 1");
    let messages: &[(Direction, &[&[u8]])] = &[
        (ToServer, &[STARTUP, &text, SYNC]),
        (ToServer, &[SSL, SSL, STARTUP, &text]),
        (ToServer, &[CANCEL]),
        (ToClient, &[GREETING, b"Z\0\0\0\x05I"]),
        (ToClient, &[b"N", b"N", GREETING]),
        // What is encrypted is not looked into.
        (ToClient, &[b"S", b"\x16\x03\x01"]),
        (ToServer, &[SSL, b"\x16\x03\x01\x02\0\x01\0\x01"]),
        (ToServer, &[STARTUP, b"\xff\0\0\0\0", b"garbage"]),
    ];
    for &(direction, wanted) in messages {
        let mut splitter = Splitter::new(direction);
        let mut split = Vec::new();
        for part in wanted {
            // In two pieces, as it may come.
            for piece in [&part[..part.len() / 2], &part[part.len() / 2..]] {
                splitter.push(piece);
                split.extend(std::iter::from_fn(|| splitter.next()));
            }
        }
        let whole: Vec<u8> = wanted.concat();
        assert_eq!(split.concat(), whole, "{direction:?} {wanted:?}");
        let is_followed =
            wanted.iter().all(|part| part.first_chunk() != Some(b"\x16\x03") && part.first() != Some(&0xff));
        assert!(!is_followed || split == wanted, "{direction:?}: {split:?}, not {wanted:?}");
    }
}
