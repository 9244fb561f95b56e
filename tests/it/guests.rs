//! The guests and the tools for plugins: test, new, inspect.

use embedgate_test_support::{
    assert_cases, embedgate, fixtures, guest, names, root, run, tiny_config,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use std::fs;

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
            &guest(name),
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
fn a_case_that_does_not_hold_is_named_and_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let cases = folder.path().join("cases.toml");
    fs::write(&cases, "[[case]]\nname = \"shouting\"\npreprocess.inputs = [\" a \"]\nexpect.request.inputs = [\"A\"]\n").unwrap();
    let mut command = embedgate();
    command
        .args(["plugin", "test"])
        .arg(guest("text-normalize"))
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
    assert_cases(&guest("jwt"), &file);
}

#[test]
fn plugins_are_compiled_beforehand() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = folder.path().join("test.toml");
    let compile = || {
        run(embedgate()
            .args(["plugin", "compile", "--config"])
            .arg(&config))
    };
    fs::write(&config, tiny_config("")).unwrap();
    let (code, _, said) = compile();
    assert!(
        code != Some(0) && said.contains("no [plugins.NAME]"),
        "{said}"
    );
    let plugin = guest("text-normalize");
    let text = format!("[server]\nstate_dir = {state:?}\n[plugins.tidy]\npath = {plugin:?}\n");
    fs::write(&config, tiny_config(&text)).unwrap();
    let (code, _, said) = compile();
    assert!(
        code == Some(0) && said.contains("plugin tidy loaded"),
        "{code:?} {said}"
    );
    let kept = names(&state.join("plugins"));
    assert_eq!(kept.len(), 2, "the key, and what was compiled: {kept:?}");
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
    let (code, out, _) = run(embedgate().args(["plugin", "inspect"]).arg(guest("jwt")));
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
