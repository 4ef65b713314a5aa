use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};

use super::*;

/// `n` of an RSA key, whose other half is gone, and signatures by it of `{"alg":...}` and [`CLAIMS`]. Made by OpenSSL.
const RSA: &str = "7n-usg0DboracfHOHWpa0r3P91ZojDqK21Wd9HDrHws_tnsk7tO14mwt3_Oo2M-a0Wc2ZsZphOTRUmGLOWJMXIkYoOBUxsJpWSbEqiZOUOgeM1hniaiaJj4HX0hTgivX3EM6i2gHjuFJBDoBBgrRCCQgbRR6naHdu9ue52UxbF36vBpkuI5_3rOqK7amSJjBeBN_wr4RRI27L8cSXoh_MvNiLEfaataCqqCOqL08vGmS3HgFtCNIQX3JofUOVm7L7tkZhFjenxGOl7nj_O_Z3Cm8gFwE7et7YGkUYQWja0Un5GZv9QbRA-pUkxJ5A-aFonB_ddnI05dSzht2stUKFw";
const RSA_SIGNATURES: [(&str, &str); 6] = [
    (
        "RS256",
        "A_nVg28vAxJU_1PFLpCOSN7UGV7uRL0zgMrGwr2i3L1cCrApvpBi6TZunxh_LEoQMUG1SYIHvmCYrjxWO5Ap59orCzgftRm2W5oTWlnEqsQfCb4DKkIBmUM5SIjPLTsAsrQyibe-8z2RfZQXUnmcN4JIqvuluWuhc8ky8j5hhp9G6LUHuuI6iKN5QbNKPVinkZwGONPes6RPuM_jsMNFlefgbU253etWbavNm-AC9AhRqQweyNxQLTP9zi-YG0xKKh6TUPgt39WiMt7GwG8P0l6f80bBXUK5FKAz5mjk_efSFUQPxha5LyQWjjwLZr93f2yd7Dt48qML8g3qPBxM7g",
    ),
    (
        "RS384",
        "hr6_Q97MSpQmFOcKe83JYXPPgCeqaGAihK4OfdIDVCTXfWEoS0MI6fmCfXSrOGzuXFkE3AmKcS8KSi0WrSnGjMnrHgpdV5A_ZWbimAIvYvUXFYdtQ5Kv1iUsCCndtYkWKfnWaR73ePUtL0qbyIKQE2R3fqNh0lP8rBesug647NnI5Nd6WH59HBKhSxOiO6pNKRG07fNGVQExBO4crxXIv9wWJBIcJwH_0sb8ET-BFgiuLxtIQTVu10_dnrG8C-nFDrjs8M5pd30ITqxDtX3wa7UpoE_5r9KxExqsb0rfAcqKyxykYaR8x5JpbhdF2vZVtwfp2Tz49EsZk1PCpphWyQ",
    ),
    (
        "RS512",
        "5BnL3ZBP1_tiSG9Wp3TDy6ELfiPubKQzvimLmMPemUb7A665GJVyHfZ99a0Q1gmBRDms3ZEMneIWqOgwXJUmx9KF-6mx--_qIAvUdDpW0wAT0MSTzR9bzVVtVHS_R43B6oBo9126bFjXYaq1P9Q3K0qe0rWkwqHHmFxbgsZeifLwvJ5-3tb54wqXw_-C-UHcAtGvUcjKAvg1ZBd4pB6R4qZD5KKIeY_tvdJTAg-raZE-gZE-uT3pwl2QVm2PpDwxp6I39IWazU81NSt3mtp833lKbe1T-vXq-ScwLFZXQhHpWUw51wrygytbLRZLGTr3rgH2FKUia3ldJdKCUX_cIg",
    ),
    (
        "PS256",
        "HqehpORFSt_hWNoxJsCWrB7EtMG0U6_hb7HxMsNKVKyH0j-_XDewqCXHJY-tqkg5plgVoQ0UTNVJ851emLbWtHge-PG0LnHDqRfbef2iQXQ0y9zqnlpAeM5bJn2ElhuRfKuWpRMjCkAXrMJyXflIP7VG3a2ucIVARypRDOEPRXZUwFmyQfHcGghnt_XKrjaBfmrlLzYioOpufzXfNWRrV7Ti-laEIgXPjocYK4MgfLUWVaFyfPMLQszqAVX8mZc4xlRCUhzNB-hwkjOXs2lBDM1gojTj_rbvQm9BUX7-iQ7tJ8AId5ph-iQjeE1wzDVnMBkHfzK8ab4Wvy0jCGiRhw",
    ),
    (
        "PS384",
        "T1gJZjOK4JoFbIRF15HV0zt6CJ2FHuIuA298lfVQKjxtDlhpQg1Deq7oV9NleW0i5BRBYbScnKRIEYYl_6GczJrPhfVRwiJLvZ4QLmrrGo25yEgVl3Hl-EnFwdffS7sEkDJF0Ih9m1kYnSeTmXoCg4GEQOljM4Uu9EVDKPn0566aWMwXiSXBM4r1G-XDkGIG-obRlcNaC7HVbB67z05K1h-4LcQ8SBgYQkq9ojXqlbyr8ws2Q9FGX2VJQR-b0X-7uYjTDNV7HVRqH5A0EJgOarlsIlHlncDFgo9Rs-wRSUTOS6RarOdCv2Imi6NiZ9JKfHvoyHW_7a81mvU_G-woyw",
    ),
    (
        "PS512",
        "aYaAfnJYTL48CuhkTx_rLLjQFhiX3kPjTxB3GlOBIFiKnhCteLyDXHBopwbYvOjFEyFvV87jN7VuZlV7wYN7B1hMMEHUnznMG_8oosjO9mbTTfyQOBN0Xolz1BB0aAbWFIVX9dQGa_z_VvCL5Y0EqCGAkGiB3HhXBTa0OsgLzf4UhycTBkIt79GlRoQQVCUwejoxAjSGlBPYfxFNkyCIsb9qOaFxengEONUMADLP4KU4LkKMstlnn3DXoi8WZXMPUH6BLHpiIEWjgKTL9M0ZqgnuG1oq3zXHARGUXLSMM8aAxMofykq7BJ0j9Bk1V2wjnyBUC2icKEHAO9k7-8qjGw",
    ),
];

fn named(name: &str) -> Algorithm {
    Algorithm::named(name).unwrap()
}

#[test]
fn rsa_signatures_by_another_hand_are_right() {
    let rsa = format!(r#"{{"kty":"RSA","n":"{RSA}","e":"AQAB"}}"#);
    let all: Vec<_> = RSA_SIGNATURES.iter().map(|(name, _)| named(name)).collect();
    let jwt = Site::new(&[&rsa], &all).jwt();
    for (index, (name, signature)) in RSA_SIGNATURES.iter().enumerate() {
        let shell = shell(&format!(r#"{{"alg":"{name}"}}"#), CLAIMS);
        assert_eq!(admit(&jwt, format!("{shell}.{signature}")), Ok("ada".to_owned()), "{name}");
        // By another algorithm.
        let (_, other) = RSA_SIGNATURES[(index + 1) % 6];
        assert_eq!(admit(&jwt, format!("{shell}.{other}")), Err(Flaw::Signature), "{name}");
        // The route does not take it.
        let others: Vec<_> = all.iter().copied().filter(|one| *one != named(name)).collect();
        let strict = Site::new(&[&rsa], &others).jwt();
        assert_eq!(admit(&strict, format!("{shell}.{signature}")), Err(Flaw::Algorithm), "{name}");
    }
}

#[test]
fn signatures_of_each_other_kind_are_right() {
    let random = SystemRandom::new();
    let mut keys = Vec::new();
    let mut tokens = Vec::new();
    for (name, curve, scheme) in [
        ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
    ] {
        let document = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(scheme, document.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
        keys.push(format!(r#"{{"kty":"EC","crv":"{curve}","x":"{}","y":"{}"}}"#, base64(x), base64(y)));
        let shell = shell(&format!(r#"{{"alg":"{name}"}}"#), CLAIMS);
        let signature = base64(pair.sign(&random, shell.as_bytes()).unwrap());
        tokens.push((name, shell, signature));
    }
    let pair = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap();
    keys.push(format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, base64(pair.public_key())));
    let signed = shell(r#"{"alg":"EdDSA"}"#, CLAIMS);
    tokens.push(("EdDSA", signed.clone(), base64(pair.sign(signed.as_bytes()))));
    keys.push(secret("s"));
    for (name, hash) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        let shell = shell(&format!(r#"{{"alg":"{name}"}}"#), CLAIMS);
        let signature = base64(hmac::sign(&hmac::Key::new(hash, &SECRET), shell.as_bytes()));
        tokens.push((name, shell, signature));
    }
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let all: Vec<_> = tokens.iter().map(|(name, ..)| named(name)).collect();
    let jwt = Site::new(&keys, &all).jwt();
    for (name, shell, signature) in &tokens {
        assert_eq!(admit(&jwt, format!("{shell}.{signature}")), Ok("ada".to_owned()), "{name}");
        let forged = shell.replace(&base64(CLAIMS), &base64(CLAIMS.replace("ada", "eve")));
        assert_ne!(forged, *shell);
        assert_eq!(admit(&jwt, format!("{forged}.{signature}")), Err(Flaw::Signature), "{name}");
        assert_eq!(admit(&jwt, format!("{shell}.")), Err(Flaw::Signature), "{name}");
    }
}

#[test]
fn what_a_token_says_of_its_key_is_not_believed() {
    let rsa = format!(r#"{{"kty":"RSA","kid":"r","n":"{RSA}","e":"AQAB"}}"#);
    let jwt = Site::new(&[&rsa, &secret("s")], &[Algorithm::Rs256, Algorithm::Hs256]).jwt();
    let header = |header: &str| admit(&jwt, token(header, CLAIMS));
    assert_eq!(header(r#"{"alg":"HS256","kid":"s","typ":"JWT"}"#), Ok("ada".to_owned()));
    for (text, flaw) in [
        (r#"{"alg":"none"}"#, Flaw::Algorithm),
        (r#"{"alg":"None"}"#, Flaw::Algorithm),
        (r#"{"alg":"hs256"}"#, Flaw::Algorithm),
        (r#"{"alg":["HS256"]}"#, Flaw::Algorithm),
        (r#"{"alg":"HS384"}"#, Flaw::Algorithm),
        (r#"{"alg":"ES256"}"#, Flaw::Algorithm),
        (r#"{}"#, Flaw::Algorithm),
        (r#"{"alg":"HS256","kid":"r"}"#, Flaw::NoKey),
        (r#"{"alg":"RS256","kid":"s"}"#, Flaw::NoKey),
        (r#"{"alg":"RS256"}"#, Flaw::Signature),
        (r#"{"alg":"HS256","kid":"../../dev/null"}"#, Flaw::NoKey),
        (r#"{"alg":"HS256","kid":1}"#, Flaw::Malformed),
        (r#"{"alg":"HS256","kid":null}"#, Flaw::Malformed),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, Flaw::Critical),
        (r#"{"alg":"HS256","crit":null}"#, Flaw::Critical),
        (r#"{"alg":"none","alg":"HS256"}"#, Flaw::Malformed),
        (r#"["HS256"]"#, Flaw::Malformed),
    ] {
        assert_eq!(header(text), Err(flaw), "{text}");
    }
    // Without any signature.
    assert_eq!(admit(&jwt, shell(r#"{"alg":"none"}"#, CLAIMS) + "."), Err(Flaw::Algorithm));
    // Whoever knows a public key has no secret by that, whatever form he hashes with.
    for secret in [URL_SAFE_NO_PAD.decode(RSA).unwrap(), RSA.into(), rsa.clone().into_bytes()] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        for (kid, flaw) in [(r#","kid":"r""#, Flaw::NoKey), ("", Flaw::Signature)] {
            let shell = shell(&format!(r#"{{"alg":"HS256"{kid}}}"#), CLAIMS);
            let token = format!("{shell}.{}", base64(hmac::sign(&key, shell.as_bytes())));
            assert_eq!(admit(&jwt, token), Err(flaw));
        }
    }
    // A key that it brings itself.
    let own = [9; 32];
    let shell = shell(
        &format!(
            r#"{{"alg":"HS256","jwk":{{"kty":"oct","k":"{}"}},"jku":"http://192.0.2.1/"}}"#,
            base64(own)
        ),
        CLAIMS,
    );
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &own), shell.as_bytes());
    assert_eq!(admit(&jwt, format!("{shell}.{}", base64(signature))), Err(Flaw::Signature));
}
