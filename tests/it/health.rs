//! `embedgate health`, and what the program tells shells and `man`.

use std::fs;

use embedgate_test_support::{Gateway, config_file, embedgate, run, tiny_config};

#[tokio::test]
async fn health_says_whether_a_server_is_ready() {
    let gateway = Gateway::start(&tiny_config(""));
    let (file, address) = (gateway.config_file(), gateway.address().to_owned());
    let ask = |more: &[&str]| {
        let mut command = embedgate();
        command.arg("--config").arg(&file).arg("health");
        run(command.args(["--listen", &address]).args(more))
    };
    assert_eq!(ask(&[]).0, Some(0));
    assert_eq!(ask(&["--live"]).0, Some(0));
    // Its configuration goes with it.
    drop(gateway.stop());
    let other = config_file(&tiny_config(""));
    let mut command = embedgate();
    command.arg("--config").arg(other.path()).arg("health");
    let (code, _, said) = run(command.args(["--listen", &address]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody listens at"), "{said}");
}

#[test]
fn shells_and_man_know_the_commands() {
    let (code, bash, _) = run(embedgate().args(["completions", "bash"]));
    assert_eq!(code, Some(0));
    assert!(bash.contains("_embedgate()") && bash.contains("bench-backend"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let (code, _, said) = run(embedgate().arg("man").arg(&pages));
    assert_eq!(code, Some(0), "{said}");
    let page = fs::read_to_string(pages.join("embedgate-serve.1")).unwrap();
    assert!(page.contains(".TH embedgate-serve 1"), "{page}");
    assert!(pages.join("embedgate.1").exists());
}
