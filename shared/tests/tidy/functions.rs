//! Functions that fit a screen and take few things.

use crate::rust::{self, Token};
use crate::workspace::{Finding, Source, Workspace};

const LINES_MAX: usize = 70;
const PARAMETERS_MAX: usize = 4;

struct Function {
    name: String,
    line: usize,
    /// Lines with code on them, from `fn` to the closing brace.
    lines: usize,
    /// Without `self`; none where a trait decides.
    parameters: usize,
}

/// Functions longer than the budget, tests too; lines without code are not counted.
pub(crate) fn lengths(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in workspace.rust() {
        for function in functions(file).iter().filter(|function| function.lines > LINES_MAX) {
            let Function { name, line, lines, .. } = function;
            let advice = format!("`{name}` has {lines} lines of code, at most {LINES_MAX}: split it");
            findings.push(file.finding(*line, advice));
        }
    }
    findings
}

/// Functions outside tests with more parameters than the budget, `self` not counted.
pub(crate) fn parameters(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in workspace.rust() {
        for Function { name, line, parameters, .. } in functions(file) {
            if parameters > PARAMETERS_MAX && !file.is_test_line(line) {
                let advice = format!(
                    "`{name}` takes {parameters} parameters, at most {PARAMETERS_MAX}: make a struct"
                );
                findings.push(file.finding(line, advice));
            }
        }
    }
    findings
}

fn functions(file: &Source) -> Vec<Function> {
    let tokens = file.tokens();
    let is_blank: Vec<bool> = file.code.lines().map(|line| line.trim().is_empty()).collect();
    let trait_impls = trait_impls(&tokens);
    let named = |at: &usize| tokens.get(at + 1).is_some_and(|next| next.text != "(");
    let starts = rust::occurrences(&tokens, "fn").into_iter().filter(named);
    let function = |at: usize| {
        let decided = trait_impls.iter().any(|(start, end)| (*start..*end).contains(&at));
        let (line, end) = (tokens[at].line, tokens[rust::item_end(&tokens, at)].line);
        Function {
            name: tokens[at + 1].text.to_owned(),
            line,
            lines: is_blank[line - 1..end].iter().filter(|blank| !**blank).count(),
            parameters: if decided { 0 } else { count_parameters(&tokens[at + 1..]) },
        }
    };
    starts.map(function).collect()
}

/// How many parameters a function has, from its name on; `self` is not counted.
fn count_parameters(signature: &[Token<'_>]) -> usize {
    let brackets = outside_angles(signature, 0).find(|&at| matches!(signature[at].text, "(" | "{" | ";"));
    let Some(open) = brackets.filter(|&at| signature[at].text == "(") else {
        return 0;
    };
    let inside = &signature[open + 1..rust::closing(signature, open)];
    let commas = outside_angles(inside, 0).filter(|&at| inside[at].text == ",");
    let ends: Vec<usize> = commas.chain([inside.len()]).collect();
    let starts = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    let parameters = starts.zip(&ends).map(|(start, &end)| &inside[start..end]);
    parameters.filter(|parameter| !parameter.is_empty() && !is_self(parameter)).count()
}

fn is_self(parameter: &[Token<'_>]) -> bool {
    parameter.iter().take_while(|token| token.text != ":").any(|token| token.text == "self")
}

/// The indices from `from` on that are inside no brackets and no `<>`; an opening bracket is outside itself.
fn outside_angles<'a>(tokens: &'a [Token<'a>], from: usize) -> impl Iterator<Item = usize> + 'a {
    let (mut next, mut angles) = (from, 0_u32);
    std::iter::from_fn(move || {
        while next < tokens.len() {
            let at = next;
            next = match tokens[at].text {
                "(" | "[" | "{" => rust::closing(tokens, at) + 1,
                _ => at + 1,
            };
            let is_arrow = at > 0 && matches!(tokens[at - 1].text, "-" | "=");
            match tokens[at].text {
                "<" => angles += 1,
                ">" if !is_arrow => angles = angles.saturating_sub(1),
                _ if angles == 0 => return Some(at),
                _ => {}
            }
        }
        None
    })
}

/// First and last token of every `impl Trait for Type`: what functions take there is for the trait to say.
fn trait_impls(tokens: &[Token<'_>]) -> Vec<(usize, usize)> {
    let item = |at: &usize| *at == 0 || matches!(tokens[at - 1].text, "}" | "{" | ";" | "]" | "unsafe");
    let impls = rust::occurrences(tokens, "impl").into_iter().filter(item);
    let ranges = impls.map(|at| (at, rust::item_end(tokens, at)));
    let of_trait = |&(start, end): &(usize, usize)| {
        let mut head = outside_angles(&tokens[..end], start + 1).take_while(|&at| tokens[at].text != "{");
        head.any(|at| tokens[at].text == "for" && tokens.get(at + 1).is_some_and(|next| next.text != "<"))
    };
    ranges.filter(of_trait).collect()
}

#[test]
fn a_long_function_is_found() {
    let body = |lines: usize| {
        format!("//! A.\nfn long() {{\n{}    // a comment\n\n}}\n", "    go();\n".repeat(lines))
    };
    let findings = |lines| lengths(&Workspace::of([("a/src/a.rs", body(lines))]));
    assert_eq!(findings(LINES_MAX - 2), []);
    let found = findings(LINES_MAX - 1);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "a/src/a.rs:2: `long` has 71 lines of code, at most 70: split it");
}

#[test]
fn parameters_are_counted() {
    let table = [
        ("fn f();", 0),
        ("fn f(&self) {}", 0),
        ("fn f(&'a mut self, a: A,) {}", 1),
        ("fn f(self: Arc<Self>, a: A) {}", 1),
        ("fn f<F: Fn(A, B) -> C, G>(f: F, g: Box<dyn Fn(A) -> HashMap<A, B>>, h: [u8; 3]) -> (A, B) {}", 3),
        ("fn f(a: &'static str, (b, c): (B, C), D { e, .. }: D) where F: Fn(A, B, C) {}", 3),
        ("fn f(a: &mut A, b: &'a B, c: C, d: D, e: E) {}", 5),
    ];
    for (code, expected) in table {
        assert_eq!(count_parameters(&rust::tokens(code)[1..]), expected, "{code}");
    }
    let five = "fn f(a: A, b: A, c: A, d: A, e: A) {}\n";
    assert_eq!(parameters(&Workspace::of([("a/src/a.rs", five)])).len(), 1);
    assert_eq!(parameters(&Workspace::of([("a/tests/a.rs", five)])).len(), 0);
    let within =
        |head: &str| parameters(&Workspace::of([("a/src/a.rs", format!("{head} {{ {five} }}"))])).len();
    assert_eq!(within("impl<A> B<C> for D<E> where F: for<'a> G<'a>"), 0);
    assert_eq!(within("impl<A> B<C> where F: for<'a> G<'a>"), 1);
    assert_eq!(within("trait B"), 1);
}
