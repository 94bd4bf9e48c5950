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
    /// Without `self`.
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
                let advice = format!("`{name}` takes {parameters} parameters, at most {PARAMETERS_MAX}: make a struct");
                findings.push(file.finding(line, advice));
            }
        }
    }
    findings
}

fn functions(file: &Source) -> Vec<Function> {
    let tokens = file.tokens();
    let is_blank: Vec<bool> = file.code.lines().map(|line| line.trim().is_empty()).collect();
    let named = |at: &usize| tokens.get(at + 1).is_some_and(|next| next.text != "(");
    let starts = rust::occurrences(&tokens, "fn").into_iter().filter(named);
    let function = |at: usize| {
        let (line, end) = (tokens[at].line, tokens[rust::item_end(&tokens, at)].line);
        Function {
            name: tokens[at + 1].text.to_owned(),
            line,
            lines: is_blank[line - 1..end].iter().filter(|blank| !**blank).count(),
            parameters: count_parameters(&tokens[at + 1..]),
        }
    };
    starts.map(function).collect()
}

/// How many parameters stand in the first brackets outside `<>` of a function from its name on.
fn count_parameters(signature: &[Token<'_>]) -> usize {
    let (mut angles, mut round, mut count, mut empty) = (0_i32, 0_u32, 0, true);
    for (index, token) in signature.iter().enumerate() {
        let arrow = token.text == ">" && index > 0 && matches!(signature[index - 1].text, "-" | "=");
        match token.text {
            "<" => angles += 1,
            ">" if !arrow => angles -= 1,
            "(" if angles == 0 || round > 0 => round += 1,
            "[" | "{" if round > 0 => round += 1,
            ")" | "]" | "}" if round > 1 => round -= 1,
            ")" if round == 1 => return count + usize::from(!empty),
            "," if round == 1 && angles == 0 => {
                count += usize::from(!empty);
                empty = true;
                continue;
            }
            "self" if round == 1 && count == 0 => {
                empty = true;
                continue;
            }
            "&" | "mut" | "'" if empty => continue,
            "{" | ";" => return count,
            _ => {}
        }
        // What stands before `self` (`&'a mut`) is no parameter of its own.
        let lifetime = index > 0 && signature[index - 1].text == "'";
        empty &= round == 0 || (round == 1 && (token.text == "(" || lifetime));
    }
    count
}

#[test]
fn a_long_function_is_found() {
    let body = |lines: usize| format!("//! A.\nfn long() {{\n{}    // a comment\n\n}}\n", "    go();\n".repeat(lines));
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
    let five = "//! A.\nfn f(a: A, b: A, c: A, d: A, e: A) {}\n";
    assert_eq!(parameters(&Workspace::of([("a/src/a.rs", five)])).len(), 1);
    assert_eq!(parameters(&Workspace::of([("a/tests/a.rs", five)])).len(), 0);
}
