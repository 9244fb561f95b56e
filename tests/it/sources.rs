//! The code of the tree, less what only tests compile.

use std::path::{Path, PathBuf};

/// The Rust files below a folder, with their code outside tests.
pub(crate) fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(folder, &mut found);
    assert!(!found.is_empty(), "{} has no sources", folder.display());
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.ends_with("tests.rs") || path.ends_with("testing.rs");
        if path.is_dir() {
            if !path.ends_with("testing") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, without_tests(&text)));
        }
    }
}

/// Leaves out each item that stands below `#[cfg(test)]`. In code that rustfmt has formatted, an item ends where it begins to:
/// with its line, or with the brace that stands as far to the right as its attribute.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix("#[cfg(test)]") else {
            code.push_str(line);
            code.push('\n');
            continue;
        };
        let end = format!("{indent}}}");
        let begun = lines.find(|line| !line.trim_start().starts_with("#["));
        if begun.is_some_and(|line| line.ends_with('{')) {
            let ended = lines.find(|line| *line == end);
            assert!(ended.is_some(), "the end of {begun:?} is not found");
        }
    }
    code
}

#[test]
fn code_behind_a_test_module_is_seen() {
    let text = "a\n#[cfg(test)]\nmod one {\n    {\n    }\n}\nb\n    #[cfg(test)]\n    #[x]\n    fn two() {\n    }\n#[cfg(test)]\nmod t;\nc\n";
    assert_eq!(without_tests(text), "a\nb\nc\n");
}
