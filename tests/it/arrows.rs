//! The chart of ARCHITECTURE.md is what the code does: each crate and each top module of `src` uses those that its line
//! names, all of them and no others, and no arrow leads back.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use embedgate_test_support::root;

use crate::sources::sources;

/// Who uses whom.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Reads the block of ARCHITECTURE.md with this name: `USER -> USED USED ...`, a line each.
fn chart(name: &str) -> Arrows {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let block = page.split(&format!("```{name}\n")).nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let line = |line: &str| {
        let (user, used) = line.split_once("->").unwrap();
        let used = used.split_whitespace().map(str::to_owned).collect();
        (user.trim().to_owned(), used)
    };
    block.lines().map(line).collect()
}

/// The crates of the workspace by what their manifests depend on; those for tests alone are left out.
fn crates() -> Arrows {
    let manifests = ["backends", "crates"].into_iter().flat_map(|folder| {
        let entries = root().join(folder).read_dir().unwrap();
        entries.map(|entry| entry.unwrap().path().join("Cargo.toml"))
    });
    let read = |manifest: &Path| {
        let text = std::fs::read_to_string(manifest).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let dependencies = manifest["dependencies"].as_table().unwrap().keys();
        let ours = dependencies.filter_map(|name| name.strip_prefix("embedgate-"));
        let short = name.trim_start_matches("embedgate-").to_owned();
        (short, ours.map(str::to_owned).collect())
    };
    let all = manifests.chain([root().join("Cargo.toml")]);
    all.map(|manifest| read(&manifest)).collect()
}

/// The top modules of `src` by the modules that they name as `crate::NAME`.
fn modules() -> Arrows {
    let src = root().join("src");
    let mut arrows = Arrows::new();
    for (path, code) in sources(&src) {
        let below = path.strip_prefix(&src).unwrap();
        let top = below.components().next().unwrap().as_os_str();
        let top = top.to_str().unwrap().trim_end_matches(".rs").to_owned();
        let used = arrows.entry(top.clone()).or_default();
        used.extend(named(&code));
        used.remove(&top);
    }
    // These two only put the others together.
    arrows.remove("lib");
    arrows.remove("main");
    arrows
}

/// The first names behind `crate::`, in paths and in lists of `use`.
fn named(code: &str) -> BTreeSet<String> {
    let code: Vec<&str> = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.extend(first_name(rest)),
            Some(list) => found.extend(entries(list).filter_map(first_name)),
        }
    }
    found
}

/// The entries of a list of `use`, up to its closing brace.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut begun, mut found) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(list[begun..at].trim());
                begun = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.into_iter()
}

fn first_name(path: &str) -> Option<String> {
    let end = path.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    let name = &path[..end.unwrap_or(path.len())];
    // Macros and items of the crate's root are no modules.
    (!name.is_empty() && name.starts_with(|c: char| c.is_ascii_lowercase())).then(|| name.into())
}

/// Takes away what uses nothing that is left, again and again: what stays is in a circle, or uses one.
fn circle(arrows: &Arrows) -> BTreeSet<&str> {
    let mut left: BTreeSet<&str> = arrows.keys().map(String::as_str).collect();
    loop {
        let free = left.iter().find(|user| {
            arrows[**user]
                .iter()
                .all(|used| !left.contains(used.as_str()))
        });
        match free.copied() {
            Some(free) => left.remove(free),
            None => return left,
        };
    }
}

#[test]
fn crates_use_those_that_the_chart_says() {
    assert_eq!(crates(), chart("crates"));
}

#[test]
fn modules_use_those_that_the_chart_says() {
    assert_eq!(modules(), chart("modules"));
}

#[test]
fn no_arrow_leads_back() {
    for arrows in [crates(), modules()] {
        assert_eq!(circle(&arrows), BTreeSet::new());
    }
}

#[test]
fn a_turned_arrow_is_found() {
    let mut turned = modules();
    let (user, used) = turned
        .iter()
        .find_map(|(user, used)| Some((user.clone(), used.first()?.clone())))
        .unwrap();
    turned.get_mut(&used).unwrap().insert(user.clone());
    let circle = circle(&turned);
    assert!(circle.contains(&*user) && circle.contains(&*used));
    assert_ne!(turned, chart("modules"));
}

#[test]
fn paths_and_lists_name_modules() {
    let code = "use crate::{a::{b, c}, d::e,\n    f};\ncrate::g::h(); // crate::x\n// crate::y\nuse crate::Item;";
    let expected = ["a", "d", "f", "g", "x"].map(str::to_owned);
    assert_eq!(named(code), expected.into());
}
