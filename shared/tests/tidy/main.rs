//! The house rules a machine can check, over every file of the workspace: sizes, pure files, bounds, names, tests
//! that wait, and the code map. What clippy and rustc check is left to them.
//!
//! A finding says where it is, what is wrong and what to do. Every rule has a test beside it that shows it fail.

mod functions;
mod map;
mod names;
mod pure;
mod rules;
mod rust;
mod workspace;

use std::path::Path;

use workspace::{Finding, Workspace};

fn this_workspace() -> Workspace {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = Workspace::read(&root).unwrap_or_else(|error| panic!("{error}"));
    assert!(workspace.rust().count() > 50, "the walk lost files: only {}", workspace.rust().count());
    workspace
}

#[track_caller]
fn none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} finding(s):\n{}", lines.len(), lines.join("\n"));
}

macro_rules! tidy {
    ($($name:ident: $check:path;)+) => {
        $(
            #[test]
            fn $name() {
                none(&$check(&this_workspace()));
            }
        )+
    };
}

tidy! {
    files_are_short: rules::file_lengths;
    functions_are_short: functions::lengths;
    functions_take_few_parameters: functions::parameters;
    pure_files_only_decide: pure::contents;
    pure_crates_are_pure_throughout: pure::coverage;
    pure_crates_depend_on_no_runtime: pure::dependencies;
    queues_are_bounded: rules::unbounded_queues;
    nothing_is_left_for_later: rules::leftovers;
    tests_do_not_sleep: rules::sleeping_tests;
    tests_are_not_switched_off: rules::ignored_tests;
    tests_are_not_retried: rules::retries;
    files_say_what_they_are: rules::heads;
    names_say_something: names::banned;
    no_registry_is_named: rules::registry_hosts;
    code_map_is_complete: map::code_map;
}
