//! The style of the project, as far as a machine can tell.

use std::fs;

use tests::sources::{Source, folders, functions, rust_files, workspace_root};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const CODE_WIDTH_MAX: usize = 100;
/// The rows of tables in comments cannot be wrapped.
const TABLE_WIDTH_MAX: usize = 120;
const TAGLINE_MAX: usize = 100;

/// Runs `check` on every file and fails with all that it found.
fn every_file(check: impl Fn(&Source) -> Vec<String>) {
    let found: Vec<String> = rust_files()
        .iter()
        .flat_map(|file| {
            check(file)
                .into_iter()
                .map(|what| format!("{}: {what}", file.name))
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_file_opens_with_a_header() {
    every_file(|file| {
        let mut lines = file.text.lines();
        let tagline = lines
            .next()
            .and_then(|line| line.strip_prefix("//! "))
            .unwrap_or_default();
        let blank = lines.next().unwrap_or_default();
        let mut wrong = Vec::new();
        if tagline.is_empty() {
            wrong.push("no header".to_string());
        } else if tagline.chars().count() > TAGLINE_MAX {
            wrong.push(format!(
                "a tagline of {} characters",
                tagline.chars().count()
            ));
        }
        if blank != "//!" && !blank.is_empty() {
            wrong.push("no blank line after the tagline".into());
        }
        wrong
    });
}

#[test]
fn files_are_short() {
    every_file(|file| {
        let lines = file.text.lines().count();
        let long = lines > FILE_LINES_MAX;
        long.then(|| format!("{lines} lines")).into_iter().collect()
    });
}

#[test]
fn functions_are_short() {
    every_file(|file| {
        functions(&file.text)
            .into_iter()
            .filter(|&(_, lines)| lines > FUNCTION_LINES_MAX)
            .map(|(name, lines)| format!("{name} has {lines} lines"))
            .collect()
    });
}

#[test]
fn lines_are_short() {
    every_file(|file| {
        let width = |line: &str| {
            let is_row = line.trim_start().starts_with("//! |");
            if is_row {
                TABLE_WIDTH_MAX
            } else {
                CODE_WIDTH_MAX
            }
        };
        file.text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.chars().count() > width(line))
            .map(|(number, line)| format!("line {} has {}", number + 1, line.chars().count()))
            .collect()
    });
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file is not found.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
    ];
    let words: Vec<String> = words.iter().map(|parts| parts.concat()).collect();
    every_file(|file| {
        let left = |line: &str| words.iter().any(|word| line.contains(word.as_str()));
        let lines = file.text.lines().enumerate().filter(|(_, line)| left(line));
        lines
            .map(|(number, line)| format!("line {}: {}", number + 1, line.trim()))
            .collect()
    });
}

#[test]
fn the_readme_names_every_folder() {
    let readme = fs::read_to_string(workspace_root().join("README.md")).unwrap_or_default();
    let missing: Vec<String> = folders()
        .into_iter()
        .filter(|folder| !readme.contains(&format!("`{folder}/`")))
        .collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
}

#[test]
fn functions_are_measured_from_the_signature_to_the_brace() {
    let text = "    pub(crate) const fn one(a: u8) -> u8 {\n        a\n    }\nfn two();\n";
    assert_eq!(functions(text), [("one", 3)]);
}
