//! The documents: every link leads to a file and a heading that are there, and the README is one page.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use embedgate_test_support::root;

/// The pages of the repository, those of plugins too.
fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs", "examples", "plugins"].map(|name| root().join(name));
    let of_plugins = fs::read_dir(root().join("plugins")).unwrap();
    let folders = folders
        .into_iter()
        .chain(of_plugins.map(|entry| entry.unwrap().path()));
    let mut pages = Vec::new();
    for folder in folders.filter(|folder| folder.is_dir()) {
        let entries = fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    assert!(pages.len() > 15, "{}", pages.len());
    pages
}

/// The names by which links reach a page's headings: small letters, a dash for a space, nothing but letters, digits and dashes.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        words
            .chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// The targets of a page's links, those to other sites left out.
fn links(text: &str) -> Vec<&str> {
    let ends = text.split("](").skip(1);
    let targets = ends.filter_map(|rest| rest.split([')', ' ', '\n']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut n = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap_or(Path::new("")).join(path),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() && path.ends_with(".md") {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(there.contains(anchor), "{}: {link}", page.display());
            }
            n += 1;
        }
    }
    assert!(n > 60, "{n} links");
}

#[test]
fn the_readme_is_one_page() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(text.lines().count() <= 130, "{}", text.lines().count());
}
