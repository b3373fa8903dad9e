//! TLS to a collector: its certificate is checked, and it asks for none of ours.

use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::codegen::{Service, http::Uri};

/// Makes connections for tonic.
#[derive(Clone)]
pub(super) struct Https(TlsConnector);

/// HTTPS' own.
const PORT: u16 = 443;

impl Https {
    /// Certificates are checked against those in `ca`, or else against the system's.
    ///
    /// # Errors
    /// Why that can't be, in words.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = match ca {
            None => {
                builder.with_platform_verifier().map_err(|error| error.to_string())?.with_no_client_auth()
            }
            Some(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate in PEM form".to_owned()) } else { Ok(roots) }
}

impl Service<Uri> for Https {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move {
            // An IPv6 address stands in brackets there.
            let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let stream = TcpStream::connect((host.as_str(), to.port_u16().unwrap_or(PORT))).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            Ok(TokioIo::new(connector.connect(name, stream).await?))
        })
    }
}

#[cfg(test)]
mod tests {
    use rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[tokio::test]
    async fn only_who_is_known_is_spoken_to_and_in_http_2() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to: Uri = format!("http://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        for (known, is_good) in [(&made, true), (&stranger, false)] {
            let ca = folder.path().join("ca.crt");
            std::fs::write(&ca, known.cert.pem()).unwrap();
            let mut https = Https::new(Some(&ca)).unwrap();
            let serving = async {
                let (stream, _) = listener.accept().await.unwrap();
                acceptor.accept(stream).await
            };
            let (served, called) = tokio::join!(serving, https.call(to.clone()));
            assert_eq!((served.is_ok(), called.is_ok()), (is_good, is_good));
            if let Ok(called) = called {
                assert_eq!(called.inner().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            }
        }
        assert!(Https::new(Some(Path::new("/nowhere/ca.crt"))).is_err());
    }
}
