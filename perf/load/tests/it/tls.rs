//! HTTPS.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
};

use baton_load::Target;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};

use super::harness::{closed, events, run, setup};

/// A server with a certificate of its own making for `localhost`; where it listens, and the certificate in a file.
fn https_server(folder: &tempfile::TempDir) -> (SocketAddr, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(config);
    // Ends with the test's process: it only waits for connections.
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (config, connection) = (config.clone(), connection.unwrap());
            thread::spawn(move || {
                answer(StreamOwned::new(ServerConnection::new(config).unwrap(), connection))
            });
        }
    });
    (address, file)
}

/// Answers one request; one that does not trust us sends none.
fn answer(mut tls: StreamOwned<ServerConnection, TcpStream>) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"}") {
        match tls.read(&mut piece) {
            Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let text = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let _ = tls.write_all(events(&[text, "[DONE]"]).as_bytes());
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

#[test]
fn a_server_is_believed_by_its_certificate_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (address, ca) = https_server(&folder);
    let mut setup = setup(address);
    setup.target = format!("https://localhost:{}", address.port()).parse::<Target>().unwrap();
    setup.manner.model = "m".to_owned();
    setup.asks_for_phases = false;
    setup.ca = Some(ca);
    let document = run(setup.clone(), closed(3, 1, 1)).unwrap();
    assert_eq!(document.summary.requests.complete, 3);

    let (_, stranger) = https_server(&folder);
    setup.ca = Some(stranger);
    let error = run(setup, closed(1, 1, 1)).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}
