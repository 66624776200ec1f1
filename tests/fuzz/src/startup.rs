//! The first packet of a connection, without its length.

use bytes::Bytes;
use causeway::wire::frame::HEADER_BYTES;
use causeway::wire::startup::{First, MAX_PACKET_BYTES, Startup, parse, parse_options, put_cancel, put_startup};

use super::wire::frames;

pub fn survive(data: &[u8]) {
    let _ = parse_options(data).map(|settings| check_settings(&settings, data.len()));
    if data.len() > MAX_PACKET_BYTES {
        return;
    }
    match parse(&Bytes::copy_from_slice(data)) {
        Ok(First::Cancel(key)) => {
            let mut again = Vec::new();
            put_cancel(&mut again, &key);
            assert_eq!(&again[4..], data);
        }
        Ok(First::Startup(startup)) => check_startup(&startup, data),
        Ok(First::Ssl | First::GssEnc) => assert_eq!(data.len(), 4),
        Err(error) => assert!(error.message().len() < 200),
    }
}

fn check_startup(startup: &Startup, packet: &[u8]) {
    let _ = (startup.database(), startup.replication());
    assert!(startup.minor() <= 2 && startup.minor() <= startup.requested_minor);
    assert!(startup.user().is_err() || startup.database().is_ok() || startup.get("database").is_some());
    if let Ok(settings) = startup.settings() {
        check_settings(&settings, packet.len());
    }
    if let Some(negotiation) = startup.negotiation() {
        let names: usize = startup.protocol_options.iter().map(|name| name.len() + 1).sum();
        assert_eq!(frames(&negotiation).count(), 1);
        assert_eq!(negotiation.len(), HEADER_BYTES + 8 + names);
    }
    // The same parameters, sent by us, are read so again.
    let mut again = Vec::new();
    put_startup(&mut again, startup.parameters.iter().map(|(name, value)| (name.as_str(), value.as_ref())));
    let Ok(First::Startup(read)) = parse(&Bytes::from(again).slice(4..)) else { panic!("we cannot read what we sent") };
    assert_eq!(read.parameters, startup.parameters);
    assert_eq!(read.minor(), 0);
}

/// They say no more than was sent.
fn check_settings(settings: &[(String, Bytes)], sent: usize) {
    assert!(settings.iter().map(|(name, value)| name.len() + value.len() + 1).sum::<usize>() <= 2 * sent);
    assert!(settings.iter().all(|(name, _)| !name.is_empty()));
}
