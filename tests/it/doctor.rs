//! `embedgate doctor`: what a client would make of a server.

use embedgate_test_support::{Gateway, embedgate, tiny_config};

#[test]
fn the_doctor_says_what_ragflow_would_make_of_a_server() {
    let doctor = |gateway: &Gateway, more: &[&str]| {
        let output = embedgate()
            .args([
                "doctor",
                "ragflow",
                "--url",
                &gateway.url,
                "--model",
                "tiny",
            ])
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<String> = text.lines().map(|line| line[..4].to_owned()).collect();
        (output.status.code(), words, text)
    };
    let open = Gateway::start(&tiny_config(""));
    let (code, words, text) = doctor(&open, &["--rerank-model", "tiny"]);
    assert_eq!(
        (code, words.join(" ").as_str()),
        (Some(0), ["ok  "; 11].join(" ").as_str()),
        "{text}"
    );
    assert_eq!(text.matches("64 dimensions").count(), 6, "{text}");

    let key = "the-only-key-there-is";
    let closed_config = tiny_config("").replace("mode = \"none\"", &format!("keys = [\"{key}\"]"));
    let closed = Gateway::start(&closed_config);
    let (code, words, text) = doctor(&closed, &["--key", key]);
    assert_eq!(
        (code, words.join(" ").as_str()),
        (Some(1), "ok   ok   FAIL FAIL ok   FAIL     "),
        "{text}"
    );
    // One that can send the key is content.
    let one = ["--key", key, "--provider", "xinference"];
    let (code, words, text) = doctor(&closed, &one);
    assert_eq!(
        (code, words[0].as_str(), words.len()),
        (Some(0), "ok  ", 2),
        "{text}"
    );
    let (code, ..) = doctor(&closed, &["--key", key, "--provider", "nobody"]);
    assert_eq!(code, Some(1));
    let (_, _, text) = doctor(&closed, &["--key", key]);
    for word in [
        "401",
        "open_routes = [\"tei\"]",
        "open_routes = [\"embeddings\"]",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let keys = format!("keys = [\"{key}\"]");
    let open_routes = "open_routes = [\"embeddings\", \"tei\", \"rerank\"]";
    let open = closed_config.replace(&keys, &format!("{keys}\n{open_routes}"));
    let open = Gateway::start(&open);
    let (code, _, text) = doctor(&open, &["--key", key, "--rerank-model", "tiny"]);
    assert_eq!(code, Some(0), "{text}");
    let (_, words, text) = doctor(&closed, &[]);
    assert_eq!(words[0], "FAIL");
    assert!(text.contains("--key"), "{text}");
}
