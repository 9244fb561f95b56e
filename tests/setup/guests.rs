//! Guests in JavaScript and Python.

use std::{fs, process::Command};

use serde_json::json;

use crate::support::installed;
use embedgate_test_support::{Gateway, assert_cases, root, tiny_config};

#[test]
fn guests_in_javascript_and_python_run() {
    for name in ["js-normalize", "python-tenant"] {
        let component = installed(&format!("plugins/{name}.wasm"));
        assert_cases(
            &component,
            &root().join(format!("plugins/{name}/cases.toml")),
        );
    }
}

#[tokio::test]
async fn the_log_has_the_message_of_an_exception_in_javascript() {
    let compiler = installed("plugins/js-normalize/node_modules/.bin/componentize-qjs");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("wit")).unwrap();
    let interface = root().join("plugins/wit/v0.1/plugin.wit");
    fs::copy(interface, at("wit/plugin.wit")).unwrap();
    let world = "world guest {\n  import kv;\n  export preprocessor;\n}\n";
    fs::write(at("wit/world.wit"), world).unwrap();
    let source = r#"
        import { add } from "embedgate:plugin/kv@0.1.0";
        export const preprocessor = {
          preprocess(request, _caller) {
            const [text] = request.inputs.val;
            if (text === "throw") throw new Error("no tenant is here");
            if (text === "add") add("key", 1n);
            return { tag: "unchanged" };
          },
        };"#;
    fs::write(at("guest.js"), source).unwrap();
    let mut compile = Command::new(compiler);
    compile.current_dir(folder.path());
    compile.args([
        "--wit", "wit", "--world", "guest", "--js", "guest.js", "--sync",
    ]);
    let compiled = compile.args(["--output", "guest.wasm"]).output().unwrap();
    assert!(compiled.status.success(), "{compiled:?}");
    let plugin = format!(
        "[plugins.thrower]\npath = {:?}\ninstance = {{ reuse = 100 }}\n[plugins.thrower.grants.kv]\n",
        at("guest.wasm")
    );
    for (text, message) in [
        ("throw", "no tenant is here"),
        ("add", "requires 3 arguments"),
    ] {
        let gateway = Gateway::start(&tiny_config(&plugin));
        let ask = async |text: &str| gateway.embed(&json!({"input": [text]})).await.status;
        assert_eq!(ask(text).await, 503);
        gateway.wait_for_log(message);
        assert_eq!(ask("fine").await, 200);
    }
}
