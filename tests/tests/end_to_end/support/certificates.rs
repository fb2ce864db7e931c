use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType, date_time_ymd,
};

/// Someone who signs certificates, made for one test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Writes its own certificate to `NAME.pem` in a folder.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Self(issuer)
    }

    /// Writes a certificate for a name (an address, a URI or a DNS name) to `FILE.pem`, and its key to `FILE.key`.
    pub(crate) fn issue(&self, folder: &Path, file: &str, san: &str) {
        self.sign(folder, file, params(san));
    }

    /// The same, but its time is over.
    pub(crate) fn issue_expired(&self, folder: &Path, file: &str, san: &str) {
        let mut params = params(san);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.sign(folder, file, params);
    }

    fn sign(&self, folder: &Path, file: &str, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
    }
}

fn params(san: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![match san.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) if san.contains(':') => SanType::URI(san.try_into().unwrap()),
        Err(_) => SanType::DnsName(san.try_into().unwrap()),
    }];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}
