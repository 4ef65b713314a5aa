//! One order, from the names to the certificate (RFC 8555 §7.4).
//!
//! ```text
//!  order ─> an authorization for each name ─> challenge presented, CA told ─> ready ─> finalized ─> certificate
//!               └─ valid already: nothing to show                 └─ invalid: what the CA says of it
//! ```

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, ChallengeType, Error as AcmeError, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use weir_config::model::AcmeChallenge;

use super::challenges::{Challenges, Presented};

/// How often, and how long in all, the CA is asked whether it is done: twice as rarely each time.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(120));
/// Longest token, characters; CAs use about 43.
const LONGEST_TOKEN: usize = 256;

/// Why a CA has issued no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error(transparent)]
    Acme(#[from] AcmeError),
    #[error("the ca wants to see something of a name that was not ordered")]
    OtherName,
    #[error("the ca offers no {0:?} for {1}")]
    NoChallenge(ChallengeType, String),
    #[error("the ca's token for {0} makes no sense")]
    Token(String),
    #[error("the authorization for {0} is {1:?}")]
    Authorization(String, AuthorizationStatus),
    #[error("the ca was not convinced")]
    Refused,
    #[error("make a key or a certificate")]
    Make(#[from] rcgen::Error),
    #[error("use a certificate for tls-alpn-01")]
    Use(#[from] rustls::Error),
}

/// Obtains a certificate for `names`: the key and the chain, in PEM.
///
/// # Errors
/// If the CA does not issue it. Nothing is pending then any more.
pub(super) async fn obtain(
    account: &Account,
    names: &[String],
    challenge: AcmeChallenge,
    challenges: &Challenges,
) -> Result<String, OrderError> {
    let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns(name.clone())).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    // Held until the CA has looked.
    let mut presented = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        if presented.len() >= names.len() {
            return Err(OrderError::OtherName);
        }
        presented.push(present(authorization?, names, challenge, challenges).await?);
    }
    let ready = order.poll_ready(&POLLS).await;
    drop(presented);
    match ready {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => return Err(why_refused(&mut order).await),
        Err(error) => return Err(error.into()),
    }
    let key = KeyPair::generate()?;
    let mut request = CertificateParams::new(names)?;
    request.distinguished_name = DistinguishedName::new();
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&POLLS).await?;
    Ok(key.serialize_pem() + &chain)
}

/// Shows the CA what it wants to see of one name; nothing, if it has seen it before.
async fn present(
    mut authorization: AuthorizationHandle<'_>,
    names: &[String],
    challenge: AcmeChallenge,
    challenges: &Challenges,
) -> Result<Option<Presented>, OrderError> {
    let name = match authorization.identifier().identifier {
        Identifier::Dns(name) => names.iter().find(|known| *known == name).ok_or(OrderError::OtherName)?,
        _ => return Err(OrderError::OtherName),
    };
    match authorization.status {
        AuthorizationStatus::Valid => return Ok(None),
        AuthorizationStatus::Pending => {}
        status => return Err(OrderError::Authorization(name.clone(), status)),
    }
    let kind = match challenge {
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let no_challenge = || OrderError::NoChallenge(kind.clone(), name.clone());
    let mut offered = authorization.challenge(kind.clone()).ok_or_else(no_challenge)?;
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !(1..=LONGEST_TOKEN).contains(&offered.token.len()) || !offered.token.bytes().all(is_base64url) {
        return Err(OrderError::Token(name.clone()));
    }
    let authorization = offered.key_authorization();
    let presented = match challenge {
        AcmeChallenge::Http01 => challenges.present_file(name, &offered.token, authorization.as_str()),
        AcmeChallenge::TlsAlpn01 => {
            let certificate = challenge_certificate(name, authorization.digest().as_ref())?;
            challenges.present_certificate(name, Arc::new(certificate))
        }
    };
    offered.set_ready().await?;
    Ok(Some(presented))
}

/// RFC 8737 §3: a certificate of its own for `name` with the digest in it.
fn challenge_certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, OrderError> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    // Not held against each other: whoever does that refuses a critical extension that only CAs understand.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?))
}

/// What the CA says of the first challenge that it was not content with.
async fn why_refused(order: &mut Order) -> OrderError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await
            && let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone())
        {
            return AcmeError::Api(problem).into();
        }
    }
    OrderError::Refused
}
