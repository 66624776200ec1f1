//! What the sessions of the whole proxy hold of large batches, under one limit.
//!
//! A usual batch is not counted: what those take is limited by the number of clients. A larger one is counted in steps, as
//! it comes, so that what a client only announces costs nobody anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::error::{Error, Fault, sqlstate};

/// Batches up to this are not counted.
const USUAL_BYTES: usize = 64 << 10;
const STEP_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub struct Memory {
    limit: usize,
    held: Arc<AtomicUsize>,
}

impl Memory {
    pub fn new(limit: usize, held: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { limit, held: Arc::clone(held) })
    }

    /// Counts `more` bytes, if they are within the limit.
    fn take(&self, more: usize) -> Result<(), Error> {
        let within = |held: usize| held.checked_add(more).filter(|&held| held <= self.limit);
        if self.held.fetch_update(Relaxed, Relaxed, within).is_ok() {
            return Ok(());
        }
        let limit = bytesize::ByteSize(self.limit as u64);
        let message = format!("out of memory for large batches (limits.max_memory = {limit})");
        Err(Error::new(Fault::Limit, sqlstate::OUT_OF_MEMORY, message)
            .hint("Try again when others are done, send less at once, or raise limits.max_memory."))
    }
}

/// What one session holds, until this is dropped. Seldom anything, so it is small.
#[derive(Debug, Default)]
pub struct Share(Option<Box<Held>>);

#[derive(Debug)]
struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Share {
    /// The session holds so many bytes of a batch now.
    ///
    /// # Errors
    /// 53200: the limit is reached. What was counted before still is.
    pub fn cover(&mut self, memory: &Arc<Memory>, bytes: usize) -> Result<(), Error> {
        if bytes <= USUAL_BYTES {
            return Ok(());
        }
        let held = self.0.get_or_insert_with(|| Box::new(Held { memory: Arc::clone(memory), bytes: 0 }));
        // A buffer that grows doubles, and what a server gets may be a copy.
        let needed = (2 * bytes).next_multiple_of(STEP_BYTES);
        if needed > held.bytes {
            memory.take(needed - held.bytes)?;
            held.bytes = needed;
        }
        Ok(())
    }

    /// A batch is done; so many bytes of the next one are here.
    pub fn settle(&mut self, bytes: usize) {
        if bytes <= USUAL_BYTES {
            self.give_back();
        }
    }

    /// The session holds nothing that is counted.
    pub fn give_back(&mut self) {
        self.0 = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn large_batches_are_counted_up_to_the_limit() {
        let held = Arc::new(AtomicUsize::new(0));
        let memory = Memory::new(4 * MIB, &held);
        let mut shares = [Share::default(), Share::default()];
        for (whose, bytes, fits, in_all) in [
            (0, USUAL_BYTES, true, 0),
            (0, USUAL_BYTES + 1, true, STEP_BYTES),
            (0, MIB, true, 2 * MIB),
            (0, 10, true, 2 * MIB),
            (1, MIB + 1, false, 2 * MIB),
            (1, MIB, true, 4 * MIB),
            (0, MIB + 1, false, 4 * MIB),
        ] {
            let covered = shares[whose].cover(&memory, bytes);
            assert_eq!((covered.is_ok(), held.load(Relaxed)), (fits, in_all), "{bytes} bytes");
            if let Err(error) = covered {
                assert_eq!(error.sqlstate(), sqlstate::OUT_OF_MEMORY);
                assert!(error.message().contains("limits.max_memory = 4.0 MiB"), "{error}");
            }
        }
        shares[0].settle(USUAL_BYTES + 1);
        assert_eq!(held.load(Relaxed), 4 * MIB);
        shares[0].settle(0);
        assert_eq!(held.load(Relaxed), 2 * MIB);
        drop(shares);
        assert_eq!(held.load(Relaxed), 0);
    }
}
