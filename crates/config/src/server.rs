//! `[server]`.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{ByteSize, Period, Problem, TlsConfig, address};

/// More connections than a process can have files.
const MAX_CONNECTIONS: usize = 1_000_000;
/// More inputs than the largest body holds.
const MAX_INPUTS: usize = 1_000_000;

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port. Use `"0.0.0.0:9100"` to be reached from other machines and from containers.
    #[serde(deserialize_with = "address::socket_address")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Connections at once. For one more, that which has waited longest for a request is closed; where all have a
    /// request, 64 more get a refusal.
    pub max_connections: usize,
    /// A client must send the whole header of a request within this time of its first byte.
    pub header_timeout: Period,
    /// A connection without a request is closed after this time.
    pub idle_timeout: Period,
    /// A request must be answered within this time, the reading of its body included; then it gets 504 (408 where the
    /// body did not arrive).
    pub request_timeout: Period,
    /// After the first SIGTERM, `/readyz` says no and new connections are still served for this time: as long as a load
    /// balancer needs to see it. Behind Envoy or in Kubernetes `"5s"`.
    pub drain_delay: Period,
    /// After `drain_delay`, requests in flight have this time to finish.
    pub drain_timeout: Period,
    /// Largest body of a request; larger ones get 413.
    pub max_body: ByteSize,
    /// Largest sum of all requests in memory and of their answers, until the client has the last byte. A caller has a
    /// quarter of it, or one larger request; what is beyond waits, or gets 429.
    pub max_bodies: ByteSize,
    /// Most inputs in one request; OpenAI's limit is 2048 too.
    pub max_inputs: usize,
    /// Origins whose pages may call this server from a browser, such as `["https://app.example"]`, or `["*"]`.
    pub cors_origins: Vec<String>,
    /// True where the routes that need no key (`/`, `/readyz` and `/metrics`) name models and callers. If not, `/` and
    /// `/readyz` leave them out, and `/metrics` asks for a key: any key, and whoever has one reads all of it.
    pub public_names: bool,
    /// True where browsers get a page at `/` with the models, what they do, and a place to try them. It asks for a key
    /// where requests need one.
    pub page: bool,
    /// True where one model that cannot be loaded stops the start. If not, the others serve and that one answers 503.
    pub require_all_models: bool,
    /// Folder for what is measured or made once and kept: measurements, and the weights of ONNX models with replicas,
    /// packed for this processor (about half as large again as the model). Deleting it costs time, and the counts of
    /// `[usage]`. Without it: `$CACHE_DIRECTORY` (systemd sets it), else `$XDG_CACHE_HOME/embedgate`, else
    /// `~/.cache/embedgate`.
    pub state_dir: Option<PathBuf>,
    /// True where the configuration is read again when this file changes, as it is on SIGHUP. A file that is wrong
    /// changes nothing.
    pub reload_on_change: bool,
    /// The models in memory may take so much together, by estimate. One that is loaded on demand lets another go for
    /// it. Without it: what the machine has.
    pub max_model_memory: Option<ByteSize>,
    /// An address of its own for `POST /admin/reload`, where no key is asked: `127.0.0.1:9101`, or another that only
    /// administrators reach. Without it: there is none. A key with `admin = true` opens the same path on
    /// `server.listen`.
    #[serde(deserialize_with = "address::optional_socket_address")]
    #[schemars(with = "Option<String>")]
    pub admin_listen: Option<SocketAddr>,
    /// A path where requests arrive, too, from this machine alone: `curl --unix-socket PATH
    /// http://localhost/v1/models`.
    pub unix_socket: Option<PathBuf>,
    /// The mode of `unix_socket`: who may write to it may send requests.
    pub unix_socket_mode: FileMode,
    /// TLS on `listen`, with HTTP/2 where the client knows it. Without this table: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Networks of proxies whose word about the client's address is believed: it counts for limits, plugins and the
    /// log. A proxy that uses `unix_socket` is believed as soon as there is one network here.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// The one header in which `trusted_proxies` write the client's address, as a list whose last element is theirs:
    /// `"x-forwarded-for"`, `"forwarded"` (RFC 7239) or another. Others may be the client's own.
    pub client_address_header: String,
    /// True where connections begin with a header of the PROXY protocol, version 1 or 2. Connections of others than
    /// `trusted_proxies` are closed.
    pub proxy_protocol: bool,
}

/// The mode of a file, written as `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub struct FileMode(#[schemars(with = "String")] pub u32);

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mode = u32::from_str_radix(&text, 8).ok();
        let mode = mode.filter(|mode| *mode <= 0o777);
        mode.map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is no mode of a file, write it as \"0660\""
            ))
        })
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9100)),
            max_connections: 4096,
            header_timeout: Period::seconds(10),
            idle_timeout: Period::seconds(120),
            request_timeout: Period::seconds(120),
            drain_delay: Period::seconds(0),
            drain_timeout: Period::seconds(30),
            max_body: ByteSize::mib(32),
            max_bodies: ByteSize::mib(256),
            max_inputs: 2048,
            cors_origins: Vec::new(),
            public_names: true,
            page: true,
            require_all_models: false,
            state_dir: None,
            reload_on_change: false,
            max_model_memory: None,
            admin_listen: None,
            unix_socket: None,
            unix_socket_mode: FileMode(0o660),
            tls: None,
            trusted_proxies: Vec::new(),
            client_address_header: "x-forwarded-for".into(),
            proxy_protocol: false,
        }
    }
}

impl ServerConfig {
    /// Reports everything that is wrong with the table.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        let periods = [
            ("server.header_timeout", self.header_timeout),
            ("server.idle_timeout", self.idle_timeout),
            ("server.request_timeout", self.request_timeout),
            ("server.drain_timeout", self.drain_timeout),
        ];
        for (key, period) in periods {
            period.check(key, problems);
        }
        self.drain_delay
            .check_longest("server.drain_delay", problems);
        let counts = [
            (
                "server.max_connections",
                self.max_connections,
                MAX_CONNECTIONS,
            ),
            ("server.max_inputs", self.max_inputs, MAX_INPUTS),
        ];
        for (key, n, most) in counts
            .into_iter()
            .filter(|(_, n, most)| !(1..=*most).contains(n))
        {
            problems.push(Problem::new(key, format!("must be 1 to {most}, got {n}")));
        }
        if self.max_body.0 < 1024 {
            problems.push(Problem::new(
                "server.max_body",
                format!("{} is too small, use at least 1KiB", self.max_body),
            ));
        }
        if self.max_bodies < self.max_body {
            let message = format!(
                "{} is below server.max_body {}: the largest body would never fit",
                self.max_bodies, self.max_body
            );
            problems.push(Problem::new("server.max_bodies", message));
        }
        if let Some(tls) = &self.tls {
            tls.check(problems);
        }
        let header = &self.client_address_header;
        let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
        if header.is_empty() || !header.bytes().all(is_name) {
            let message = format!(
                "\"{header}\" is no name of a header, write \"x-forwarded-for\" or \"forwarded\""
            );
            problems.push(Problem::new("server.client_address_header", message));
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            let message =
                "is true, and trusted_proxies names nobody: every connection would be closed";
            problems.push(Problem::new("server.proxy_protocol", message));
        }
        for origin in self
            .cors_origins
            .iter()
            .filter(|origin| *origin != "*" && !is_origin(origin))
        {
            let message =
                format!("\"{origin}\" is no origin, write it as \"https://example.com\" or \"*\"");
            problems.push(Problem::new("server.cors_origins", message));
        }
    }
}

fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
    })
}
