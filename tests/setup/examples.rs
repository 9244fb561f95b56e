//! The page that leads from a FastAPI server to embedgate: its commands, in both languages, from an empty folder to RAGFlow's calls.

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
    let text = fs::read_to_string(root().join("examples").join(page)).unwrap();
    let blocks = text.split("```bash\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap().to_owned());
    blocks.collect()
}

#[test]
fn every_command_of_the_page_for_fastapi_servers_works_in_both_languages() {
    let blocks = commands("replace_fastapi.md");
    assert!(blocks.len() > 8, "{}", blocks.len());
    // Comments are in the page's own language.
    let bare = |blocks: &[String]| -> Vec<String> {
        let lines = blocks.iter().flat_map(|block| block.lines());
        lines
            .map(|line| line.split("  #").next().unwrap().trim_end().to_owned())
            .collect()
    };
    assert_eq!(bare(&blocks), bare(&commands("replace_fastapi.zh.md")));

    let models = tempfile::tempdir().unwrap();
    fs::create_dir(models.path().join("BAAI")).unwrap();
    copy(&tiny_bge_m3(), &models.path().join("BAAI/bge-m3"));
    let hub = StandIn::of(models);
    let base = tempfile::tempdir().unwrap();
    // Nobody else takes it in the moment until the server does.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let script = blocks
        .concat()
        .replace("/mnt/cfs/team", base.path().to_str().unwrap())
        .replace("0.0.0.0:9100", &format!("127.0.0.1:{port}"))
        .replace("9100", &port.to_string());
    // The server ends with the last command.
    let script = format!(
        "set -eu\nset -o pipefail\ntrap 'kill $(cat {}/embedgate.pid) 2> /dev/null || true' EXIT\n{script}\nwait\n",
        base.path().display()
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
        .env("HOME", base.path())
        .env("MODELSCOPE_ENDPOINT", &hub.url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let log = fs::read_to_string(base.path().join("logs/embedgate.log")).unwrap_or_default();
    let all = format!("{said}\n{errors}\n{log}");
    assert!(output.status.success(), "{}: {all}", output.status);
    for part in [
        "is whole",
        "\"status\":\"ready\"",
        "files are right",
        "modelscope:BAAI/bge-m3",
    ] {
        assert!(said.contains(part), "{part}: {all}");
    }
    let answer = fs::read(base.path().join("after.json")).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["data"][0]["embedding"].as_array().unwrap().len(), 64);
    assert!(log.contains("received SIGHUP: reloading models"), "{log}");
    assert!(log.contains("stopped"), "{log}");
}
