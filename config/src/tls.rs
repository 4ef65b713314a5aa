//! `listener.tls`, one table or several, and the listener's other keys about TLS.

use std::path::PathBuf;

use crate::acme;
use crate::error::Sink;
use crate::hsts;
use crate::key::{Located, Place};
use crate::model::{Acme, AcmeCertificate, Certificate, ClientAuth, Hsts, Tls, TlsVersion};
use crate::reader::Reader;
use crate::values::{choice, file};

const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

const CLIENT_AUTH: &[(&str, bool)] = &[("required", true), ("optional", false)];

/// What a listener says about TLS, as far as it is valid.
pub(crate) struct TlsSection {
    /// Outer `None`: something there is no table. None at all: plain text.
    pub(crate) sources: Option<Vec<Option<Source>>>,
    /// `Some(None)`: left out.
    min_version: Option<Option<Located<TlsVersion>>>,
    pub(crate) client_ca: Option<Option<Located<PathBuf>>>,
    /// `true`: clients without a certificate are refused.
    client_auth: Option<Option<Located<bool>>>,
    hsts: Option<Option<Located<Hsts>>>,
}

/// Where a certificate comes from.
pub(crate) enum Source {
    /// With the table's place.
    Files(Located<Certificate>),
    /// From a CA, for these names.
    Acme(Located<Vec<String>>),
}

impl TlsSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let sources = table.one_or_more_tables("tls", read_source);
        let min_version = table.read("min_version", choice(VERSIONS)).optional();
        let client_ca = table.read("client_ca", file).optional();
        let client_auth = table.read("client_auth", choice(CLIENT_AUTH)).optional();
        let hsts = hsts::read(table);
        let section = Self { sources, min_version, client_ca, client_auth, hsts };
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
        if self.is_plain() {
            report(self.min_version.iter().flatten().map(|version| &version.place).next(), "tls");
            report(self.client_ca.iter().flatten().map(|ca| &ca.place).next(), "tls");
            report(self.hsts.iter().flatten().map(|hsts| &hsts.place).next(), "tls");
        }
        if matches!(self.client_ca, Some(None)) {
            report(client_auth, "client_ca");
        }
    }

    /// Whether the listener is known to have no TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.sources.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether clients without a certificate are refused.
    pub(crate) fn requires_client_certificate(&self) -> bool {
        let required = self.client_auth.iter().flatten().all(|required| required.value);
        required && matches!(self.client_ca, Some(Some(_)))
    }

    fn valid_sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().flatten().flatten()
    }

    /// Those from files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Located<Certificate>> {
        self.valid_sources().filter_map(|source| match source {
            Source::Files(files) => Some(files),
            Source::Acme(_) => None,
        })
    }

    /// The names of those that are to be obtained.
    pub(crate) fn obtained(&self) -> impl Iterator<Item = &Located<Vec<String>>> {
        self.valid_sources().filter_map(|source| match source {
            Source::Files(_) => None,
            Source::Acme(names) => Some(names),
        })
    }

    /// `Some(None)`: plain text.
    pub(crate) fn into_tls(self, from: Option<&Acme>) -> Option<Option<Tls>> {
        let (mut certificates, mut acme) = (Vec::new(), Vec::new());
        for source in self.sources? {
            match source? {
                Source::Files(files) => certificates.push(files.value),
                Source::Acme(names) => {
                    let file = from?.file(names.value.first()?);
                    acme.push(AcmeCertificate { names: names.value, file });
                }
            }
        }
        let min_version = self.min_version?.map_or(TlsVersion::Tls12, |version| version.value);
        let required = self.client_auth?.is_none_or(|required| required.value);
        let client_auth = self.client_ca?.map(|ca| ClientAuth { ca: ca.value, required });
        let hsts = self.hsts?.map(|hsts| hsts.value);
        let is_plain = certificates.is_empty() && acme.is_empty();
        Some((!is_plain).then_some(Tls { certificates, acme, min_version, client_auth, hsts }))
    }
}

fn read_source(table: &mut Reader<'_>) -> Option<Source> {
    let place: Place = table.place().clone();
    match table.optional_table("acme", acme::names) {
        Some(None) => {
            // Both are read before either's failure ends this function.
            let certificate = table.read("certificate", file).required();
            let key = table.read("key", file).required();
            let value = Certificate { certificate: certificate?.value, key: key?.value };
            Some(Source::Files(Located { value, place }))
        }
        names => {
            table
                .refuse(&["certificate", "key"], "is for a certificate from files, and this one is obtained");
            Some(Source::Acme(names??))
        }
    }
}
