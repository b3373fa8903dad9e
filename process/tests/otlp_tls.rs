//! Spans on their way to a collector that speaks TLS.

use std::{fs, sync::Arc, time::Duration};

use baton_process::{Metrics, Span, SpanKind, TraceArgs, TraceContext, start_traces};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{copy_bidirectional, duplex},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, transport::Server};

const PATIENCE: Duration = Duration::from_secs(20);

/// Tells the names of the spans that it is sent.
struct Names(mpsc::UnboundedSender<String>);

#[tonic::async_trait]
impl TraceService for Names {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|spans| spans.scope_spans).flat_map(|spans| spans.spans);
        spans.for_each(|span| drop(self.0.send(span.name)));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector for `localhost`, with a certificate that it has signed itself: the port, the certificate, and what is sent.
async fn collector() -> (u16, String, mpsc::UnboundedReceiver<String>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (accepted, connections) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust the certificate hangs up.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let (mut ours, theirs) = duplex(1 << 16);
                tokio::spawn(async move { copy_bidirectional(&mut stream, &mut ours).await });
                let _ = accepted.send(Ok::<_, std::io::Error>(theirs)).await;
            }
        }
    });
    let (names, told) = mpsc::unbounded_channel();
    let server = Server::builder().add_service(TraceServiceServer::new(Names(names)));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(connections)));
    (port, made.cert.pem(), told)
}

#[tokio::test]
async fn spans_reach_a_collector_whose_certificate_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let (port, certificate, mut told) = collector().await;
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (good, empty) = (file("ca", &certificate), file("empty", ""));
    let url = format!("https://localhost:{port}");
    let args = |ca| TraceArgs { otlp_endpoint: Some(url.clone()), otlp_ca: Some(ca), ..TraceArgs::default() };

    let error = start_traces(&args(empty), "test").unwrap_err().to_string();
    assert!(error.contains("--otlp-ca") && error.contains("no certificate"), "{error}");

    // The first that is started has the process's spans.
    let traces = start_traces(&args(good), "test").unwrap();
    drop(Span::begin("over TLS", SpanKind::Internal, &TraceContext::default()));
    let name = timeout(PATIENCE, told.recv()).await.expect("in time");
    assert_eq!(name.as_deref(), Some("over TLS"));
    traces.end().await;
    let sent = Metrics::of_process().encode();
    assert!(sent.contains("baton_trace_spans_total{outcome=\"sent\"} 1"), "{sent}");
}
