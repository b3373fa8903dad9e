//! From files to what rustls needs, with every check that can be made before a peer makes it.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::{
    TlsError,
    files::{Changes, Contents, Source, Sources},
};

/// The last second that certificates can name (RFC 5280, 4.1.2.5).
const END_OF_TIME_S: u64 = 253_402_300_799;

/// One identity: its files, and what was made of their last good version.
pub(crate) struct Credentials {
    sources: Sources,
    changes: Mutex<Changes>,
    current: RwLock<Arc<Configs>>,
}

/// What connections are made with.
pub(crate) struct Configs {
    /// Of HTTP listeners.
    pub(crate) http: Arc<ServerConfig>,
    /// Of gRPC listeners.
    pub(crate) grpc: Option<Arc<ServerConfig>>,
    /// Of gRPC listeners that want no certificate of callers.
    pub(crate) gateway_grpc: Arc<ServerConfig>,
    /// Of gRPC calls.
    pub(crate) client: Option<Arc<ClientConfig>>,
    /// Of HTTP calls.
    pub(crate) http_client: Option<Arc<ClientConfig>>,
    /// Instead of the host that is called.
    pub(crate) server_name: Option<ServerName<'static>>,
    /// When the certificate ends.
    pub(crate) expires: Option<SystemTime>,
}

impl Credentials {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn load(sources: Sources) -> Result<Self, TlsError> {
        let contents = sources.read()?;
        let current = RwLock::new(Arc::new(configs(&sources, &contents)?));
        Ok(Self { sources, changes: Mutex::new(Changes::since(contents)), current })
    }

    /// What new connections are made with.
    pub(crate) fn current(&self) -> Arc<Configs> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks whether the files changed; the verdict on those that did. Wrong ones change nothing.
    pub(crate) fn refresh(&self) -> Option<Result<(), TlsError>> {
        let take = |contents: &Contents| {
            let configs = Arc::new(configs(&self.sources, contents)?);
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = configs;
            Ok(())
        };
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).look(self.sources.read(), take)
    }

    /// For logs.
    pub(crate) fn path(&self) -> String {
        self.sources.cert.path.display().to_string()
    }
}

fn configs(sources: &Sources, contents: &Contents) -> Result<Configs, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = Arc::new(identity(sources, contents, &provider)?);
    let expires = check_dates(sources, &key, &provider)?;
    let mut configs = Configs {
        http: http(sources, contents, &key, &provider)?,
        grpc: None,
        gateway_grpc: gateway_grpc(&key, &provider)?,
        client: None,
        http_client: None,
        server_name: sources.server_name.as_deref().map(server_name).transpose()?,
        expires,
    };
    if let (Some(source), Some(pem)) = (&sources.ca, &contents.ca) {
        let roots = Arc::new(roots(source, pem)?);
        check_issuer(sources, source, &key, &roots, &provider)?;
        configs.grpc = Some(grpc(&key, &roots, &provider)?);
        let client = client(&key, &roots, &provider)?;
        let mut of_grpc = client.clone();
        of_grpc.alpn_protocols = vec![b"h2".to_vec()];
        configs.client = Some(Arc::new(of_grpc));
        configs.http_client = Some(Arc::new(client));
    }
    Ok(configs)
}

/// Certificate and key, which belong together.
fn identity(
    sources: &Sources,
    contents: &Contents,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&sources.cert, &contents.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|_| sources.key.wrong("there is no private key in it (-----BEGIN PRIVATE KEY-----)"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            TlsError::KeyMismatch { cert: sources.cert.path.clone(), key: sources.key.path.clone() }
        }
        Error::InvalidCertificate(_) => sources.cert.wrong(error.to_string()),
        error => sources.key.wrong(error.to_string()),
    })
}

fn certificates(source: &Source, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(source.wrong("there is no certificate in it (-----BEGIN CERTIFICATE-----)")),
        Err(error) => Err(source.wrong(format!("this is no PEM file: {error}"))),
    }
}

fn roots(source: &Source, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(source, pem)? {
        roots
            .add(certificate)
            .map_err(|error| source.wrong(format!("a CA's certificate can't be used: {error}")))?;
    }
    Ok(roots)
}

/// When the certificate ends, if it is good now. Who issued it does not matter here: dates are looked at before issuers, so it
/// is verified as its own CA, now and at the end of time, and what the verifier says of dates is what there is to know.
fn check_dates(
    sources: &Sources,
    key: &CertifiedKey,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<SystemTime>, TlsError> {
    let cert = || sources.cert.path.clone();
    let Ok(certificate) = key.end_entity_cert() else { return Ok(None) };
    let mut own = RootCertStore::empty();
    own.add(certificate.clone()).map_err(|error| sources.cert.wrong(error.to_string()))?;
    let verifier = client_verifier(&Arc::new(own), provider)?;
    let at = |time| verifier.verify_client_cert(certificate, &[], time).err();
    match at(UnixTime::now()) {
        Some(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            return Err(TlsError::Expired { cert: cert(), at: moment(not_after) });
        }
        Some(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            return Err(TlsError::NotYet { cert: cert(), from: moment(not_before) });
        }
        _ => {}
    }
    Ok(match at(UnixTime::since_unix_epoch(Duration::from_secs(END_OF_TIME_S))) {
        Some(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(moment(not_after))
        }
        _ => None,
    })
}

fn moment(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// Whether other components would take the certificate, from a server and from a client.
fn check_issuer(
    sources: &Sources,
    ca: &Source,
    key: &CertifiedKey,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<(), TlsError> {
    let [certificate, chain @ ..] = &key.cert[..] else { return Ok(()) };
    let refused = |reason: Error| TlsError::OtherCa {
        cert: sources.cert.path.clone(),
        ca: ca.path.clone(),
        reason: reason.to_string(),
    };
    client_verifier(roots, provider)?
        .verify_client_cert(certificate, chain, UnixTime::now())
        .map_err(refused)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| TlsError::SetUp(error.to_string()))?;
    // Under which name it will be called is not known here; names are looked at last.
    let any_name = server_name("localhost")?;
    match verifier.verify_server_cert(certificate, chain, &any_name, &[], UnixTime::now()) {
        Ok(_) | Err(Error::InvalidCertificate(CertificateError::NotValidForName)) => Ok(()),
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

fn client_verifier(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| TlsError::SetUp(error.to_string()))
}

fn http(
    sources: &Sources,
    contents: &Contents,
    key: &Arc<CertifiedKey>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let clients = match (&sources.client_ca, &contents.client_ca) {
        (Some(source), Some(pem)) => client_verifier(&Arc::new(roots(source, pem)?), provider)?,
        _ => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = server(key, clients, provider)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn grpc(
    key: &Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = server(key, client_verifier(roots, provider)?, provider)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not look at the certificate again, and connections here are few and long.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn gateway_grpc(
    key: &Arc<CertifiedKey>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = server(key, WebPkiClientVerifier::no_client_auth(), provider)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn server(
    key: &Arc<CertifiedKey>,
    clients: Arc<dyn ClientCertVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::SetUp(error.to_string()))?;
    let key = SingleCertAndKey::from(CertifiedKey::clone(key));
    Ok(builder.with_client_cert_verifier(clients).with_cert_resolver(Arc::new(key)))
}

fn client(
    key: &Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::SetUp(error.to_string()))?;
    let key = SingleCertAndKey::from(CertifiedKey::clone(key));
    Ok(builder.with_root_certificates(roots.clone()).with_client_cert_resolver(Arc::new(key)))
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName { name: name.to_owned() })
}
