//! A certificate authority to try TLS with: one folder, one certificate for all components.
//!
//! ```text
//!  DIR/ca.crt   DIR/ca.key (0600)     stays the same
//!  DIR/tls.crt  DIR/tls.key (0600)    made anew each time
//! ```
//!
//! The files are called as in the secrets that cert-manager makes. It is for development: its key lies beside it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::ServerName;
use sha2::{Digest as _, Sha256};

use crate::TlsArgs;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Clocks of machines differ.
const HEAD_START: Duration = Duration::from_secs(3600);
const CA_DAYS: u32 = 3650;

/// A development CA cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DevCaError {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// There is a CA's certificate and no key, or the reverse.
    #[error("{} is there without {}: it is no development CA; choose another folder, or remove the file", there.display(), missing.display())]
    Half {
        /// What is there.
        there: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// Nobody could be called so.
    #[error("{name:?} is neither a host name nor an IP address")]
    Name {
        /// What was given.
        name: String,
    },
    /// A key that can't be used.
    #[error("no certificate can be made")]
    Certificate(#[from] rcgen::Error),
}

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// Its first moment.
    pub from: SystemTime,
    /// Its last moment.
    pub until: SystemTime,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// A CA and its key.
pub struct DevCa {
    pem: String,
    key: KeyPair,
}

impl Validity {
    /// From now on.
    pub fn days(days: u32) -> Self {
        let now = SystemTime::now();
        Self { from: now - HEAD_START, until: now + days * DAY }
    }

    fn apply(self, params: &mut CertificateParams) {
        let since_epoch =
            |moment: SystemTime| moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since_epoch(self.from);
        params.not_after = epoch + since_epoch(self.until);
    }
}

impl DevCa {
    /// A new one, in memory.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, DevCaError> {
        let key = KeyPair::generate()?;
        let pem = ca_params(&key).self_signed(&key)?.pem();
        Ok(Self { pem, key })
    }

    /// The one in `folder`; a new one, if there is none.
    ///
    /// # Errors
    /// [`DevCaError`].
    pub fn open_or_create(folder: &Path) -> Result<Self, DevCaError> {
        let [cert, key] = ["ca.crt", "ca.key"].map(|name| folder.join(name));
        match (read(&cert)?, read(&key)?) {
            (Some(pem), Some(text)) => Ok(Self { pem, key: KeyPair::from_pem(&text)? }),
            (Some(_), None) => Err(DevCaError::Half { there: cert, missing: key }),
            (None, Some(_)) => Err(DevCaError::Half { there: key, missing: cert }),
            (None, None) => {
                let ca = Self::generate()?;
                fs::create_dir_all(folder)
                    .map_err(|source| DevCaError::File { path: folder.to_owned(), source })?;
                write(&key, &ca.key.serialize_pem(), 0o600)?;
                write(&cert, &ca.pem, 0o644)?;
                Ok(ca)
            }
        }
    }

    /// Its certificate, as PEM.
    pub fn cert(&self) -> &str {
        &self.pem
    }

    /// A certificate for servers and clients with these names and addresses.
    ///
    /// # Errors
    /// A name that is none.
    pub fn issue(&self, names: &[String], validity: Validity) -> Result<Issued, DevCaError> {
        // A certificate may be for all hosts of a domain.
        let is_name = |name: &&String| ServerName::try_from(name.trim_start_matches("*.")).is_ok();
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            return Err(DevCaError::Name { name: name.clone() });
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = common_name("Baton development".to_owned());
        validity.apply(&mut params);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::new(ca_params(&self.key), &self.key);
        let cert = params.signed_by(&key, &issuer)?.pem();
        Ok(Issued { cert, key: key.serialize_pem() })
    }

    /// Writes a new certificate for all components into `folder`, for this machine's names and `names`; says how they are told.
    ///
    /// # Errors
    /// [`DevCaError`].
    pub fn equip(&self, folder: &Path, names: &[String], days: u32) -> Result<TlsArgs, DevCaError> {
        let mut all = own_names();
        all.extend(names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
        let Issued { cert, key } = self.issue(&all, Validity::days(days))?;
        let [cert_path, key_path] = ["tls.crt", "tls.key"].map(|name| folder.join(name));
        write(&key_path, &key, 0o600)?;
        write(&cert_path, &cert, 0o644)?;
        Ok(TlsArgs::in_folder(folder))
    }
}

/// What a CA's certificate says follows from its key, so that a CA which is read again signs as it did. Each has a name of its
/// own: of two with one name, verifiers say that signatures are bad, where they mean that the CA is another.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let fingerprint = Sha256::digest(key.public_key_raw());
    let short: String = fingerprint.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(format!("Baton development CA {short}"));
    Validity::days(CA_DAYS).apply(&mut params);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: String) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// How this machine is called from itself and, perhaps, by others.
fn own_names() -> Vec<String> {
    let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_name =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if is_name && !names.contains(&host) {
        names.push(host);
    }
    names
}

fn read(path: &Path) -> Result<Option<String>, DevCaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DevCaError::File { path: path.to_owned(), source }),
    }
}

/// A reader finds the old file or the new one, never a part.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), DevCaError> {
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&aside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&aside, path));
    written.map_err(|source| DevCaError::File { path: path.to_owned(), source })
}
