//! A folder with certificates.

use std::{fs, path::PathBuf};

use baton_tls::{DevCa, TlsArgs, Validity};

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With a certificate of `ca` for this machine.
    pub(crate) fn equipped(ca: &DevCa) -> Self {
        let this = Self::new();
        this.equip(ca, Validity::days(1));
        this
    }

    pub(crate) fn equip(&self, ca: &DevCa, validity: Validity) {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let issued = ca.issue(&names, validity).unwrap();
        self.write("ca.crt", ca.cert());
        self.write("tls.crt", &issued.cert);
        self.write("tls.key", &issued.key);
    }

    pub(crate) fn args(&self) -> TlsArgs {
        TlsArgs {
            tls_cert: Some(self.path("tls.crt")),
            tls_key: Some(self.path("tls.key")),
            tls_ca: Some(self.path("ca.crt")),
            tls_server_name: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }
}
