//! A frame is a tag byte, a big-endian length that counts itself but not the tag, and a body.

use crate::error::{Error, Result};

/// Tag and length field.
pub const HEADER_BYTES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// The whole frame with its tag, in bytes.
    pub frame_bytes: usize,
}

/// Reads a header; `None` while it is incomplete.
///
/// # Errors
/// A length that cannot be one (under 4). The caller checks its own upper limit.
pub fn header(bytes: &[u8]) -> Result<Option<Header>> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if length < 4 {
        return Err(Error::protocol(format!("message {:?} has the impossible length {length}", char::from(tag))));
    }
    Ok(Some(Header { tag, frame_bytes: length as usize + 1 }))
}

/// Appends a frame; `body` writes what follows the length.
pub fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Splits a NUL-terminated string off the front of `bytes`.
pub fn take_cstr<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    // Most names are empty, and to start a search takes longer than to see that.
    let end = if bytes.first() == Some(&0) { 0 } else { memchr::memchr(0, bytes)? };
    let (text, rest) = bytes.split_at(end);
    *bytes = &rest[1..];
    Some(text)
}
