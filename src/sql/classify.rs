//! The classifier of one worker: scan, judge, veto, remember.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::facts::CatalogFacts;
use super::judge::judge;
use super::lexer::{Tokens, Unscannable, scan};
use super::memo::{Circumstances, LearnedWrites, RecentTexts, ShapeKey, Shapes};
use super::statement::Finding;
use super::veto::{Opinion, opinion};
use super::{Begin, Class, Classified, Effects, Hint, Rule, opaque, own};

/// What a classification depends on besides the text.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub facts: &'a CatalogFacts,
    /// Different for any two `facts` in the life of the process, of whatever cluster or database. A new version makes
    /// the answers under the old one unreachable; they age out.
    pub facts_version: u64,
    /// The session's setting. Off: a backslash escapes in plain strings, and every text is a write.
    pub standard_conforming_strings: bool,
    /// The client encoding has no trail bytes that look like ASCII; otherwise every text beyond ASCII is a write. Not safe are
    /// SJIS, `SHIFT_JIS_2004`, BIG5, GBK, UHC, GB18030 and JOHAB.
    pub safe_encoding: bool,
    /// For learned writes, which expire.
    pub now: Instant,
}

impl Context<'_> {
    fn circumstances(&self) -> Circumstances {
        Circumstances {
            facts_version: self.facts_version,
            standard_strings: self.standard_conforming_strings,
            safe_encoding: self.safe_encoding,
        }
    }
}

/// What a classifier did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Answers from the memo, by text or by shape.
    pub hits: u64,
    pub misses: u64,
    /// Texts that sqlparser could not parse; it has no say in their class.
    pub parse_failures: u64,
    /// Texts that looked like reads until sqlparser saw a write in them.
    pub vetoes: u64,
}

/// Classifies texts; one per worker, with a memo of its own.
///
/// The memo has two levels. Texts are compared byte for byte. Shapes are compared by a 128-bit hash of all tokens but
/// the literals; the rules cannot see literals either, so texts of one shape have one class. (The exceptions are the
/// body of DO, which is code, and what `set_config` sets: they belong to the shape. Where a setting's name may be in any
/// literal, and where one of ours is set, the answer is not remembered by shape.)
#[derive(Debug)]
pub struct Classifier {
    texts: RecentTexts,
    shapes: Shapes,
    learned: LearnedWrites,
    scanned: Tokens,
    fingerprints: foldhash::quality::FixedState,
    checks: foldhash::quality::RandomState,
    pub stats: Stats,
}

/// The seed of fingerprints: any number, as long as it stays.
const FINGERPRINT_SEED: u64 = 0x6361_7573_6577_6179;

impl Classifier {
    /// Remembers at most `memo_bytes` bytes of texts and answers.
    pub fn new(memo_bytes: usize) -> Self {
        Self {
            texts: RecentTexts::new(memo_bytes / 2),
            shapes: Shapes::new(memo_bytes - memo_bytes / 2),
            learned: LearnedWrites::default(),
            scanned: Tokens::default(),
            fingerprints: foldhash::quality::FixedState::with_seed(FINGERPRINT_SEED),
            checks: foldhash::quality::RandomState::default(),
            stats: Stats::default(),
        }
    }

    /// The class, effects and reason of a text of one or more statements, without its terminating NUL.
    pub fn classify(&mut self, text: &[u8], context: &Context<'_>) -> Arc<Classified> {
        let circumstances = context.circumstances();
        let answer = if let Some(answer) = self.texts.get(text, circumstances) {
            self.stats.hits += 1;
            answer
        } else {
            let answer = self.classify_shape(text, context);
            let answer = self.add_own(answer, text);
            self.texts.put(text, circumstances, &answer);
            answer
        };
        self.learned.overrule(answer, context.now)
    }

    /// Texts of this shape are writes until `ttl` has passed.
    pub fn learn_write(&mut self, fingerprint: u64, now: Instant, ttl: Duration) {
        self.learned.learn(fingerprint, now, ttl);
    }

    /// Shapes remembered at the moment.
    pub fn remembered(&self) -> usize {
        self.shapes.len()
    }

    fn classify_shape(&mut self, text: &[u8], context: &Context<'_>) -> Arc<Classified> {
        if let Err(unscannable) = scan(text, context.standard_conforming_strings, &mut self.scanned) {
            self.stats.misses += 1;
            return Arc::new(self.finish(unscanned(text, unscannable, context)));
        }
        if !context.safe_encoding && !text.is_ascii() {
            self.stats.misses += 1;
            let effects = opaque::effects_of_unscanned(text);
            return Arc::new(self.finish(Finding::write(Rule::UnsafeText, b"").with(effects)));
        }
        let key = ShapeKey {
            fingerprint: self.fingerprints.hash_one(&self.scanned.shape),
            check: self.checks.hash_one(&self.scanned.shape),
            hint: self.scanned.comments.target,
            circumstances: context.circumstances(),
        };
        if let Some(answer) = self.shapes.get(&key) {
            self.stats.hits += 1;
            return answer;
        }
        self.stats.misses += 1;
        let mut finding = judge(text, &self.scanned, context.facts, |_, _| {});
        if !context.standard_conforming_strings {
            finding.worsen(Class::Write, Rule::UnsafeText, b"");
            finding.begins = finding.begins.map(|begin| Begin { read_only: false, ..begin });
        }
        // As SET LOCAL of more names than are counted.
        if finding.change.effects.intersects(Effects::LASTING) {
            finding.worsen(Class::Write, Rule::SessionState, b"");
        }
        self.take_hint(&mut finding);
        self.ask_parser(text, &mut finding);
        let by_literals = finding.change.by_literals || finding.own.is_some();
        let answer = Arc::new(self.finish(finding));
        if !by_literals {
            self.shapes.put(key, &answer);
        }
        answer
    }

    /// What a text says to us besides its shape. Hints are as many as there are tokens, and of no consequence for the
    /// rest of the answer.
    fn add_own(&self, answer: Arc<Classified>, text: &[u8]) -> Arc<Classified> {
        let mentions_own = answer.mentions_own || own::is_mentioned(text);
        let comments = &self.scanned.comments;
        if mentions_own == answer.mentions_own && comments.say_nothing() {
            return answer;
        }
        let mut answer = Classified { mentions_own, ..Arc::unwrap_or_clone(answer) };
        if !comments.say_nothing() {
            comments.put_into(answer.own.get_or_insert_default());
        }
        Arc::new(answer)
    }

    /// `/* causeway: replica */` turns the unknown into a read; a write stays a write.
    fn take_hint(&self, finding: &mut Finding) {
        if finding.class == Class::Unknown && self.scanned.comments.target == Some(Hint::Replica) {
            finding.class = Class::Read;
            finding.why.rule = Rule::HintReplica;
        }
    }

    fn ask_parser(&mut self, text: &[u8], finding: &mut Finding) {
        if finding.class != Class::Read || finding.explains_route {
            return;
        }
        match opinion(text, &self.scanned) {
            Opinion::Writes => {
                self.stats.vetoes += 1;
                finding.worsen(Class::Write, Rule::Veto, b"");
            }
            Opinion::Unparsed => self.stats.parse_failures += 1,
            Opinion::Reads | Opinion::NotAsked => {}
        }
    }

    fn finish(&self, finding: Finding) -> Classified {
        let names_own = finding.change.settings.iter().any(|name| own::is_own_name(name.as_bytes()));
        Classified {
            class: finding.class,
            effects: finding.change.effects,
            hint: self.scanned.comments.target,
            begins: finding.begins,
            sole: finding.sole,
            transaction_control: finding.transaction_control,
            fingerprint: self.fingerprints.hash_one(&self.scanned.shape),
            settings: finding.change.settings.into(),
            by_name: finding.by_name,
            own: finding.own,
            mentions_own: finding.mentions_own || names_own,
            explains_route: finding.explains_route,
            why: finding.why,
        }
    }
}

/// A text that the scanner could not finish. PostgreSQL refuses a malformed one as a whole, if it reads it as we do.
fn unscanned(text: &[u8], unscannable: Unscannable, context: &Context<'_>) -> Finding {
    match unscannable {
        Unscannable::TooLong => Finding::write(Rule::TooLong, b"").with(opaque::effects_of_unscanned(text)),
        Unscannable::Malformed if context.safe_encoding => Finding::write(Rule::Malformed, b""),
        Unscannable::Malformed => Finding::write(Rule::Malformed, b"").with(opaque::effects_of_unscanned(text)),
    }
}
