//! Code as tokens, so that comments, strings and tests do not count.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

use crate::files::{Files, is_within, module, sources};

pub struct Token {
    pub text: String,
    pub line: usize,
}

pub fn is_word(code: &[Token], at: usize, text: &str) -> bool {
    code.get(at).is_some_and(|token| token.text == text)
}

pub fn each_production_file(files: &Files, check: impl Fn(&str, &[Token]) -> Vec<(usize, String)>) -> Vec<String> {
    let code = production(files);
    let wrong = code.iter().flat_map(|(path, code)| {
        check(path, code).into_iter().map(move |(line, problem)| format!("{path}:{line}: {problem}"))
    });
    wrong.collect()
}

/// The tokens under `src/`, without comments and without what is only there for tests.
pub fn production(files: &Files) -> Vec<(&str, Vec<Token>)> {
    let mut code = Vec::new();
    let mut test_files = Vec::new();
    for (path, text) in sources(files).filter(|(path, _)| path.starts_with("src/")) {
        // What is no Rust does not compile either.
        let Ok(stream) = text.parse::<TokenStream>() else { continue };
        let mut tokens = Vec::new();
        let (folder, _) = path.rsplit_once('/').unwrap_or_default();
        let own = match path.strip_suffix(".rs").filter(|stem| !stem.ends_with("/mod") && module(path).is_some()) {
            Some(stem) => stem,
            None => folder,
        };
        flatten(stream, &mut tokens, &mut |file| match file {
            TestFile::Module(name) => test_files.push(format!("{own}/{name}")),
            TestFile::Path(name) => test_files.push(format!("{folder}/{name}")),
        });
        code.push((path.as_str(), tokens));
    }
    code.retain(|(path, _)| !test_files.iter().any(|file| is_within(path, file)));
    code
}

enum TestFile {
    Module(String),
    Path(String),
}

fn flatten(stream: TokenStream, out: &mut Vec<Token>, test_file: &mut impl FnMut(TestFile)) {
    let trees: Vec<_> = stream.into_iter().collect();
    let mut at = 0;
    while let Some(tree) = trees.get(at) {
        if is_cfg_test(&trees[at..]) {
            at += item_length(&trees[at..], test_file);
            continue;
        }
        at += 1;
        let line = tree.span().start().line;
        let mut put = |text: String| out.push(Token { text, line });
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                put(open.to_owned());
                flatten(group.stream(), out, test_file);
                out.push(Token { text: close.to_owned(), line: group.span_close().start().line });
            }
            // A lifetime is one token for us, and so is a path's separator.
            TokenTree::Punct(punct) if punct.spacing() == Spacing::Joint && "':".contains(punct.as_char()) => {
                match trees.get(at) {
                    Some(TokenTree::Ident(name)) => put(format!("'{name}")),
                    Some(TokenTree::Punct(next)) => put(format!("{}{}", punct.as_char(), next.as_char())),
                    _ => put(punct.to_string()),
                }
                at += 1;
            }
            other => put(other.to_string()),
        }
    }
}

fn is_cfg_test(trees: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] = trees else { return false };
    hash.as_char() == '#' && attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// Trees up to the end of an item, which is a block or a semicolon; a module elsewhere names its file.
fn item_length(trees: &[TokenTree], test_file: &mut impl FnMut(TestFile)) -> usize {
    let is_end = |tree: &TokenTree| match tree {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    };
    let length = trees.iter().position(is_end).map_or(trees.len(), |end| end + 1);
    let item: Vec<_> = trees[..length].iter().map(ToString::to_string).collect();
    if let [.., keyword, name, end] = item.as_slice()
        && keyword == "mod"
        && end == ";"
    {
        let path = item.iter().find_map(|tree| tree.strip_prefix("[path = \"")?.strip_suffix("\"]"));
        test_file(path.map_or_else(|| TestFile::Module(name.clone()), |path| TestFile::Path(path.to_owned())));
    }
    length
}

/// Every name; those behind `crate::` and `std::` with it, also in braces.
pub fn names(code: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let root = token.text.as_str();
        let is_root = ["crate", "std"].contains(&root) && is_word(code, at + 1, "::");
        if is_root && is_word(code, at + 2, "{") {
            found.extend(first_names(&code[at + 3..]).map(|(name, line)| (format!("{root}::{name}"), line)));
        } else if let Some(next) = code.get(at + 2).filter(|_| is_root) {
            found.push((format!("{root}::{}", next.text), next.line));
        }
        found.push((token.text.clone(), token.line));
    }
    found
}

/// The names that begin the paths of a `use {…}`.
fn first_names(code: &[Token]) -> impl Iterator<Item = (&str, usize)> {
    let mut depth = 0_usize;
    let mut begins = true;
    code.iter()
        .map_while(move |token| {
            let first = begins && depth == 0;
            match token.text.as_str() {
                "{" => depth += 1,
                "}" if depth == 0 => return None,
                "}" => depth -= 1,
                _ => {}
            }
            begins = token.text == ",";
            Some(first.then_some((token.text.as_str(), token.line)))
        })
        .flatten()
}

/// Lines where `super::super::…` reaches the root of the crate.
pub fn escapes(path: &str, code: &[Token]) -> Vec<usize> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inside.split('/').count();
    let is_step = |at: usize| is_word(code, at, "super") && is_word(code, at + 1, "::");
    let starts = (0..code.len()).filter(|&at| is_step(at) && (at < 2 || !is_step(at - 2)));
    starts
        .filter(|&start| (start..).step_by(2).take_while(|&at| is_step(at)).count() >= depth)
        .map(|start| code[start].line)
        .collect()
}

pub fn macros(code: &[Token], names: &[&str], advice: &str) -> Vec<(usize, String)> {
    let calls = (0..code.len()).filter(|&at| names.contains(&code[at].text.as_str()) && is_word(code, at + 1, "!"));
    calls.map(|at| (code[at].line, format!("{}!: {advice}", code[at].text))).collect()
}
