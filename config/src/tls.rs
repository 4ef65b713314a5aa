//! `listener.tls`, one table or several, and the listener's other keys about TLS.

use crate::key::{Located, Place};
use crate::model::{Certificate, Tls, TlsVersion};
use crate::reader::Reader;
use crate::values::{choice, file};

const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

/// What a listener says about TLS, as far as it is valid.
pub(crate) struct TlsSection {
    /// Each with its table's place. Outer `None`: something there is no table. None at all: plain text.
    pub(crate) certificates: Option<Vec<Option<Located<Certificate>>>>,
    /// `Some(None)`: left out.
    min_version: Option<Option<Located<TlsVersion>>>,
}

impl TlsSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let certificates = table.one_or_more_tables("tls", read_certificate);
        let min_version = table.read("min_version", choice(VERSIONS)).optional();
        let plain = certificates.as_ref().is_some_and(Vec::is_empty);
        if let Some(Some(version)) = &min_version
            && plain
        {
            table.sink().report(&version.place, "has no effect without tls");
        }
        Self { certificates, min_version }
    }

    /// `Some(None)`: plain text.
    pub(crate) fn into_tls(self) -> Option<Option<Tls>> {
        let certificates = self.certificates?.into_iter().map(|certificate| Some(certificate?.value));
        let certificates: Vec<_> = certificates.collect::<Option<_>>()?;
        let min_version = self.min_version?.map_or(TlsVersion::Tls12, |version| version.value);
        Some((!certificates.is_empty()).then_some(Tls { certificates, min_version }))
    }
}

fn read_certificate(table: &mut Reader<'_>) -> Option<Located<Certificate>> {
    let place: Place = table.place().clone();
    // Both are read before either's failure ends this function.
    let certificate = table.read("certificate", file).required();
    let key = table.read("key", file).required();
    Some(Located { value: Certificate { certificate: certificate?.value, key: key?.value }, place })
}
