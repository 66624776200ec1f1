//! What is remembered of texts, shapes and refusals. All of it is bounded.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashlink::{LinkedHashMap, LruCache};

use super::{Class, Classified, Hint, Rule, Why};

/// What an answer depends on besides the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Circumstances {
    pub(super) facts_version: u64,
    pub(super) standard_strings: bool,
    pub(super) safe_encoding: bool,
}

/// The last texts, byte for byte, by their hash; a new text takes the place of the one that was there. It spares the
/// scan of texts that come again and again, and costs a copy of the others.
#[derive(Debug)]
pub(super) struct RecentTexts {
    slots: Vec<Slot>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug, Default)]
struct Slot {
    text: Vec<u8>,
    answer: Option<(Circumstances, Arc<Classified>)>,
}

impl RecentTexts {
    /// Longer texts are not kept.
    const MAX_TEXT_BYTES: usize = 4096;
    const MAX_SLOTS: usize = 512;

    /// Holds at most `bytes` bytes of text.
    pub(super) fn new(bytes: usize) -> Self {
        let slots = (bytes / Self::MAX_TEXT_BYTES).min(Self::MAX_SLOTS);
        Self { slots: (0..slots).map(|_| Slot::default()).collect(), hasher: foldhash::fast::RandomState::default() }
    }

    fn slot(&mut self, text: &[u8]) -> Option<&mut Slot> {
        if text.len() > Self::MAX_TEXT_BYTES {
            return None;
        }
        let hash = self.hasher.hash_one(text);
        let index = hash.checked_rem(self.slots.len() as u64)?;
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    pub(super) fn get(&mut self, text: &[u8], circumstances: Circumstances) -> Option<Arc<Classified>> {
        let slot = self.slot(text)?;
        let (under, answer) = slot.answer.as_ref()?;
        (*under == circumstances && slot.text == text).then(|| Arc::clone(answer))
    }

    pub(super) fn put(&mut self, text: &[u8], circumstances: Circumstances, answer: &Arc<Classified>) {
        if let Some(slot) = self.slot(text) {
            slot.text.clear();
            slot.text.extend_from_slice(text);
            slot.answer = Some((circumstances, Arc::clone(answer)));
        }
    }
}

/// A shape by two independent hashes, the second with a seed that nobody outside the process knows: no client can
/// make one shape pass for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ShapeKey {
    pub(super) fingerprint: u64,
    pub(super) check: u64,
    pub(super) hint: Option<Hint>,
    pub(super) circumstances: Circumstances,
}

/// Answers by shape, the least recently used one goes first.
#[derive(Debug)]
pub(super) struct Shapes {
    answers: LruCache<ShapeKey, Arc<Classified>, foldhash::fast::RandomState>,
    bytes: usize,
    max_bytes: usize,
}

impl Shapes {
    pub(super) fn new(max_bytes: usize) -> Self {
        let answers = LruCache::with_hasher(usize::MAX, foldhash::fast::RandomState::default());
        Self { answers, bytes: 0, max_bytes }
    }

    pub(super) fn get(&mut self, key: &ShapeKey) -> Option<Arc<Classified>> {
        self.answers.get(key).map(Arc::clone)
    }

    pub(super) fn put(&mut self, key: ShapeKey, answer: &Arc<Classified>) {
        self.bytes += cost(answer);
        if let Some(old) = self.answers.insert(key, Arc::clone(answer)) {
            self.bytes -= cost(&old);
        }
        while self.bytes > self.max_bytes
            && let Some((_, old)) = self.answers.remove_lru()
        {
            self.bytes -= cost(&old);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }
}

/// What one answer takes, with its key and the links of the list.
fn cost(answer: &Classified) -> usize {
    const LINKS_BYTES: usize = 64;
    let settings: usize = answer.settings.iter().map(|name| size_of::<Box<str>>() + name.len()).sum();
    let by_name = answer.by_name.as_ref().map_or(0, |by| by.name.len());
    let names = answer.why.name.as_ref().map_or(0, |n| n.len()) + settings + by_name;
    size_of::<ShapeKey>() + size_of::<Classified>() + names + LINKS_BYTES
}

/// Shapes that looked like reads until a replica refused them.
#[derive(Debug, Default)]
pub(super) struct LearnedWrites {
    /// In the order of learning.
    expiries: LinkedHashMap<u64, Instant, foldhash::fast::RandomState>,
}

impl LearnedWrites {
    const MAX: usize = 4096;

    pub(super) fn learn(&mut self, fingerprint: u64, now: Instant, ttl: Duration) {
        if let Some(expires) = now.checked_add(ttl) {
            self.expiries.insert(fingerprint, expires);
        }
        while self.expiries.len() > Self::MAX {
            self.expiries.pop_front();
        }
    }

    /// The answer, or a write if its shape was learned.
    pub(super) fn overrule(&mut self, answer: Arc<Classified>, now: Instant) -> Arc<Classified> {
        if self.expiries.is_empty() || answer.class == Class::Write {
            return answer;
        }
        match self.expiries.get(&answer.fingerprint) {
            None => answer,
            Some(expires) if *expires <= now => {
                self.expiries.remove(&answer.fingerprint);
                answer
            }
            Some(_) => Arc::new(Classified {
                class: Class::Write,
                why: Why { rule: Rule::Learned, name: None },
                ..Classified::clone(&answer)
            }),
        }
    }
}
