//! What went wrong between two that speak TLS, in words that say whose turn it is to change something.

use std::{io, time::SystemTime};

use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error, pki_types::UnixTime};

/// An error of a connection, as a person reads it.
pub(crate) fn explain(error: io::Error) -> io::Error {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return error };
    io::Error::new(error.kind(), words(inner))
}

fn words(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => refused_us(*alert),
        Error::InvalidMessage(_) => {
            "the other side speaks no TLS: give it --tls-cert, --tls-key and --tls-ca, too".to_owned()
        }
        Error::NoCertificatesPresented => "the other side showed no certificate".to_owned(),
        Error::InvalidCertificate(reason) => bad_certificate(reason),
        other => other.to_string(),
    }
}

/// The other side ended the handshake.
fn refused_us(alert: Alert) -> String {
    let why = match alert {
        Alert::CertificateRequired | Alert::HandshakeFailure | Alert::NoCertificate => {
            "it wants a certificate of its CA, and was shown none"
        }
        Alert::UnknownCA => "our certificate is not of a CA that it knows",
        Alert::CertificateExpired => "our certificate has expired",
        Alert::DecryptError => "our certificate is not of the CA that it seems to be of",
        Alert::BadCertificate => "it does not take our certificate, or the name in it",
        Alert::NoApplicationProtocol => {
            "this port is for something else: HTTP where gRPC was meant, or the reverse"
        }
        other => return format!("the other side refused us: {other:?}"),
    };
    format!("the other side refused us: {why}")
}

fn bad_certificate(reason: &Certificate) -> String {
    match reason {
        Certificate::ExpiredContext { not_after, .. } => {
            format!("the certificate of the other side expired at {}", date(*not_after))
        }
        Certificate::NotValidYetContext { not_before, .. } => {
            format!("the certificate of the other side is good only from {} on", date(*not_before))
        }
        Certificate::UnknownIssuer | Certificate::BadSignature => {
            "the certificate of the other side is not of a CA in --tls-ca".to_owned()
        }
        Certificate::NotValidForNameContext { expected, presented } => format!(
            "the certificate of the other side is for {}, not for {}: add that name to it, or give --tls-server-name",
            presented.join(", "),
            expected.to_str()
        ),
        other => format!("the certificate of the other side can't be used: {other}"),
    }
}

fn date(time: UnixTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs()))
}
