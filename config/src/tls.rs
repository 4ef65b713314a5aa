//! `listener.tls`, one table or several, and the listener's other keys about TLS.

use std::path::PathBuf;

use crate::error::Sink;
use crate::hsts;
use crate::key::{Located, Place};
use crate::model::{Certificate, ClientAuth, Hsts, Tls, TlsVersion};
use crate::reader::Reader;
use crate::values::{choice, file};

const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

const CLIENT_AUTH: &[(&str, bool)] = &[("required", true), ("optional", false)];

/// What a listener says about TLS, as far as it is valid.
pub(crate) struct TlsSection {
    /// Each with its table's place. Outer `None`: something there is no table. None at all: plain text.
    pub(crate) certificates: Option<Vec<Option<Located<Certificate>>>>,
    /// `Some(None)`: left out.
    min_version: Option<Option<Located<TlsVersion>>>,
    pub(crate) client_ca: Option<Option<Located<PathBuf>>>,
    /// `true`: clients without a certificate are refused.
    client_auth: Option<Option<Located<bool>>>,
    hsts: Option<Option<Located<Hsts>>>,
}

impl TlsSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let certificates = table.one_or_more_tables("tls", read_certificate);
        let min_version = table.read("min_version", choice(VERSIONS)).optional();
        let client_ca = table.read("client_ca", file).optional();
        let client_auth = table.read("client_auth", choice(CLIENT_AUTH)).optional();
        let hsts = hsts::read(table);
        let section = Self { certificates, min_version, client_ca, client_auth, hsts };
        section.report_idle(table.sink());
        section
    }

    /// Keys that change nothing, because one is missing that they belong to.
    fn report_idle(&self, sink: &Sink) {
        let report = |place: Option<&Place>, without: &str| {
            if let Some(place) = place {
                sink.report(place, format!("has no effect without {without}"));
            }
        };
        let client_auth = self.client_auth.iter().flatten().map(|auth| &auth.place).next();
        if self.certificates.as_ref().is_some_and(Vec::is_empty) {
            report(self.min_version.iter().flatten().map(|version| &version.place).next(), "tls");
            report(self.client_ca.iter().flatten().map(|ca| &ca.place).next(), "tls");
            report(self.hsts.iter().flatten().map(|hsts| &hsts.place).next(), "tls");
        }
        if matches!(self.client_ca, Some(None)) {
            report(client_auth, "client_ca");
        }
    }

    /// `Some(None)`: plain text.
    pub(crate) fn into_tls(self) -> Option<Option<Tls>> {
        let certificates = self.certificates?.into_iter().map(|certificate| Some(certificate?.value));
        let certificates: Vec<_> = certificates.collect::<Option<_>>()?;
        let min_version = self.min_version?.map_or(TlsVersion::Tls12, |version| version.value);
        let required = self.client_auth?.is_none_or(|required| required.value);
        let client_auth = self.client_ca?.map(|ca| ClientAuth { ca: ca.value, required });
        let hsts = self.hsts?.map(|hsts| hsts.value);
        Some((!certificates.is_empty()).then_some(Tls { certificates, min_version, client_auth, hsts }))
    }
}

fn read_certificate(table: &mut Reader<'_>) -> Option<Located<Certificate>> {
    let place: Place = table.place().clone();
    // Both are read before either's failure ends this function.
    let certificate = table.read("certificate", file).required();
    let key = table.read("key", file).required();
    Some(Located { value: Certificate { certificate: certificate?.value, key: key?.value }, place })
}
