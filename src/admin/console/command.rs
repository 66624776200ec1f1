//! The commands: one table that gives their syntax, who may run them, and SHOW HELP.

use std::sync::Arc;

use super::pause::{pause, resume};
use super::show;
use super::switchover::{Order, switch_over};
use super::table::{Table, text};
use super::{Answer, Notices};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::session::Rights;
use crate::session::cluster::Cluster;
use crate::session::worker::Shared;

struct Command {
    /// Words in capitals are written as they are, others stand for what the user says. What is in brackets may be left
    /// out.
    syntax: &'static str,
    does: &'static str,
    work: Work,
}

enum Work {
    Show(fn(&Shared) -> Table),
    Pause,
    Resume,
    Switchover,
}

const COMMANDS: [Command; 9] = [
    Command { syntax: "SHOW HELP", does: "these commands", work: Work::Show(help) },
    Command { syntax: "SHOW VERSION", does: "which Causeway this is", work: Work::Show(show::version) },
    Command {
        syntax: "SHOW CLUSTERS",
        does: "the primary of each cluster, whether it is paused, and what is wrong",
        work: Work::Show(show::clusters),
    },
    Command {
        syntax: "SHOW NODES",
        does: "each node's role and position, and whether it takes reads and writes",
        work: Work::Show(show::nodes),
    },
    Command { syntax: "SHOW POOLS", does: "servers and waiting clients of each pool", work: Work::Show(show::pools) },
    Command { syntax: "SHOW CLIENTS", does: "who is connected", work: Work::Show(show::clients) },
    Command {
        syntax: "PAUSE [cluster]",
        does: "what needs the primary waits from now on; returns when nothing runs there any more",
        work: Work::Pause,
    },
    Command { syntax: "RESUME [cluster]", does: "ends a PAUSE", work: Work::Resume },
    Command {
        syntax: "SWITCHOVER cluster TO node [WAIT] [TIMEOUT duration]",
        does: "pauses, promotes the replica when it has everything (WAIT: lets you promote it), and resumes",
        work: Work::Switchover,
    },
];

/// What the user said for the words of a command's syntax.
#[derive(Debug, Default, PartialEq)]
struct Said(Vec<(&'static str, String)>);

impl Said {
    fn get(&self, word: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == word).map(|(_, said)| said.as_str())
    }
}

impl Command {
    /// `None`: the words are not this command's.
    fn parse(&self, mut words: &[String]) -> Option<Said> {
        let mut said = Said::default();
        for part in parts(self.syntax) {
            let (optional, part) = match part.strip_prefix('[') {
                Some(inner) => (true, inner.trim_end_matches(']')),
                None => (false, part),
            };
            let names: Vec<_> = part.split(' ').collect();
            let fits = |(name, word): (&&str, &String)| !is_keyword(name) || name.eq_ignore_ascii_case(word);
            match words.split_at_checked(names.len()) {
                Some((here, rest)) if names.iter().zip(here).all(fits) => {
                    said.0.extend(names.into_iter().zip(here.iter().cloned()));
                    words = rest;
                }
                _ if optional => {}
                _ => return None,
            }
        }
        words.is_empty().then_some(said)
    }

    fn rights(&self) -> Rights {
        if matches!(self.work, Work::Show(_)) { Rights::Look } else { Rights::Everything }
    }

    /// Its first word, or first two where many have the same.
    fn name(&self) -> &'static str {
        self.syntax.split_once(' ').map_or(self.syntax, |(first, _)| if first == "SHOW" { self.syntax } else { first })
    }
}

fn is_keyword(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// The words of a syntax; those in one pair of brackets together.
fn parts(mut syntax: &'static str) -> impl Iterator<Item = &'static str> {
    std::iter::from_fn(move || {
        let end = if syntax.starts_with('[') { syntax.find(']').map(|end| end + 1) } else { syntax.find(' ') };
        let (part, rest) = syntax.split_at(end.unwrap_or(syntax.len()));
        syntax = rest.trim_start();
        (!part.is_empty()).then_some(part)
    })
}

/// Splits a command into its words: bare ones, and those in quotes of either kind, which are doubled inside. One
/// semicolon may end it.
///
/// # Errors
/// 42601: a quote is not closed, or something follows the semicolon.
pub(super) fn words(text: &str) -> Result<Vec<String>> {
    let wrong = |what: &str| Error::new(Fault::Client, sqlstate::SYNTAX_ERROR, what).hint(HELP);
    let mut words = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        if first == ';' {
            let after = rest.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
            return if after.is_empty() { Ok(words) } else { Err(wrong("only one command at a time")) };
        }
        let end = match first {
            '"' | '\'' => {
                let mut word = String::new();
                let mut parts = rest.get(1..).unwrap_or_default().split(first);
                let mut end = 1;
                loop {
                    let part = parts.next().unwrap_or_default();
                    word.push_str(part);
                    end += part.len() + 1;
                    match rest.get(end..) {
                        None => return Err(wrong("a quote is not closed")),
                        Some(after) if after.starts_with(first) => {
                            word.push(first);
                            end += 1;
                            parts.next();
                        }
                        Some(_) => break,
                    }
                }
                words.push(word);
                end
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ';' | '"' | '\''));
                let end = end.unwrap_or(rest.len());
                words.extend(rest.get(..end).map(str::to_owned));
                end
            }
        };
        rest = rest.get(end..).unwrap_or_default().trim_start();
    }
    Ok(words)
}

const HELP: &str = "SHOW HELP lists the commands.";

/// Runs what `words` say.
///
/// # Errors
/// 42601: it is no command; 42501: the user may not; what the command itself gives.
pub(super) async fn run(
    shared: &Arc<Shared>,
    rights: Rights,
    user: &str,
    words: &[String],
    notices: &Notices,
) -> Result<Answer> {
    let Some((command, said)) = COMMANDS.iter().find_map(|command| Some((command, command.parse(words)?))) else {
        return Err(unknown(words));
    };
    if rights < command.rights() {
        let message = format!("only a user of admin_users may run {}", command.name());
        return Err(Error::new(Fault::Client, sqlstate::INSUFFICIENT_PRIVILEGE, message));
    }
    match command.work {
        Work::Show(table) => return Ok(Answer { rows: Some(table(shared)), tag: "SHOW" }),
        Work::Pause => pause(shared, user, &clusters(shared, &said)?, notices).await?,
        Work::Resume => resume(shared, user, &clusters(shared, &said)?).await?,
        Work::Switchover => {
            let cluster = clusters(shared, &said)?.swap_remove(0);
            let order = Order::new(cluster, said.get("node"), said.get("WAIT").is_some(), said.get("duration"))?;
            switch_over(shared, user, order, notices).await?;
        }
    }
    Ok(Answer::done(command.name()))
}

fn unknown(words: &[String]) -> Error {
    let first = words.first().map_or("", String::as_str);
    let meant = COMMANDS.iter().find(|command| command.name().eq_ignore_ascii_case(first));
    let (message, hint) = match meant {
        Some(command) => (format!("{} is written otherwise", command.name()), format!("{}; {HELP}", command.syntax)),
        None => (format!("unknown command {:?}", words.join(" ")), HELP.to_owned()),
    };
    Error::new(Fault::Client, sqlstate::SYNTAX_ERROR, message).hint(hint)
}

/// The cluster that was named; all, if none was. Never empty.
fn clusters(shared: &Shared, said: &Said) -> Result<Vec<Arc<Cluster>>> {
    let Some(name) = said.get("cluster") else { return Ok(shared.clusters.to_vec()) };
    let named = shared.clusters.iter().find(|cluster| cluster.config.name == name);
    named.map(|cluster| vec![Arc::clone(cluster)]).ok_or_else(|| {
        let message = format!("there is no cluster {name:?}");
        Error::new(Fault::Client, sqlstate::UNDEFINED_OBJECT, message).hint("SHOW CLUSTERS lists them.")
    })
}

fn help(_: &Shared) -> Table {
    let mut table = Table::new(&["command", "does"]);
    for command in &COMMANDS {
        table.row([text(command.syntax), text(command.does)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(line: &str) -> Option<Vec<String>> {
        words(line).ok()
    }

    #[test]
    fn commands_fall_into_words() {
        for (line, expected) in [
            ("", Some(&[][..])),
            (" ; ", Some(&[])),
            ("show help", Some(&["show", "help"])),
            ("\tPAUSE main ;\n", Some(&["PAUSE", "main"])),
            ("pause \"My \"\"c\"\"luster\";;", Some(&["pause", "My \"c\"luster"])),
            ("TIMEOUT '1 s'", Some(&["TIMEOUT", "1 s"])),
            ("a''", Some(&["a", ""])),
            ("''''", Some(&["'"])),
            ("PAUSE; RESUME", None),
            ("PAUSE \"main", None),
            ("PAUSE \"main\"\"", None),
            ("'", None),
        ] {
            let expected = expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            assert_eq!(split(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_syntax_says_what_fits_it() {
        let check = |line: &str, expected: Option<(&str, &[(&str, &str)])>| {
            let words = split(line).unwrap();
            let found = COMMANDS.iter().find_map(|command| Some((command.name(), command.parse(&words)?)));
            let said = |(name, said): (_, Said)| {
                (name, said.0.into_iter().filter(|(word, _)| !is_keyword(word) || *word == "WAIT").collect::<Vec<_>>())
            };
            let expected = expected.map(|(name, said)| {
                (name, said.iter().map(|(word, said)| (*word, (*said).to_owned())).collect::<Vec<_>>())
            });
            assert_eq!(found.map(said), expected, "{line}");
        };
        check("show Nodes", Some(("SHOW NODES", &[])));
        check("SHOW", None);
        check("SHOW NODES main", None);
        check("pause", Some(("PAUSE", &[])));
        check("PAUSE Main", Some(("PAUSE", &[("cluster", "Main")])));
        check("PAUSE a b", None);
        check("SWITCHOVER", None);
        check("SWITCHOVER a TO", None);
        check("switchover a to b", Some(("SWITCHOVER", &[("cluster", "a"), ("node", "b")])));
        check("SWITCHOVER a TO b WAIT", Some(("SWITCHOVER", &[("cluster", "a"), ("node", "b"), ("WAIT", "WAIT")])));
        check(
            "SWITCHOVER a TO b timeout '1s'",
            Some(("SWITCHOVER", &[("cluster", "a"), ("node", "b"), ("duration", "1s")])),
        );
        check("SWITCHOVER a TO b TIMEOUT 1s WAIT", None);
        check("SWITCHOVER a INTO b", None);
    }

    #[test]
    fn what_is_no_command_is_told_where_they_are() {
        for (line, message, hint) in [
            ("SELECT 1", "unknown command \"SELECT 1\"", HELP),
            ("SHOW", "unknown command \"SHOW\"", HELP),
            ("RESUME a b", "RESUME is written otherwise", "RESUME [cluster]; SHOW HELP lists the commands."),
        ] {
            let error = unknown(&split(line).unwrap());
            assert_eq!((error.sqlstate(), error.message(), error.hint_text()), ("42601", message, Some(hint)));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z'\"; é]{0,40}") {
            if let Ok(words) = words(&text) {
                let _ = COMMANDS.iter().find_map(|command| command.parse(&words));
            }
        }

        #[test]
        fn what_is_quoted_comes_out_as_it_was(word in ".{0,30}") {
            for quote in ['"', '\''] {
                let line = format!("{quote}{}{quote}", word.replace(quote, &format!("{quote}{quote}")));
                prop_assert_eq!(split(&line), Some(vec![word.clone()]), "{}", line);
            }
        }
    }
}
