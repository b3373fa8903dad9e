//! What is wrong with certificates and keys is said at the start, with the file and what to do.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use crate::support::Folder;
use baton_tls::{DevCa, FrontTlsArgs, Tls, TlsArgs, TlsError, Validity};

fn refused(args: &TlsArgs) -> String {
    Tls::load(args).err().expect("it is refused").to_string()
}

fn check(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error:?}");
    }
}

#[test]
fn without_options_everything_is_plain_text() {
    let tls = Tls::load(&TlsArgs::default()).unwrap();
    assert!(!tls.dial().is_tls());
}

#[test]
fn with_a_certificate_alone_components_are_still_called_in_plain_text() {
    let folder = Folder::equipped(&DevCa::generate().unwrap());
    let tls = Tls::load(&TlsArgs { tls_ca: None, ..folder.args() }).unwrap();
    assert!(!tls.dial().is_tls());
    assert!(Tls::load(&folder.args()).unwrap().dial().is_tls());
}

#[test]
fn a_file_that_is_missing_or_something_else_is_named_with_its_option() {
    let folder = Folder::equipped(&DevCa::generate().unwrap());
    for (name, option) in [("tls.crt", "--tls-cert"), ("tls.key", "--tls-key"), ("ca.crt", "--tls-ca")] {
        let good = folder.read(name);
        folder.write(name, "hello\n");
        check(&refused(&folder.args()), &[option, name, "-----BEGIN"]);
        fs::remove_file(folder.path(name)).unwrap();
        check(&refused(&folder.args()), &[option, name, "No such file"]);
        folder.write(name, &good);
    }
    let key = folder.read("tls.key");
    folder.write("tls.key", &folder.read("tls.crt"));
    check(&refused(&folder.args()), &["--tls-key", "no private key"]);
    folder.write("tls.key", &key);
    folder.write("tls.crt", &folder.read("tls.crt")[..300]);
    check(&refused(&folder.args()), &["--tls-cert", "tls.crt"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = DevCa::generate().unwrap();
    let (folder, other) = (Folder::equipped(&ca), Folder::equipped(&ca));
    folder.write("tls.key", &other.read("tls.key"));
    check(&refused(&folder.args()), &["tls.key", "does not belong", "tls.crt"]);
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    let folder = Folder::equipped(&DevCa::generate().unwrap());
    folder.write("ca.crt", DevCa::generate().unwrap().cert());
    check(&refused(&folder.args()), &["tls.crt", "not of a CA in", "ca.crt"]);
    // While CAs change, both may be there.
    let (ca, next) = (DevCa::generate().unwrap(), DevCa::generate().unwrap());
    let folder = Folder::equipped(&ca);
    folder.write("ca.crt", &format!("{}{}", next.cert(), ca.cert()));
    assert!(Tls::load(&folder.args()).is_ok());
}

#[test]
fn a_certificate_is_refused_before_and_after_its_time_with_and_without_a_ca() {
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let ca = DevCa::generate().unwrap();
    let folder = Folder::equipped(&ca);
    for (validity, words) in [
        (Validity { from: now - 2 * day, until: now - day }, ["tls.crt", "expired at", "renew"]),
        (Validity { from: now + day, until: now + 2 * day }, ["tls.crt", "good only from", "clock"]),
    ] {
        folder.equip(&ca, validity);
        check(&refused(&folder.args()), &words);
        check(&refused(&TlsArgs { tls_ca: None, ..folder.args() }), &words);
    }
}

#[test]
fn the_front_may_have_a_certificate_of_its_own_but_not_a_client_ca_alone() {
    let [components, front] = [(); 2].map(|()| Folder::equipped(&DevCa::generate().unwrap()));
    let front_args = FrontTlsArgs {
        front_tls_cert: Some(front.path("tls.crt")),
        front_tls_key: Some(front.path("tls.key")),
        front_client_ca: None,
    };
    assert!(Tls::load_with_front(&components.args(), &front_args).is_ok());
    front.write("tls.key", "");
    let error = Tls::load_with_front(&components.args(), &front_args).err().unwrap().to_string();
    check(&error, &["--front-tls-key"]);
    let alone = FrontTlsArgs { front_client_ca: Some(front.path("ca.crt")), ..FrontTlsArgs::default() };
    assert_eq!(Tls::load_with_front(&TlsArgs::default(), &alone).err(), Some(TlsError::NoFrontCertificate));
}

#[test]
fn a_development_ca_stays_and_its_keys_are_for_their_owner() {
    let folder = Folder::new();
    let dir = folder.path("made/here");
    let equip = || DevCa::open_or_create(&dir).unwrap().equip(&dir, &["10.1.2.3".to_owned()], 30).unwrap();
    let args = equip();
    let (ca, cert) = (fs::read(dir.join("ca.crt")).unwrap(), fs::read(dir.join("tls.crt")).unwrap());
    assert!(Tls::load(&args).is_ok());
    equip();
    assert_eq!(fs::read(dir.join("ca.crt")).unwrap(), ca);
    assert_ne!(fs::read(dir.join("tls.crt")).unwrap(), cert);
    assert!(Tls::load(&args).is_ok(), "signed by the same CA");
    for name in ["ca.key", "tls.key"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4, "nothing else is left there");
    let ca = DevCa::open_or_create(&dir).unwrap();
    assert!(ca.issue(&["*.svc.cluster.local".to_owned()], Validity::days(1)).is_ok());
    let error = ca.issue(&["no name".to_owned()], Validity::days(1)).err().unwrap().to_string();
    check(&error, &["no name", "neither a host name nor an IP address"]);
    fs::remove_file(dir.join("ca.key")).unwrap();
    let error = DevCa::open_or_create(&dir).err().unwrap().to_string();
    check(&error, &["ca.crt", "ca.key"]);
}
