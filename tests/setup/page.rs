//! The page at `/` in a real Chromium: `page.mjs` does what people do.

use std::process::Command;

use embedgate_test_support::{Gateway, fixtures, root, tiny_bge_m3};

const KEY: &str = "a-key-for-the-page";

#[test]
fn people_see_what_the_server_does_and_try_its_models() {
    let model = |name: &str, path: std::path::PathBuf| {
        format!("[models.{name}]\npath = {path:?}\nbackend = {{ type = \"candle\" }}\n")
    };
    let models =
        model("tiny", tiny_bge_m3()) + &model("reranker", fixtures().join("tiny-xlmr-reranker"));
    let open = Gateway::start(&format!("[auth]\nmode = \"none\"\n{models}"));
    let closed = Gateway::start(&format!(
        "[server]\npublic_names = false\n[auth]\nkeys = [\"{KEY}\"]\n{models}"
    ));
    let named = Gateway::start(&format!("[auth]\nkeys = [\"{KEY}\"]\n{models}"));
    let ran = Command::new("node")
        .arg(root().join("tests/setup/page.mjs"))
        .args([&open.url, &closed.url, &named.url, KEY])
        .output()
        .expect("node is there");
    let said = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}\n{errors}");
}
