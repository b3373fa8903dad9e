//! All that a process has of TLS.

use std::{sync::Arc, time::Duration};

use baton_process::Metrics;
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Dial, FrontTlsArgs, Listener, TlsArgs, TlsError,
    credentials::Credentials,
    files::{Source, Sources},
    listener::Spoken,
    metrics::TlsMetrics,
};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the options made of a process; without options, plain text. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tls {
    components: Option<Arc<Credentials>>,
    /// Of the front, where it has its own.
    front: Option<Arc<Credentials>>,
    is_mutual: bool,
    metrics: TlsMetrics,
}

impl Tls {
    /// Of a component without front.
    ///
    /// # Errors
    /// [`TlsError`]: the file, and what is wrong with it.
    pub fn load(args: &TlsArgs) -> Result<Self, TlsError> {
        Self::load_with_front(args, &FrontTlsArgs::default())
    }

    /// Of a component with a front.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load_with_front(args: &TlsArgs, front: &FrontTlsArgs) -> Result<Self, TlsError> {
        let components = args.sources().map(Credentials::load).transpose()?.map(Arc::new);
        let front = front.sources(args)?.map(Credentials::load).transpose()?.map(Arc::new);
        let is_mutual = components.is_some() && args.tls_ca.is_some();
        Ok(Self { components, front, is_mutual, metrics: TlsMetrics::default() })
    }

    /// Where clients come in: HTTPS with the front's certificate, or else the component's.
    pub fn front_listener(&self, tcp: TcpListener) -> Listener {
        self.listener(tcp, self.front.as_ref().or(self.components.as_ref()), Spoken::Http)
    }

    /// Where metrics and health are read.
    pub fn http_listener(&self, tcp: TcpListener) -> Listener {
        self.listener(tcp, self.components.as_ref(), Spoken::Http)
    }

    /// Where other components call: each must show a certificate of the CA.
    pub fn grpc_listener(&self, tcp: TcpListener) -> Listener {
        self.listener(tcp, self.components.as_ref().filter(|_| self.is_mutual), Spoken::Grpc)
    }

    /// Where gateways call, which show no certificate.
    pub fn gateway_listener(&self, tcp: TcpListener) -> Listener {
        self.listener(tcp, self.components.as_ref(), Spoken::GatewayGrpc)
    }

    /// How other components are called.
    pub fn dial(&self) -> Dial {
        match &self.components {
            Some(components) if self.is_mutual => Dial::tls(components.clone()),
            _ => Dial::plain(),
        }
    }

    /// Shows refusals, reloads and the end of each certificate.
    pub fn register(&self, metrics: &Metrics) {
        if self.credentials().next().is_some() {
            self.metrics.register(metrics);
            self.show_expiry();
        }
    }

    /// Looks at the files again and again, until `until`. Changed ones are used for new connections; wrong ones are logged and
    /// counted, and change nothing.
    pub async fn keep_fresh(self, until: CancellationToken) {
        if self.credentials().next().is_none() {
            return until.cancelled().await;
        }
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = until.cancelled() => return,
            }
            // Small files of this machine: not worth a thread.
            for credentials in self.credentials() {
                let Some(verdict) = credentials.refresh() else { continue };
                self.metrics.count_reload(verdict.is_ok());
                match verdict {
                    Ok(()) => tracing::info!(cert = credentials.path(), "new certificates are in use"),
                    Err(error) => {
                        tracing::error!(%error, "changed certificates can't be used; those before stay in use");
                    }
                }
            }
            self.show_expiry();
        }
    }

    fn listener(&self, tcp: TcpListener, credentials: Option<&Arc<Credentials>>, spoken: Spoken) -> Listener {
        match credentials {
            None => Listener::plain(tcp),
            Some(credentials) => Listener::tls(tcp, credentials.clone(), spoken, self.metrics.clone()),
        }
    }

    fn credentials(&self) -> impl Iterator<Item = &Arc<Credentials>> {
        self.components.iter().chain(&self.front)
    }

    fn show_expiry(&self) {
        for (name, credentials) in [("components", &self.components), ("front", &self.front)] {
            if let Some(credentials) = credentials {
                self.metrics.set_expiry(name, credentials.current().expires);
            }
        }
    }
}

impl TlsArgs {
    fn sources(&self) -> Option<Sources> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(Sources {
            cert: Source::new("--tls-cert", cert),
            key: Source::new("--tls-key", key),
            ca: self.tls_ca.clone().map(|path| Source::new("--tls-ca", path)),
            client_ca: None,
            server_name: self.tls_server_name.clone(),
        })
    }
}

impl FrontTlsArgs {
    /// `None`, when the front is like everything else.
    fn sources(&self, args: &TlsArgs) -> Result<Option<Sources>, TlsError> {
        let client_ca = self.front_client_ca.clone().map(|path| Source::new("--front-client-ca", path));
        let own = self.front_tls_cert.clone().zip(self.front_tls_key.clone());
        let (cert, key) = match (own, args.sources(), &client_ca) {
            (Some((cert, key)), _, _) => {
                (Source::new("--front-tls-cert", cert), Source::new("--front-tls-key", key))
            }
            (None, Some(Sources { cert, key, .. }), Some(_)) => (cert, key),
            (None, None, Some(_)) => return Err(TlsError::NoFrontCertificate),
            (None, _, None) => return Ok(None),
        };
        Ok(Some(Sources { cert, key, ca: None, client_ca, server_name: None }))
    }
}
