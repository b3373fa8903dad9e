//! Who may speak with whom, over real sockets; and that certificates change while serving.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use crate::support::Folder;
use baton_process::{Metrics, Readiness, admin_router};
use baton_tls::{DevCa, Dial, FrontTlsArgs, Listener, Tls, TlsArgs, Validity};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    codegen::http::uri::PathAndQuery,
    service::Routes,
    transport::{Channel, Endpoint, Server},
};

async fn tcp() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A gRPC server without services: every call that gets through is answered "unimplemented".
fn serve_grpc(tasks: &mut JoinSet<()>, listener: Listener) {
    tasks.spawn(async move {
        let incoming = listener.into_stream();
        Server::builder().add_routes(Routes::default()).serve_with_incoming(incoming).await.unwrap();
    });
}

fn serve_http(tasks: &mut JoinSet<()>, listener: Listener) {
    let readiness = Readiness::not_yet("it is a test");
    tasks.spawn(async move { axum::serve(listener, admin_router(Metrics::new(), readiness)).await.unwrap() });
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_timeout(Duration::from_secs(5))
}

/// Calls a method; `Ok` when there was a server to say that there is none, else the innermost cause.
async fn call(channel: Channel) -> Result<(), String> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| innermost(&error))?;
    let codec = empty::Nothing;
    let path = PathAndQuery::from_static("/no/such");
    let status = client.unary(tonic::Request::new(()), path, codec).await.expect_err("there are no services");
    match status.code() {
        tonic::Code::Unimplemented => Ok(()),
        _ => Err(innermost(&status)),
    }
}

/// A codec for messages without content.
mod empty {
    use tonic::{
        Status,
        codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    };

    #[derive(Default)]
    pub(super) struct Nothing;

    impl Codec for Nothing {
        type Encode = ();
        type Decode = ();
        type Encoder = Self;
        type Decoder = Self;

        fn encoder(&mut self) -> Self {
            Self
        }

        fn decoder(&mut self) -> Self {
            Self
        }
    }

    impl Encoder for Nothing {
        type Item = ();
        type Error = Status;

        fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
            Ok(())
        }
    }

    impl Decoder for Nothing {
        type Item = ();
        type Error = Status;

        fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
            Ok(None)
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

async fn try_call(dial: &Dial, address: SocketAddr) -> Result<(), String> {
    let channel = dial.connect(&endpoint(address)).await.map_err(|error| innermost(&error))?;
    call(channel).await
}

async fn get(dial: &Dial, address: SocketAddr) -> io::Result<String> {
    let mut stream = dial.http("127.0.0.1", address.port()).await?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn tls(folder: &Folder) -> Tls {
    Tls::load(&folder.args()).unwrap()
}

fn check(error: Result<(), String>, words: &[&str]) {
    let error = error.expect_err("it is refused");
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error:?}");
    }
}

#[tokio::test]
async fn components_of_one_ca_speak_with_each_other_over_grpc_and_http() {
    let folder = Folder::equipped(&DevCa::generate().unwrap());
    let (tls, mut tasks) = (tls(&folder), JoinSet::new());
    let ((grpc, grpc_at), (http, http_at)) = (tcp().await, tcp().await);
    serve_grpc(&mut tasks, tls.grpc_listener(grpc));
    serve_http(&mut tasks, tls.http_listener(http));
    assert_eq!(try_call(&tls.dial(), grpc_at).await, Ok(()));
    assert_eq!(call(tls.dial().connect_lazy(&endpoint(grpc_at))).await, Ok(()));
    let answer = get(&tls.dial(), http_at).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn strangers_are_refused_and_both_sides_know_why() {
    let ca = DevCa::generate().unwrap();
    let folder = Folder::equipped(&ca);
    let (server, mut tasks, metrics) = (tls(&folder), JoinSet::new(), Metrics::new());
    server.register(&metrics);
    let (grpc, at) = tcp().await;
    serve_grpc(&mut tasks, server.grpc_listener(grpc));

    check(try_call(&Dial::plain(), at).await, &["speaks TLS", "--tls-ca"]);
    let other = Folder::equipped(&DevCa::generate().unwrap());
    check(try_call(&tls(&other).dial(), at).await, &["other side is not of a CA in --tls-ca"]);
    // Its own files agree with each other, and it trusts the server; but the server does not know its CA.
    let both = Folder::equipped(&DevCa::generate().unwrap());
    both.write("ca.crt", &format!("{}{}", both.read("ca.crt"), ca.cert()));
    check(try_call(&tls(&both).dial(), at).await, &["other side refused us", "not of a CA that it knows"]);

    let refused = r#"baton_tls_refused_connections_total{listener="grpc"} 3"#;
    let start = Instant::now();
    while !metrics.encode().contains(refused) {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", metrics.encode());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(try_call(&server.dial(), at).await, Ok(()), "friends still are served");
}

#[tokio::test]
async fn a_certificate_that_ends_while_its_owner_runs_is_refused_from_then_on() {
    let ca = DevCa::generate().unwrap();
    let (folder, short) = (Folder::equipped(&ca), Folder::new());
    let (server, mut tasks) = (tls(&folder), JoinSet::new());
    let (grpc, at) = tcp().await;
    serve_grpc(&mut tasks, server.grpc_listener(grpc));
    let now = SystemTime::now();
    short.equip(&ca, Validity { from: now - Duration::from_secs(60), until: now + Duration::from_secs(3) });
    let client = tls(&short);
    assert_eq!(try_call(&client.dial(), at).await, Ok(()));
    let wait = (now + Duration::from_secs(5)).duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(wait).await;
    check(try_call(&client.dial(), at).await, &["other side refused us", "our certificate has expired"]);

    // And the other way round.
    let (grpc, at) = tcp().await;
    serve_grpc(&mut tasks, client.grpc_listener(grpc));
    check(try_call(&server.dial(), at).await, &["certificate of the other side expired at"]);
}

#[tokio::test]
async fn names_are_checked_as_the_other_side_is_called_or_as_the_operator_says() {
    let ca = DevCa::generate().unwrap();
    let (folder, client) = (Folder::new(), Folder::equipped(&ca));
    let issued = ca.issue(&["worker.internal".to_owned()], Validity::days(1)).unwrap();
    for (name, text) in [("ca.crt", ca.cert()), ("tls.crt", &issued.cert), ("tls.key", &issued.key)] {
        folder.write(name, text);
    }
    let mut tasks = JoinSet::new();
    let (grpc, at) = tcp().await;
    serve_grpc(&mut tasks, tls(&folder).grpc_listener(grpc));
    check(
        try_call(&tls(&client).dial(), at).await,
        &["worker.internal", "not for 127.0.0.1", "--tls-server-name"],
    );
    let named = TlsArgs { tls_server_name: Some("worker.internal".to_owned()), ..client.args() };
    assert_eq!(try_call(&Tls::load(&named).unwrap().dial(), at).await, Ok(()));
}

#[tokio::test]
async fn plain_text_at_an_https_port_is_answered_and_tls_at_a_plain_port_explained() {
    let folder = Folder::equipped(&DevCa::generate().unwrap());
    let (tls, mut tasks) = (tls(&folder), JoinSet::new());
    let (http, at) = tcp().await;
    serve_http(&mut tasks, tls.http_listener(http));
    let answer = get(&Dial::plain(), at).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");

    let (grpc, at) = tcp().await;
    serve_grpc(&mut tasks, Listener::plain(grpc));
    check(try_call(&tls.dial(), at).await, &["speaks no TLS"]);
    assert_eq!(try_call(&Dial::plain(), at).await, Ok(()), "without options as ever");
}

#[tokio::test]
async fn who_says_nothing_holds_up_nobody() {
    let folder = Folder::equipped(&DevCa::generate().unwrap());
    let (tls, mut tasks) = (tls(&folder), JoinSet::new());
    let (http, at) = tcp().await;
    serve_http(&mut tasks, tls.http_listener(http));
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    let start = Instant::now();
    get(&tls.dial(), at).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "before they are given up");
}

#[tokio::test]
async fn a_front_may_want_certificates_of_its_clients() {
    let [folder, clients] = [(); 2].map(|()| Folder::equipped(&DevCa::generate().unwrap()));
    let front = FrontTlsArgs { front_client_ca: Some(clients.path("ca.crt")), ..FrontTlsArgs::default() };
    let server = Tls::load_with_front(&folder.args(), &front).unwrap();
    let mut tasks = JoinSet::new();
    let (http, at) = tcp().await;
    serve_http(&mut tasks, server.front_listener(http));
    // A client of that CA, who trusts the front's.
    let client = |folder: &Folder, ca: &Folder| {
        folder.write("ca.crt", &format!("{}{}", folder.read("ca.crt"), ca.read("ca.crt")));
        tls(folder).dial()
    };
    let answer = get(&client(&clients, &folder), at).await.unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    let error = get(&server.dial(), at).await.unwrap_err();
    assert!(error.to_string().contains("other side refused us"), "{error}");
}

#[tokio::test]
async fn new_certificates_are_used_at_once_and_wrong_ones_never_while_connections_go_on() {
    let (ca, next) = (DevCa::generate().unwrap(), DevCa::generate().unwrap());
    let (folder, newcomer) = (Folder::equipped(&ca), Folder::equipped(&next));
    let (server, mut tasks, metrics) = (tls(&folder), JoinSet::new(), Metrics::new());
    server.register(&metrics);
    let stop = CancellationToken::new();
    tasks.spawn(server.clone().keep_fresh(stop.clone()));
    let (grpc, at) = tcp().await;
    serve_grpc(&mut tasks, server.grpc_listener(grpc));
    let open = server.dial().connect(&endpoint(at)).await.unwrap();
    assert_eq!(call(open.clone()).await, Ok(()));
    let newcomer_dial = tls(&newcomer).dial();
    assert!(try_call(&newcomer_dial, at).await.is_err());

    let reloads = async |outcome: &str, count: u64| {
        let line = format!("baton_tls_reloads_total{{outcome=\"{outcome}\"}} {count}");
        let start = Instant::now();
        while !metrics.encode().contains(&line) {
            assert!(start.elapsed() < Duration::from_secs(20), "no {line} in {}", metrics.encode());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let key = folder.read("tls.key");
    folder.write("tls.key", &newcomer.read("tls.key"));
    reloads("refused", 1).await;
    assert_eq!(try_call(&server.dial(), at).await, Ok(()), "the old ones stay in use");
    folder.write("tls.key", &key);
    reloads("taken", 1).await;

    folder.equip(&next, Validity::days(30));
    reloads("taken", 2).await;
    assert_eq!(try_call(&newcomer_dial, at).await, Ok(()));
    assert_eq!(try_call(&server.dial(), at).await, Ok(()), "calls use the new ones, too");
    assert_eq!(call(open).await, Ok(()), "the open connection went on");
    let expiry = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 30 * 24 * 3600;
    let shown = metrics.encode();
    let shown: u64 = shown
        .lines()
        .find_map(|line| {
            line.strip_prefix(r#"baton_tls_certificate_expiry_timestamp_seconds{certificate="components"} "#)
        })
        .and_then(|value| value.parse().ok())
        .unwrap();
    assert!(shown.abs_diff(expiry) < 120, "{shown} is not about {expiry}");
    stop.cancel();
}
