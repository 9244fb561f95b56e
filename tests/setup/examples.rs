//! The pages that lead a newcomer: the quick start, and the way from a FastAPI server to embedgate. Their commands, in both
//! languages, run from an empty folder.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use embedgate_test_support::{copy, embedgate, root, tiny_bge_m3};
use serde_json::Value;

use crate::hub::StandIn;

/// The blocks of a page that say `bash`.
fn commands(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let blocks = text.split("```bash\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap().to_owned());
    blocks.collect()
}

/// The commands of a page in English, which are those of the page in Chinese, too: comments are in the page's own language.
fn commands_in_both_languages(page: &str) -> String {
    let bare = |blocks: &[String]| -> Vec<String> {
        let lines = blocks.iter().flat_map(|block| block.lines());
        lines
            .map(|line| line.split("  #").next().unwrap().trim_end().to_owned())
            .collect()
    };
    let blocks = commands(&format!("{page}.md"));
    assert!(blocks.len() > 4, "{}", blocks.len());
    assert_eq!(bare(&blocks), bare(&commands(&format!("{page}.zh.md"))));
    blocks.concat()
}

/// Runs commands with a home of their own and both hubs at hand, where nothing else listens; returns what they say.
fn run(script: &str, home: &Path) -> String {
    let models = tempfile::tempdir().unwrap();
    fs::create_dir(models.path().join("BAAI")).unwrap();
    copy(&tiny_bge_m3(), &models.path().join("BAAI/bge-m3"));
    let hub = StandIn::of(models);
    // Nobody else takes it in the moment until the server does.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let script = script
        .replace("0.0.0.0:9100", &format!("127.0.0.1:{port}"))
        .replace("9100", &port.to_string());
    // A server that is left is stopped, in any case.
    let script = format!(
        "set -eu\nset -o pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{script}"
    );
    let embedgate = embedgate();
    let program = Path::new(embedgate.get_program()).parent().unwrap();
    let output = Command::new("bash")
        .args(["-c", &script])
        .env_clear()
        .env(
            "PATH",
            format!("{}:/usr/local/bin:/usr/bin:/bin", program.display()),
        )
        .env("HOME", home)
        .env("EMBEDGATE_LISTEN", format!("127.0.0.1:{port}"))
        .env("HF_ENDPOINT", &hub.url)
        .env("MODELSCOPE_ENDPOINT", &hub.url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {said}\n{errors}",
        output.status
    );
    said
}

#[test]
fn every_command_of_the_page_for_fastapi_servers_works_in_both_languages() {
    let base = tempfile::tempdir().unwrap();
    let script = commands_in_both_languages("examples/replace_fastapi")
        .replace("/mnt/cfs/team", base.path().to_str().unwrap());
    // The server ends with the last command.
    let said = run(&format!("{script}\nwait\n"), base.path());
    for part in [
        "is whole",
        "\"status\":\"ready\"",
        "files are right",
        "modelscope:BAAI/bge-m3",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let answer = fs::read(base.path().join("after.json")).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["data"][0]["embedding"].as_array().unwrap().len(), 64);
    let log = fs::read_to_string(base.path().join("logs/embedgate.log")).unwrap();
    assert!(log.contains("received SIGHUP: reloading models"), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn every_command_of_the_quick_start_works_in_both_languages() {
    let home = tempfile::tempdir().unwrap();
    let said = run(&commands_in_both_languages("docs/quick-start"), home.path());
    for part in ["is whole", "\"status\":\"ready\"", "relevance_score", "eg_"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Of the model's own name, and of the name in the configuration.
    for name in ["bge-m3", "bge-m3-local"] {
        assert!(said.contains(&format!("\"model\":\"{name}\"")), "{said}");
    }
}
