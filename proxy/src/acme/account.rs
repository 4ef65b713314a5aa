//! weir's account at a CA: made once, then read from its file.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, Error as AcmeError, ExternalAccountKey, NewAccount};
use weir_config::model::{Acme, ExternalAccount};

use super::client::Client;
use super::store::{Store, StoreError};

/// The file's name.
const FILE: &str = "account.json";
/// Longest key of an external account, bytes of its file.
const LONGEST_KEY: u64 = 4096;

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccountError {
    #[error(transparent)]
    Acme(#[from] AcmeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} is no account", .path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("write an account down")]
    Serialize(#[source] serde_json::Error),
    #[error("read {}", .path.display())]
    ReadKey { path: PathBuf, source: std::io::Error },
    #[error("{} is no key in base64url", .path.display())]
    Key { path: PathBuf, source: base64::DecodeError },
}

/// The account that is kept in `store`, or a new one.
///
/// # Errors
/// If there is none and the CA makes none, or it cannot be kept. One that is there and cannot be read is left alone.
pub(super) async fn account(acme: &Acme, store: &Store, client: &Client) -> Result<Account, AccountError> {
    let builder = Account::builder_with_http(Box::new(client.clone()));
    if let Some(bytes) = store.read(FILE)? {
        let credentials: AccountCredentials = serde_json::from_slice(&bytes)
            .map_err(|source| AccountError::Damaged { path: store.path(FILE), source })?;
        return Ok(builder.from_credentials(credentials).await?);
    }
    let contact: Vec<_> = acme.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = acme.external_account.as_ref().map(external_key).transpose()?;
    let (account, credentials) = builder.create(&new, acme.directory.clone(), external.as_ref()).await?;
    let text = serde_json::to_vec(&credentials).map_err(AccountError::Serialize)?;
    store.write(&store.path(FILE), &text)?;
    tracing::info!(directory = acme.directory, id = account.id(), "account made");
    Ok(account)
}

fn external_key(external: &ExternalAccount) -> Result<ExternalAccountKey, AccountError> {
    let read = || {
        let mut text = String::new();
        std::io::Read::read_to_string(
            &mut std::io::Read::take(std::fs::File::open(&external.key)?, LONGEST_KEY),
            &mut text,
        )?;
        Ok(text)
    };
    let text = read().map_err(|source| AccountError::ReadKey { path: external.key.clone(), source })?;
    let key = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
    let key = key.map_err(|source| AccountError::Key { path: external.key.clone(), source })?;
    Ok(ExternalAccountKey::new(external.kid.clone(), &key))
}
