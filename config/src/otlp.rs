//! `[telemetry.otlp]`: where spans of requests go.

use std::path::PathBuf;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use toml::de::DeValue;

use crate::decimal::Thousandths;
use crate::fields;
use crate::key::Located;
use crate::model::Otlp;
use crate::reader::Reader;
use crate::url::url;
use crate::values::{decimal, duration, file, string};

/// One in a hundred.
const SAMPLE: Thousandths = Thousandths(10);
/// As OpenTelemetry's own exporters.
const TIMEOUT: Duration = Duration::from_secs(10);
const SERVICE_NAME: &str = "weir";

/// `[telemetry.otlp]` as far as it is valid.
pub(crate) struct OtlpSection {
    pub(crate) ca: Option<Option<Located<PathBuf>>>,
    otlp: Option<Otlp>,
}

impl OtlpSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Option<Self> {
        let endpoint = table.read("endpoint", endpoint).required();
        let sample = table.read("sample", decimal(Thousandths(1)..=Thousandths(1000))).or(SAMPLE);
        let headers = headers(table);
        let timeout = table.read("timeout", duration).or(TIMEOUT);
        let ca = table.read("ca", file).optional();
        let service_name = table.read("service_name", service_name).or(SERVICE_NAME.to_owned());
        let otlp = || {
            Some(Otlp {
                endpoint: endpoint?.value,
                sample: sample?.value,
                headers: headers?,
                timeout: timeout?.value,
                ca: ca.as_ref()?.as_ref().map(|ca| ca.value.clone()),
                service_name: service_name?.value,
            })
        };
        let otlp = otlp();
        Some(Self { ca, otlp })
    }

    /// `None`: something in it is wrong.
    pub(crate) fn into_otlp(self) -> Option<Otlp> {
        self.otlp
    }
}

/// `[telemetry]`, which has this one table. `Some(None)`: it has not.
pub(crate) fn telemetry(table: &mut Reader<'_>) -> Option<Option<OtlpSection>> {
    table.optional_table("otlp", OtlpSection::read)
}

fn endpoint(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    url(&text, "http://127.0.0.1:4318/v1/traces")?;
    Ok(text)
}

/// They may hold a password, which no log is to show.
fn headers(table: &mut Reader<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = fields::read(table, "headers")?;
    if headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
        let place = table.place().child("headers", table.place().offset);
        table.sink().report(&place.child("content-type", place.offset), "is weir's to set: JSON it is");
        return None;
    }
    headers.iter_mut().for_each(|(_, value)| value.set_sensitive(true));
    Some(headers)
}

fn service_name(value: &DeValue<'_>) -> Result<String, String> {
    match string(value)? {
        text if text.is_empty() => Err("must not be empty".to_owned()),
        text => Ok(text),
    }
}
