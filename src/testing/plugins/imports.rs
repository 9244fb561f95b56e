//! The functions that guests import: what was granted, and nothing else.

use embedgate_config::{HttpConfig, Period, PluginConfig};
use embedgate_request::Hook;

use super::Hostile;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_give_what_was_granted() {
    let granted = Hostile::with(Hook::Authenticate, |config| {
        // Ten thousand calls of the host, on a machine that may be busy.
        config.timeout = Period::milliseconds(10_000);
        config.grants = toml::from_str(
            "secrets = { PEPPER = \"hot\" }\nkv = {}\nmetrics = [\"lookups\"]\ncrypto = {}",
        )
        .unwrap();
    });
    let says = async |attack: &str| granted.attack(attack).await.message().to_owned();
    assert_eq!(says("secrets-get PEPPER").await, "hot");
    assert_eq!(says("secrets-get OTHER").await, "none");
    assert_eq!(says("kv-add n").await, "Ok(1)");
    assert_eq!(says("kv-add n").await, "Ok(2)");
    assert_eq!(says("kv-set x").await, "Ok(())");
    assert_eq!(says("kv-get x").await, format!("{:?}", b"set"));
    assert!(says("kv-take b").await.contains("taken: true"));
    assert!(says("kv-huge-key").await.contains("too-large"));
    assert!(says("kv-huge-value").await.contains("too-large"));
    assert!(says("jwt a.b.c").await.contains("unknown-issuer"));
    for attack in ["metrics-cardinality", "metrics-undeclared", "metrics-forge"] {
        assert_eq!(granted.attack(attack).await.status, 200, "{attack}");
    }
    // Of 10,000 label sets 100 are kept; one undeclared name; one illegal label and one NaN.
    assert_eq!(granted.n_dropped(), 9_900 + 1 + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_give_nothing_that_was_not_granted() {
    let bare = Hostile::new(Hook::Authenticate);
    let refused = bare.attack("secrets-get PATH").await;
    assert_eq!(refused.message(), "none");
    let denied = bare.attack("http-any http://127.0.0.1:1/").await;
    assert!(denied.message().contains("denied"), "{}", denied.message());
    bare.contains(
        &["kv-set x", "kv-get x", "kv-add x", "kv-take x", "jwt a.b.c"],
        "trap",
    )
    .await;
    assert_eq!(bare.attack("metrics-undeclared").await.status, 200);
    assert_eq!(bare.n_dropped(), 1);
}

/// A server that answers each connection with these bytes, or keeps it open for ever.
async fn server(answer: Option<&'static str>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            drop(stream.read(&mut head).await);
            if let Some(answer) = answer {
                drop(stream.write_all(answer.as_bytes()).await);
            } else {
                open.push(stream);
            }
        }
    });
    url
}

fn with_http(config: &mut PluginConfig, url: &str) {
    config.grants.http = Some(HttpConfig {
        allow: vec![url.to_owned()],
        allow_private: true,
        ..HttpConfig::default()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_plugins_go_where_the_grant_says_and_redirects_are_not_followed() {
    let url = server(Some("HTTP/1.1 302 Found\r\nlocation: http://evil/\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")).await;
    let hostile = Hostile::with(Hook::Authenticate, |config| with_http(config, &url));
    let says = async |attack: String| hostile.attack(&attack).await.message().to_owned();
    assert_eq!(
        says(format!("http-any {url}path?q=1")).await,
        "302 http://evil/ hi"
    );
    assert!(
        says("http-any http://127.0.0.1:1/".into())
            .await
            .contains("denied")
    );
    assert!(says("http-any not a url".into()).await.contains("invalid"));
    let many = says(format!("http-many {url}")).await;
    assert!(many.starts_with("2 ") && many.contains("budget"), "{many}");
    assert!(
        says(format!("http-bad-header {url}"))
            .await
            .contains("invalid")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_costs_the_plugin_its_time_and_no_more() {
    let url = server(None).await;
    let hostile = Hostile::with(Hook::Authenticate, |config| {
        with_http(config, &url);
        config.timeout = Period::milliseconds(50);
    });
    let answer = hostile.attack(&format!("http-slow {url}")).await;
    // Whichever of the two timers is first: the request's to the server is cut to the call's.
    assert!(matches!(answer.status, 400 | 503), "{}", answer.status);
    assert_eq!(hostile.attack("ok").await.status, 200);
    let free = hostile.plugins().free_instances("hostile");
    assert_eq!(free.unwrap()[0], 64);
}
