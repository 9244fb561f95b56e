//! The page for people: who gets it, and what its files may do. `tests/setup/page.rs` opens it in a browser.

use std::collections::BTreeSet;

use embedgate_test_support::{Gateway, client, root, tiny_bge_m3};

fn config(server: &str) -> String {
    format!(
        "[auth]\nmode = \"none\"\n[server]\n{server}\n[models.m]\npath = {:?}\nbackend = {{ type = \"candle\" }}\n",
        tiny_bge_m3()
    )
}

/// What a browser sends when a person opens an address.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn get(gateway: &Gateway, path: &str, accept: &str) -> reqwest::Response {
    let request = client().get(format!("{}{path}", gateway.url));
    request.header("accept", accept).send().await.unwrap()
}

#[tokio::test]
async fn browsers_get_the_page_and_programs_what_they_got() {
    let gateway = Gateway::start(&config(""));
    let page = get(&gateway, "/", BROWSER).await;
    assert_eq!(page.status(), 200);
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    assert!(header("content-type").starts_with("text/html"));
    assert_eq!(header("vary"), "accept");
    let policy = header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    assert!(
        page.text()
            .await
            .unwrap()
            .contains("<title>embedgate</title>")
    );
    let of_java = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2";
    for accept in ["*/*", "application/json", of_java] {
        let answer = get(&gateway, "/", accept).await;
        let body: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(body["name"], "embedgate", "{accept}");
    }
    assert_eq!(get(&gateway, "/page/other.js", "*/*").await.status(), 404);
}

#[tokio::test]
async fn the_page_can_be_turned_off() {
    let gateway = Gateway::start(&config("page = false"));
    let answer = get(&gateway, "/", BROWSER).await;
    assert!(answer.text().await.unwrap().starts_with('{'));
    assert_eq!(get(&gateway, "/page/main.js", "*/*").await.status(), 404);
}

/// The text between two marks, each time that both are there.
fn between<'a>(text: &'a str, begin: &str, end: char) -> BTreeSet<&'a str> {
    let parts = text.split(begin).skip(1);
    parts.filter_map(|part| part.split(end).next()).collect()
}

#[tokio::test]
async fn the_files_name_no_other_server_and_nothing_that_is_not_there() {
    let gateway = Gateway::start(&config(""));
    let html = get(&gateway, "/", BROWSER).await.text().await.unwrap();
    assert!(!html.contains("://"));
    let mut asked: BTreeSet<String> = between(&html, "\"page/", '"')
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = asked.pop_first() {
        let file = get(&gateway, &format!("/page/{name}"), "*/*").await;
        assert_eq!(file.status(), 200, "{name}");
        let text = file.text().await.unwrap();
        let others = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!others.contains("://") || name == "snippets.js", "{name}");
        let imported = between(&text, "from \"./", '"');
        seen.insert(name);
        let more = imported.into_iter().map(str::to_owned);
        asked.extend(more.filter(|name| !seen.contains(name)));
    }
    let folder = root().join("src/http/page").read_dir().unwrap();
    let files = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter(|name| name != "index.html").collect();
    assert_eq!(seen, files);
}

#[test]
fn every_word_is_there_in_both_languages() {
    let folder = root().join("src/http/page");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let words = read("words.js");
    let (en, zh) = words.split_once("  zh: {").unwrap();
    let zh = zh.split_once("\n  },").unwrap().0;
    let keys = |text: &str| -> BTreeSet<String> {
        let pairs = text.lines().filter(|line| line.starts_with("    "));
        let parts =
            pairs.flat_map(|line| line.split("\", ").map(str::to_owned).collect::<Vec<_>>());
        let keys = parts.filter_map(|part| {
            part.trim()
                .split_once(": \"")
                .map(|(key, _)| key.to_owned())
        });
        keys.collect()
    };
    let (en, zh) = (keys(en), keys(zh));
    assert!(en.len() > 60, "{en:?}");
    assert_eq!(en, zh);
    for (file, begin) in [
        ("index.html", "data-t=\""),
        ("main.js", "word(\""),
        ("play.js", "word(\""),
        ("models.js", "word(\""),
        ("snippets.js", "word(\""),
        ("traffic.js", "  [\""),
        ("traffic.js", "\"w:"),
        ("play.js", "texts: \""),
    ] {
        let text = read(file);
        let found = between(&text, begin, '"').into_iter();
        for word in found.filter(|word| !word.is_empty()) {
            assert!(en.contains(word), "{file}: {word}");
        }
    }
}
