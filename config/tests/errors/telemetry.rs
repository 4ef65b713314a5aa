//! Mistakes in what is said about spans.

use crate::{LISTENER, check};

const ENDPOINT: &str = "endpoint = 'http://127.0.0.1:4318/v1/traces'\n";

#[test]
fn otlp() {
    let no_url = |url: &str| {
        format!(r#"telemetry.otlp.endpoint: "{url}" is no URL such as "http://127.0.0.1:4318/v1/traces""#)
    };
    check(
        &format!("{LISTENER}[telemetry.otlp]\n"),
        &[
            [ENDPOINT, ""],
            ["endpoint = 'https://collector.example'", ""],
            [
                &format!(
                    "{ENDPOINT}sample = 0.001\ntimeout = '1s'\nca = 'ca.pem'\nservice_name = 'edge'\n\
                     headers = {{ authorization = 'Bearer x' }}"
                ),
                "",
            ],
            ["", "telemetry.otlp.endpoint: required key is missing"],
            ["endpoint = 'collector:4318'", &no_url("collector:4318")],
            ["endpoint = '/v1/traces'", &no_url("/v1/traces")],
            ["endpoint = 'grpc://collector'", &no_url("grpc://collector")],
            ["endpoint = 'http://u:p@collector'", &no_url("http://u:p@collector")],
            [&format!("{ENDPOINT}sample = 0"), "telemetry.otlp.sample: must be from 0.001 to 1, is 0"],
            [&format!("{ENDPOINT}sample = 1.5"), "telemetry.otlp.sample: must be from 0.001 to 1, is 1.5"],
            [&format!("{ENDPOINT}timeout = '0s'"), "telemetry.otlp.timeout: must be longer than zero"],
            [&format!("{ENDPOINT}ca = ''"), "telemetry.otlp.ca: must not be empty"],
            [&format!("{ENDPOINT}service_name = ''"), "telemetry.otlp.service_name: must not be empty"],
            [
                &format!("{ENDPOINT}headers = {{ host = 'x' }}"),
                "telemetry.otlp.headers.host: frames messages or is for one hop only, and is weir's to set",
            ],
            [
                &format!("{ENDPOINT}headers = {{ content-type = 'x' }}"),
                "telemetry.otlp.headers.content-type: is weir's to set: JSON it is",
            ],
            [
                &format!("{ENDPOINT}endpiont = 'x'"),
                r#"telemetry.otlp.endpiont: unknown key, did you mean "endpoint"?"#,
            ],
        ],
    );
    check(
        LISTENER,
        &[
            ["[telemetry]", ""],
            ["[telemetry]\notlp = true", "telemetry.otlp: expected a table, found a boolean"],
            ["[telemetry.jaeger]", "telemetry.jaeger: unknown key"],
        ],
    );
}
