//! Plugins, keys and their tools through the real program, with the guests as they are built.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

use crate::support::{Gateway, client, embedgate, fixtures, root, run, tiny_config};

fn built(name: &str) -> PathBuf {
    root().join(format!("plugins/built/{name}.wasm"))
}

/// Runs a file of cases, and asserts that all of them hold.
fn assert_cases(component: &Path, cases: &Path) {
    let (code, out, errors) = run(embedgate()
        .args(["plugin", "test"])
        .arg(component)
        .arg(cases));
    assert_eq!(code, Some(0), "{}:\n{out}{errors}", cases.display());
    assert!(out.contains("ok"), "{out}");
}

#[test]
fn the_guests_do_what_their_cases_say() {
    for name in [
        "api-key-file",
        "instruct-prefix",
        "pii-redact",
        "quota",
        "text-normalize",
    ] {
        assert_cases(
            &built(name),
            &root().join(format!("plugins/{name}/cases.toml")),
        );
    }
}

#[test]
fn guests_of_every_version_of_the_interface_run() {
    for name in ["api-key-file", "instruct-prefix"] {
        let component = fixtures().join(format!("guests/{name}-0.1.0.wasm"));
        assert_cases(
            &component,
            &root().join(format!("plugins/{name}/cases.toml")),
        );
    }
}

#[test]
fn guests_in_javascript_and_python_run() {
    for name in ["js-normalize", "python-tenant"] {
        let component = root().join(format!(".embedgate/plugins/{name}.wasm"));
        assert!(
            component.exists(),
            "{name} is missing: run scripts/plugins-js-py"
        );
        assert_cases(
            &component,
            &root().join(format!("plugins/{name}/cases.toml")),
        );
    }
}

#[test]
fn a_case_that_does_not_hold_is_named_and_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let cases = folder.path().join("cases.toml");
    fs::write(&cases, "[[case]]\nname = \"shouting\"\npreprocess.inputs = [\" a \"]\nexpect.request.inputs = [\"A\"]\n").unwrap();
    let mut command = embedgate();
    command
        .args(["plugin", "test"])
        .arg(built("text-normalize"))
        .arg(&cases);
    let (code, out, errors) = run(&mut command);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("FAILED shouting"), "{out}");
    assert!(
        out.contains(r#"expect.request.inputs is ["a"], expected ["A"]"#),
        "{out}"
    );
    assert!(errors.contains("1 of 1 cases failed"), "{errors}");
}

fn token(algorithm: Algorithm, key: &EncodingKey, kid: &str, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.into());
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

#[test]
fn tokens_of_real_keys_are_verified_and_no_others() {
    let der = |name: &str| fs::read(fixtures().join("jwt").join(name)).unwrap();
    let rsa = EncodingKey::from_rsa_der(&der("rsa.der"));
    let ec = EncodingKey::from_ec_der(&der("ec.der"));
    let jwk = |key: &EncodingKey, algorithm, kid: &str| {
        let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
        jwk.common.key_id = Some(kid.into());
        jwk
    };
    let keys = [
        jwk(&rsa, Algorithm::RS256, "r"),
        jwk(&ec, Algorithm::ES256, "e"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let jwks = json!({"keys": keys}).to_string();
    fs::write(folder.path().join("jwks.json"), &jwks).unwrap();

    // The cases' clock says 2027-01-31T12:00:00Z.
    let now = 1_801_396_800;
    let claims = |changes: Value| {
        let mut claims = json!({"iss": "https://idp", "aud": "rag", "sub": "ada", "exp": now + 600, "scope": "embed"});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let good = claims(json!({}));
    let rs256 = token(Algorithm::RS256, &rsa, "r", &good);
    let es256 = token(Algorithm::ES256, &ec, "e", &good);
    let changed = |changes| token(Algorithm::RS256, &rsa, "r", &claims(changes));
    let mut tampered = rs256.clone();
    tampered.replace_range(
        rs256.len() - 10..rs256.len() - 9,
        if rs256.as_bytes()[rs256.len() - 10] == b'A' {
            "B"
        } else {
            "A"
        },
    );
    // The public key taken for a shared secret, and no signature at all.
    let confused = token(
        Algorithm::HS256,
        &EncodingKey::from_secret(jwks.as_bytes()),
        "r",
        &good,
    );
    let body = rs256.split('.').nth(1).unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIn0.{body}.");
    let accepted = [("RS256", &rs256), ("ES256", &es256)];
    let refused = [
        ("expired", changed(json!({"exp": now - 600})), 401),
        ("without an end", changed(json!({"exp": null})), 401),
        ("not yet valid", changed(json!({"nbf": now + 600})), 401),
        (
            "of another issuer",
            changed(json!({"iss": "https://evil"})),
            401,
        ),
        (
            "for another audience",
            changed(json!({"aud": "other"})),
            401,
        ),
        ("without the scope", changed(json!({"scope": "read"})), 403),
        ("tampered with", tampered, 401),
        (
            "of another key",
            token(Algorithm::ES256, &ec, "r", &good),
            401,
        ),
        ("HS256 with the public key", confused, 401),
        ("unsigned", unsigned, 401),
    ];
    let mut cases = String::from(
        "[plugin]\nsettings = { issuers = [\"main\"], required_scopes = [\"embed\"] }\n\
         [plugin.grants.crypto.issuers.main]\njwks = \"jwks.json\"\nissuer = \"https://idp\"\naudience = \"rag\"\n",
    );
    let mut case = |name: &str, token: &str, expect: &str| {
        let head = format!("authenticate.headers = {{ authorization = \"Bearer {token}\" }}");
        let text = format!(
            "[[case]]\nname = \"{name}\"\nclock = 2027-01-31T12:00:00Z\n{head}\n{expect}\n"
        );
        cases.push_str(&text);
    };
    for (name, token) in accepted {
        case(name, token, "expect.principal.subject = \"ada\"");
    }
    for (name, token, status) in &refused {
        // What is no token here, or another's, is left to the next authenticator.
        let expect = match *name {
            "unsigned" | "of another issuer" => "expect.unknown = true".to_owned(),
            _ => format!("expect.rejection.status = {status}"),
        };
        case(name, token, &expect);
    }
    let file = folder.path().join("cases.toml");
    fs::write(&file, cases).unwrap();
    assert_cases(&built("jwt"), &file);
}

#[test]
fn a_new_plugin_is_complete_and_a_wrong_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let new = |args: &[&str]| {
        run(embedgate()
            .current_dir(folder.path())
            .args(["plugin", "new"])
            .args(args))
    };
    for (lang, files) in [
        (
            "rust",
            &[
                "Cargo.toml",
                ".cargo/config.toml",
                "src/lib.rs",
                "sdk/src/lib.rs",
                "sdk/src/test/kv.rs",
                "wit/v0.1/plugin.wit",
            ][..],
        ),
        (
            "js",
            &[
                "package.json",
                "plugin.js",
                "wit/plugin.wit",
                "wit/world.wit",
            ],
        ),
        (
            "py",
            &[
                "requirements.txt",
                "plugin.py",
                "wit/plugin.wit",
                "wit/world.wit",
            ],
        ),
    ] {
        let name = format!("my-{lang}");
        let (code, out, errors) = new(&[&name, "--lang", lang]);
        assert_eq!(code, Some(0), "{errors}");
        assert!(out.contains(&name), "{out}");
        for file in files
            .iter()
            .chain(&["README.md", "cases.toml", ".gitignore"])
        {
            let text = fs::read_to_string(folder.path().join(&name).join(file)).unwrap();
            assert!(!text.contains("{{"), "{lang} {file}:\n{text}");
        }
        let again = new(&[&name, "--lang", lang]);
        assert!(
            again.0 == Some(1) && again.2.contains("is there already"),
            "{again:?}"
        );
    }
    for name in ["../up", "Upper", "9", "a b"] {
        let (code, _, errors) = new(&[name, "--lang", "js"]);
        assert!(
            code == Some(1) && errors.contains("is no name"),
            "{name}: {errors}"
        );
    }
}

#[test]
fn a_component_is_inspected_and_what_is_none_is_named() {
    let (code, out, _) = run(embedgate().args(["plugin", "inspect"]).arg(built("jwt")));
    assert_eq!(code, Some(0));
    for line in [
        "hooks      authenticate",
        "embedgate:plugin@0.1.0",
        "embedgate:plugin/crypto@0.1.0  (grants.crypto)",
    ] {
        assert!(out.contains(line), "{line} is not in:\n{out}");
    }
    let sums = fs::read_to_string(root().join("plugins/built/SHA256SUMS")).unwrap();
    let sum = sums
        .lines()
        .find(|line| line.ends_with("jwt.wasm"))
        .unwrap();
    assert!(out.contains(sum.split(' ').next().unwrap()), "{sum}\n{out}");
    let (code, _, errors) = run(embedgate()
        .args(["plugin", "inspect"])
        .arg(root().join("README.md")));
    assert_eq!(code, Some(1));
    assert!(errors.contains("is no WebAssembly component"), "{errors}");
}

/// A configuration file in a folder with a copy of the guest that attacks.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(built("hostile"), folder.path().join("hostile.wasm")).unwrap();
        let files = Self { folder };
        files.write(config);
        files
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("embedgate.toml")
    }

    fn write(&self, config: &str) {
        fs::write(self.config(), config).unwrap();
    }

    fn check(&self) -> (Option<i32>, String, String) {
        run(embedgate().arg("check").arg(self.config()))
    }
}

#[test]
fn a_pin_is_written_beside_what_is_there_and_kept_to() {
    let config = tiny_config(
        "# the plugin\n[plugins.hostile] # here\npath = \"hostile.wasm\"\nhooks = [\"preprocess\"]",
    );
    let files = Files::new(&config);
    let pin = |names: &[&str]| {
        run(embedgate()
            .arg("--config")
            .arg(files.config())
            .args(["plugin", "pin"])
            .args(names))
    };
    assert_eq!(pin(&[]).0, Some(0));
    let pinned = fs::read_to_string(files.config()).unwrap();
    assert!(
        pinned.contains("# the plugin\n[plugins.hostile] # here"),
        "{pinned}"
    );
    assert!(pinned.contains("sha256 = \""), "{pinned}");
    assert_eq!(files.check().0, Some(0));
    let component = files.folder.path().join("hostile.wasm");
    fs::copy(built("text-normalize"), &component).unwrap();
    let (code, _, errors) = files.check();
    assert!(
        code == Some(78) && errors.contains("embedgate plugin pin"),
        "{errors}"
    );
    assert!(pin(&["hostile"]).1.contains("(changed)"));
    assert_eq!(files.check().0, Some(0));
    let (code, _, errors) = pin(&["other"]);
    assert!(
        code == Some(1) && errors.contains("choose from: hostile"),
        "{errors}"
    );
}

#[test]
fn a_start_with_a_plugin_that_cannot_be_used_ends_with_78_and_says_why() {
    let with =
        |plugin: &str| tiny_config(&format!("[plugins.p]\npath = \"hostile.wasm\"\n{plugin}"));
    let cases = [
        (with("timeout = \"0s\""), "plugins.p.timeout"),
        (with("headers = [\"X-Key\"]"), "plugins.p.headers[0]"),
        (
            with("grants = { network = true }"),
            "plugins.p.grants.network",
        ),
        (with("max_memory = \"1GiB\""), "plugins.p.max_memory"),
        (
            with("grants = { http = { allow = [\"ftp://x\"] } }"),
            "plugins.p.grants.http.allow[0]",
        ),
        (with("instance = \"forever\""), "plugins.p.instance"),
        (with("hooks = [\"authenticate\"]"), "a plugin authenticates"),
        // Only the component knows that it authenticates.
        (with(""), "a plugin authenticates"),
        (
            with("settings = { attack = \"reject\" }\nhooks = [\"preprocess\"]"),
            "the settings are refused",
        ),
        (
            with("settings = { colour = 1 }\nhooks = [\"preprocess\"]"),
            "colour",
        ),
        (with("").replace("hostile.wasm", "gone.wasm"), "gone.wasm"),
    ];
    for (config, expected) in cases {
        let files = Files::new(&config);
        let (code, _, errors) = files.check();
        assert_eq!(code, Some(78), "{expected}: {errors}");
        assert!(errors.contains(expected), "{expected} is not in: {errors}");
        let mut command = embedgate();
        command
            .arg("--config")
            .arg(files.config())
            .args(["--listen", "127.0.0.1:0"]);
        let (code, _, errors) = run(&mut command);
        assert_eq!(code, Some(78), "{expected}: {errors}");
    }
}

async fn ask(gateway: &Gateway, key: Option<&str>) -> (u16, Value) {
    let mut request = client().post(format!("{}/v1/embeddings", gateway.url));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let response = request.json(&json!({"input": "a"})).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The tiny model, and who may use it.
fn with_auth(auth: &str) -> String {
    tiny_config("").replace("mode = \"none\"\n", &format!("{auth}\n"))
}

#[tokio::test]
async fn a_key_is_known_by_its_hash_and_brings_its_models_its_limit_and_its_end() {
    let new = || {
        let (code, key, line) = run(embedgate().args(["key", "new"]));
        assert_eq!(code, Some(0));
        let hash = line
            .split("hash = ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        (key.trim().to_owned(), hash)
    };
    let [good, narrow, limited, expired] = [(); 4].map(|()| new());
    let gateway = Gateway::start(&with_auth(&format!(
        "keys = [{{ hash = {} }}, {{ hash = {}, models = [\"other\"] }}, {{ hash = {}, limit = \"one\" }}, {{ hash = {}, expires = 2020-01-01 }}]\n\
         [auth.limits.one]\nrequests_per_minute = 1",
        good.1, narrow.1, limited.1, expired.1
    )));
    assert_eq!(ask(&gateway, Some(&good.0)).await.0, 200);
    let code = |answer: (u16, Value)| {
        (
            answer.0,
            answer.1["error"]["code"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        code(ask(&gateway, None).await),
        (401, "invalid_api_key".into())
    );
    let wrong = format!("{}x", good.0);
    assert_eq!(
        code(ask(&gateway, Some(&wrong)).await),
        (401, "invalid_api_key".into())
    );
    assert_eq!(
        code(ask(&gateway, Some(&expired.0)).await),
        (401, "api_key_expired".into())
    );
    assert_eq!(
        code(ask(&gateway, Some(&narrow.0)).await),
        (403, "model_not_allowed".into())
    );
    assert_eq!(ask(&gateway, Some(&limited.0)).await.0, 200);
    assert_eq!(
        code(ask(&gateway, Some(&limited.0)).await),
        (429, "rate_limit_exceeded".into())
    );
    let list = client()
        .get(format!("{}/v1/models", gateway.url))
        .bearer_auth(&narrow.0);
    let list: Value = list.send().await.unwrap().json().await.unwrap();
    assert_eq!(list["data"], json!([]));
    let one = client()
        .get(format!("{}/v1/models/tiny", gateway.url))
        .bearer_auth(&narrow.0);
    assert_eq!(one.send().await.unwrap().status(), 404);
    assert!(!gateway.log().contains(&good.0));
}

#[tokio::test]
async fn open_routes_need_no_key_and_the_others_do() {
    let gateway = Gateway::start(&with_auth(
        "keys = [\"a-long-key\"]\nopen_routes = [\"embeddings\"]",
    ));
    assert_eq!(ask(&gateway, None).await.0, 200);
    assert_eq!(ask(&gateway, Some("whatever")).await.0, 200);
    let models = client()
        .get(format!("{}/v1/models", gateway.url))
        .send()
        .await
        .unwrap();
    assert_eq!(models.status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_swaps_plugins_and_keys_a_hundred_times_and_no_request_fails() {
    let text = |order: usize, key: &str| {
        let auth = format!("keys = [\"the-first-key\", \"{key}\"]");
        let plugin = "[plugins.hostile]\npath = \"PATH\"\nhooks = [\"preprocess\"]\norder = ";
        with_auth(&auth) + plugin + &order.to_string() + "\n"
    };
    let path = built("hostile");
    // Compiled once, and then taken from the disk.
    let state = tempfile::tempdir().unwrap();
    let text = |order, key| {
        let server = format!("[server]\nstate_dir = {:?}\n", state.path());
        server + &text(order, key).replace("PATH", path.to_str().unwrap())
    };
    let gateway = Gateway::start(&text(0, "second-key-a"));
    let file = gateway.config_file();
    let done = std::sync::atomic::AtomicBool::new(false);
    let asking = async {
        let mut n = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let (status, body) = ask(&gateway, Some("the-first-key")).await;
            assert_eq!(status, 200, "{body}");
            n += 1;
        }
        n
    };
    let swapping = async {
        for order in 1..=100 {
            fs::write(
                &file,
                text(
                    order,
                    if order % 2 == 0 {
                        "second-key-a"
                    } else {
                        "second-key-b"
                    },
                ),
            )
            .unwrap();
            gateway.signal(libc::SIGHUP);
            let line = "plugins reloaded: 1 new, 0 failed";
            while gateway.log().matches(line).count() < order {
                tokio::task::yield_now().await;
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (n, ()) = tokio::join!(asking, swapping);
    assert!(n >= 50, "{n} requests");
    assert_eq!(ask(&gateway, Some("second-key-b")).await.0, 401);
    assert_eq!(ask(&gateway, Some("second-key-a")).await.0, 200);

    // What is wrong changes nothing.
    fs::write(&file, "[auth]\nmode = \"maybe\"").unwrap();
    gateway.signal(libc::SIGHUP);
    gateway.wait_for_log("the configuration stays as it was");
    assert_eq!(ask(&gateway, Some("second-key-a")).await.0, 200);
}

#[tokio::test]
async fn a_changed_file_is_loaded_without_a_signal_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("p.wasm");
    fs::copy(built("hostile"), &component).unwrap();
    let gateway = Gateway::start(&tiny_config(&format!(
        "[plugins.p]\npath = {component:?}\nhooks = [\"preprocess\"]"
    )));
    let replace = |bytes: &[u8]| {
        let fresh = folder.path().join("fresh");
        fs::write(&fresh, bytes).unwrap();
        fs::rename(&fresh, &component).unwrap();
    };
    replace(b"\0asm broken");
    gateway.wait_for_log("what was loaded before still serves");
    assert_eq!(ask(&gateway, None).await.0, 200);
    replace(&fs::read(built("text-normalize")).unwrap());
    gateway.wait_for_log("plugins reloaded: 1 new, 0 failed");
    assert_eq!(ask(&gateway, None).await.0, 200);
}
