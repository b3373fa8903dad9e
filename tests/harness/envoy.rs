//! A real Envoy before servers, asking endpoint pickers where requests go. Its binary is found through `BATON_TEST_ENVOY`.

use std::{
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{Client, eventually};

/// Envoy, killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) client: Client,
    _folder: tempfile::TempDir,
}

/// Of a cluster.
const TLS: &str = "transport_socket: { name: envoy.transport_sockets.tls, typed_config: { \"@type\": \
    type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
    common_tls_context: { alpn_protocols: [h2] } } }";

/// What of it differs from test to test.
#[derive(Clone, Copy, Default)]
pub(crate) struct GatewayShape {
    /// Pickers are asked over TLS, whatever certificate they show.
    pub(crate) is_picker_tls: bool,
    /// Endpoints are spoken to in HTTP/2.
    pub(crate) is_http2_behind: bool,
}

static GATEWAYS: AtomicUsize = AtomicUsize::new(0);

impl Gateway {
    /// In front of `endpoints`; `pickers` are asked in turn.
    pub(crate) fn start(pickers: &[&str], endpoints: &[&str]) -> Self {
        Self::shaped(pickers, endpoints, GatewayShape::default())
    }

    /// As [`Self::start`], but like this.
    pub(crate) fn shaped(pickers: &[&str], endpoints: &[&str], shape: GatewayShape) -> Self {
        let envoy = std::env::var("BATON_TEST_ENVOY")
            .expect("BATON_TEST_ENVOY is not set: the path of envoy; `./dev test` installs it");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let front = listener.local_addr().expect("an address");
        drop(listener);
        let config = include_str!("../../endpoint-picker/tests/envoy/gateway.yaml")
            .replace("@FRONT@", &front.port().to_string())
            .replace("@PICKER_TLS@", if shape.is_picker_tls { TLS } else { "" })
            .replace("@BEHIND@", if shape.is_http2_behind { "http2" } else { "http" })
            .replace("@PICKERS@", &list(pickers))
            .replace("@ENDPOINTS@", &list(endpoints));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, config).expect("written");
        let gateway = Self {
            child: spawn(&envoy, &file, folder.path()),
            client: Client::new(format!("http://{front}")),
            _folder: folder,
        };
        eventually("Envoy listens", || {
            TcpStream::connect(front).map(drop).map_err(|error| error.to_string())
        });
        gateway
    }
}

fn list(addresses: &[&str]) -> String {
    let entry = |address: &&str| {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        format!(
            "{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }} }}"
        )
    };
    addresses.iter().map(entry).collect::<Vec<_>>().join(", ")
}

fn spawn(envoy: &str, config: &Path, folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let base_id = std::process::id() as usize * 16 + GATEWAYS.fetch_add(1, Ordering::Relaxed);
    Command::new(envoy)
        .args(["--config-path", config.to_str().expect("text")])
        .args(["--base-id", &base_id.to_string(), "--concurrency", "1", "--log-level", "warning"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("envoy starts")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
