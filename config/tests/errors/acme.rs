//! Mistakes in what is said about certificates that are to be obtained.

use crate::{LISTENER, check};

const CA: &str = "directory = 'https://ca.example/dir'\naccept_terms = true\nstate = 'acme'\n";

#[test]
fn who_issues_them() {
    let context = format!("{LISTENER}[acme]\n");
    check(
        &context,
        &[
            [CA, ""],
            [&format!("{CA}challenge = 'tls-alpn-01'\ncontact = ['mailto:a@b.example']\nca = 'ca.pem'"), ""],
            [&CA.replace("https://ca.example", "http://[::1]:14000"), ""],
            [&CA.replace("https://ca.example", "http://localhost"), ""],
            [
                "",
                "acme.directory: required key is missing\nacme.accept_terms: required key is missing\nacme.state: required key is missing",
            ],
            [
                &CA.replace("true", "false"),
                "acme.accept_terms: must be true: the CA's terms of service have to be agreed to",
            ],
            [
                &CA.replace("https:", "http:"),
                "acme.directory: must be https: http is only for a CA on this machine",
            ],
            [
                &CA.replace("https://ca.example/dir", "ca.example"),
                r#"acme.directory: "ca.example" is no URL such as "https://acme-v02.api.letsencrypt.org/directory""#,
            ],
            [
                &CA.replace("https://", "https://u:p@"),
                r#"acme.directory: "https://u:p@ca.example/dir" is no URL such as "https://acme-v02.api.letsencrypt.org/directory""#,
            ],
            [
                &CA.replace("dir'", &format!("{}'", "d/".repeat(99))),
                "acme.directory: is too long to name a directory",
            ],
            [
                &format!("{CA}contact = ['ops', 'mailto:a@b?c']"),
                "acme.contact[0]: \"ops\" is no address such as \"mailto:ops@example.com\"\n\
                 acme.contact[1]: \"mailto:a@b?c\" is no address such as \"mailto:ops@example.com\"",
            ],
            [
                &format!("{CA}challenge = 'dns-01'"),
                r#"acme.challenge: must be "http-01" or "tls-alpn-01", is "dns-01""#,
            ],
            [&format!("{CA}eab_kid = 'k'"), "acme.eab_kid: has no effect without eab_key_file"],
            [&format!("{CA}eab_key_file = 'k'"), "acme.eab_key_file: has no effect without eab_kid"],
            [
                &format!("{CA}eab_kid = 'k k'\neab_key_file = 'k'"),
                "acme.eab_kid: must be printable ASCII without spaces",
            ],
        ],
    );
}

#[test]
fn for_which_names() {
    let context = format!("{LISTENER}[acme]\n{CA}[[listener]]\naddress = '127.0.0.1:8443'\n");
    let no_name = |name: &str| {
        format!(r#"listener[1].tls.acme.names[0]: {name:?} is no host name such as "www.example.com""#)
    };
    for name in ["", ".", "a..b", "-a.b", "a_b.c", "10.0.0.1", "::1", "a b", "a/../b", &"a.".repeat(130)] {
        check(&context, &[[&format!("tls = {{ acme = {{ names = ['{name}'] }} }}"), &no_name(name)]]);
    }
    check(
        &context,
        &[
            ["tls = { acme = { names = ['a.example', 'WWW.a.example'] } }", ""],
            ["tls = { acme = {} }", "listener[1].tls.acme.names: required key is missing"],
            [
                "tls = { acme = { names = [] } }",
                "listener[1].tls.acme.names: must not be empty: a certificate is for at least one name",
            ],
            ["tls = { acme = { names = ['a', 'A'] } }", r#"listener[1].tls.acme.names: "a" is there twice"#],
            [
                "tls = { acme = { names = ['*.a.example'] } }",
                r#"listener[1].tls.acme.names[0]: "*.a.example" is a wildcard, for which CAs want to see DNS records; weir has none"#,
            ],
            [
                "tls = { acme = { names = ['a'] }, key = 'k' }",
                "listener[1].tls.key: is for a certificate from files, and this one is obtained",
            ],
            [
                "tls = [{ acme = { names = ['a', 'b'] } }, { acme = { names = ['a'] } }]",
                "listener[1].tls[1].acme.names: begins as listener[1].tls[0].acme.names does, but has other names",
            ],
        ],
    );
}

#[test]
fn without_what_it_takes() {
    let obtained = "tls = { acme = { names = ['a'] } }";
    check(
        "",
        &[
            [
                &format!("{LISTENER}{obtained}"),
                "listener[0].tls.acme.names: needs [acme], which says who issues certificates",
            ],
            [
                &format!("{LISTENER}{obtained}\n[acme]\n{CA}"),
                "listener[0].tls.acme.names: http-01 needs a [[listener]] without tls, which the CA reaches at port 80",
            ],
            [&format!("{LISTENER}{obtained}\n[acme]\nchallenge = 'tls-alpn-01'\n{CA}"), ""],
            [
                &format!(
                    "{LISTENER}client_ca = 'ca.pem'\n{obtained}\n[acme]\nchallenge = 'tls-alpn-01'\n{CA}"
                ),
                "listener[0].tls.acme.names: tls-alpn-01 does not work where clients must have certificates, the CA has none",
            ],
            [
                &format!(
                    "{LISTENER}client_ca = 'ca.pem'\nclient_auth = 'optional'\n{obtained}\n[acme]\nchallenge = 'tls-alpn-01'\n{CA}"
                ),
                "",
            ],
        ],
    );
}
