//! Certificates for development: an authority of one's own, one certificate for this machine's loopback, and one for each
//! POP to say with who it is.
//!
//! What is there and was made by the same authority stays, so that a browser that trusts it does so next time, too.

use super::layout::{write, write_secret};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::path::Path;

/// The authority's certificate.
pub(super) const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// Makes what is missing in `folder`.
pub(crate) fn make(folder: &Path, pops: &[String]) -> Result<(), String> {
    let issuer = authority(folder)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    leaf(folder, "tls", &issuer, &Leaf { names: &names, usage: ExtendedKeyUsagePurpose::ServerAuth })?;
    for pop in pops {
        let names = [pop.clone()];
        leaf(folder, pop, &issuer, &Leaf { names: &names, usage: ExtendedKeyUsagePurpose::ClientAuth })?;
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> String {
    format!("development certificates cannot be made: {error}")
}

fn authority(folder: &Path) -> Result<Issuer<'static, KeyPair>, String> {
    let (file, key_file) = (folder.join(CA), folder.join(CA_KEY));
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "Sigma Live development CA");
    if let (true, Ok(key)) = (file.exists(), std::fs::read_to_string(&key_file)) {
        let key = KeyPair::from_pem(&key).map_err(|error| format!("{}: {error}", key_file.display()))?;
        return Ok(Issuer::new(ca, key));
    }
    // Whatever is there is of an authority whose key is gone.
    for entry in std::fs::read_dir(folder).map_err(failed)?.flatten() {
        let path = entry.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|kind| kind == "pem") && (stem == "tls" || stem.starts_with("pop-")) {
            std::fs::remove_file(&path).map_err(failed)?;
        }
    }
    let key = KeyPair::generate().map_err(failed)?;
    let pem = ca.self_signed(&key).map_err(failed)?.pem();
    write_secret(&key_file, &key.serialize_pem())?;
    write(&file, &pem)?;
    Ok(Issuer::new(ca, key))
}

struct Leaf<'a> {
    names: &'a [String],
    usage: ExtendedKeyUsagePurpose,
}

fn leaf(folder: &Path, stem: &str, issuer: &Issuer<'_, KeyPair>, leaf: &Leaf<'_>) -> Result<(), String> {
    let (file, key_file) = (folder.join(format!("{stem}.pem")), folder.join(format!("{stem}.key")));
    if file.exists() && key_file.exists() {
        return Ok(());
    }
    let mut params = CertificateParams::new(leaf.names).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, format!("Sigma Live development {stem}"));
    params.extended_key_usages = vec![leaf.usage.clone()];
    let key = KeyPair::generate().map_err(failed)?;
    let pem = params.signed_by(&key, issuer).map_err(failed)?.pem();
    write_secret(&key_file, &key.serialize_pem())?;
    write(&file, &pem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sigma_http::tls::{ReloadableCertificate, pop_id};

    #[test]
    fn what_is_there_stays_and_more_pops_can_be_had() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = |name: &str| std::fs::read(folder.path().join(name)).expect(name);
        make(folder.path(), &["pop-1".to_owned()]).expect("made");
        let before = (read("ca.pem"), read("tls.pem"), read("pop-1.pem"));
        make(folder.path(), &["pop-1".to_owned(), "pop-2".to_owned()]).expect("made");
        assert!(before == (read("ca.pem"), read("tls.pem"), read("pop-1.pem")));
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let chain = [CertificateDer::from_pem_slice(&read("pop-2.pem")).expect("a certificate")];
        assert_eq!(pop_id(&chain).as_deref(), Some("pop-2"));
        let at = |name: &str| folder.path().join(name);
        ReloadableCertificate::load_with_client_ca(&at("tls.pem"), &at("tls.key"), Some(&at("ca.pem")))
            .expect("usable");
        std::fs::remove_file(at("ca.key")).expect("removed");
        make(folder.path(), &["pop-1".to_owned()]).expect("made");
        assert!(before.1 != read("tls.pem") && before.2 != read("pop-1.pem"), "of the new authority");
    }
}
