//! As much of Rust's lexical grammar as the rules need: code without comments and strings, tokens, item ends.

/// `text` with comments as blanks and the contents of strings and characters as quotes; lines stay where they were.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while out.len() < bytes.len() {
        let at = out.len();
        let (end, fill) = match &bytes[at..] {
            [b'/', b'/', ..] => (line_end(bytes, at), b' '),
            [b'/', b'*', ..] => (block_comment_end(bytes, at), b' '),
            [b'"', ..] => (string_end(bytes, at), b'"'),
            [b'\'', ..] => (character_end(bytes, at), b'"'),
            [b'r', ..] if !in_word(bytes, at) => (raw_string_end(bytes, at), b'"'),
            _ => (at, b' '),
        };
        if end == at {
            out.push(bytes[at]);
        }
        out.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { byte } else { fill }));
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len() - from)
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_u32);
    while at < bytes.len() {
        let (step, new_depth) = match &bytes[at..] {
            [b'/', b'*', ..] => (2, depth + 1),
            [b'*', b'/', ..] => (2, depth - 1),
            _ => (1, depth),
        };
        (at, depth) = (at + step, new_depth);
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a character literal, or `from` where the quote starts a lifetime.
fn character_end(bytes: &[u8], from: usize) -> usize {
    match &bytes[from + 1..] {
        [b'\\', _, rest @ ..] => {
            let close = rest.iter().position(|&byte| byte == b'\'');
            close.map_or(bytes.len(), |close| from + 4 + close)
        }
        [first, rest @ ..] => {
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if rest.get(width - 1) == Some(&b'\'') { from + 2 + width } else { from }
        }
        [] => from,
    }
}

/// The end of a raw string that starts at this `r`, or `from` where it starts a word.
fn raw_string_end(bytes: &[u8], from: usize) -> usize {
    let hashes = bytes[from + 1..].iter().take_while(|&&byte| byte == b'#').count();
    if bytes.get(from + 1 + hashes) != Some(&b'"') {
        return from;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let inside = from + hashes + 2;
    let end = bytes[inside..].windows(close.len()).position(|window| window == close);
    end.map_or(bytes.len(), |end| inside + end + close.len())
}

/// Whether the byte at `at` goes on with a word; `b` and `c` before a raw string are prefixes, not words.
fn in_word(bytes: &[u8], at: usize) -> bool {
    let word = |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let prefix = at >= 1 && matches!(bytes[at - 1], b'b' | b'c') && !(at >= 2 && word(at - 2));
    at >= 1 && word(at - 1) && !prefix
}

/// A word, or one character of punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

/// The tokens of what [`code_only`] made.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let (text, after) = rest.split_at(if word == 0 { first.len_utf8() } else { word });
            if !first.is_whitespace() && first != '"' {
                found.push(Token { line: index + 1, text });
            }
            rest = after;
        }
    }
    found
}

/// Where `pattern`, itself Rust tokens, occurs: the index of its first token.
pub(crate) fn occurrences(tokens: &[Token<'_>], pattern: &str) -> Vec<usize> {
    let wanted: Vec<&str> = self::tokens(pattern).iter().map(|token| token.text).collect();
    let same = |window: &[Token<'_>]| window.iter().zip(&wanted).all(|(token, text)| token.text == *text);
    tokens.windows(wanted.len()).enumerate().filter(|(_, window)| same(window)).map(|(at, _)| at).collect()
}

/// The index of the bracket that closes the one at `open`; the last token where it is never closed.
pub(crate) fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_u32;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    tokens.len().saturating_sub(1)
}

/// The index of the token that ends the item starting at `from`: its `;` or the `}` of its body.
pub(crate) fn item_end(tokens: &[Token<'_>], from: usize) -> usize {
    let mut at = from;
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at,
            "{" => return closing(tokens, at),
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len().saturating_sub(1)
}

#[test]
fn comments_and_strings_are_not_code() {
    let table = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("b\"c") g"#, r#"f("""""") g"#),
        ("r\"a\\\" b", "\"\"\"\"\" b"),
        ("br#\"a\" b\"# c", "b\"\"\"\"\"\"\"\"\" c"),
        ("r#type", "r#type"),
        ("for\"x\"", "for\"\"\""),
        ("'a' 'b 'c", "\"\"\" 'b 'c"),
        ("'\\'' x '\\u{1f}' y '\u{e9}' z", "\"\"\"\" x \"\"\"\"\"\"\"\" y \"\"\"\" z"),
    ];
    for (text, code) in table {
        assert_eq!(code_only(text), code, "{text}");
    }
}

#[test]
fn patterns_are_found_by_token() {
    let code = "tokio :: spawn(x);\nmy_tokio::y; Instant::nowhere";
    let found = tokens(code);
    assert_eq!(occurrences(&found, "tokio::"), [0]);
    assert_eq!(occurrences(&found, "Instant::now"), [] as [usize; 0]);
    assert_eq!(found[occurrences(&found, "my_tokio")[0]].line, 2);
    assert_eq!(item_end(&tokens("fn f([u8; 2]) { { } } fn g"), 0), 12);
}
