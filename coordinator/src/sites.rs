//! The sites of the fleet: their weights, quotas and API keys, as documents in the store.
//!
//! A key's record lies apart from its site's (`fleet/keys/{id}.json`), so that two operators who add keys at the same
//! time do not overwrite each other, and so that one look-up answers who is calling.

pub mod key;

use std::collections::BTreeSet;

use hiresmed_protocol::{Digest, SiteId, VERSION, keys, validate::Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use self::key::{KeyId, Secret};
use crate::{Error, Ledger, clock};

/// What a site may use at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Images of all requests that are not over, made or not: at most so many.
    pub images_in_flight: u64,
    /// Requests that are not over: at most so many.
    pub open_requests: u64,
    /// Bytes of the site's inputs, exemplars and outputs in the store: no upload or request beyond so many.
    pub stored_bytes: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { images_in_flight: 100_000, open_requests: 100, stored_bytes: 1 << 40 }
    }
}

/// What an operator decides about a site.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SiteSettings {
    /// The site's share of the workers, relative to other sites that want work done: 0.01 to 100. Default 1.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub weight: f64,
    /// What it may use at a time.
    pub quotas: Quotas,
}

impl Default for SiteSettings {
    fn default() -> Self {
        Self { weight: 1.0, quotas: Quotas::default() }
    }
}

impl SiteSettings {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Refused`] with all faults.
    pub fn validate(&self) -> Result<(), Error> {
        if (0.01..=100.0).contains(&self.weight) {
            return Ok(());
        }
        let fault = Fault {
            path: "weight".to_owned(),
            value: self.weight.to_string(),
            allowed: "must be a number from 0.01 to 100".to_owned(),
        };
        Err(Error::Refused(vec![fault].into()))
    }
}

/// `sites/{site}/site.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The protocol's version: 1.
    pub version: u32,
    /// The site.
    pub site: SiteId,
    /// The site's share of the workers, relative to other sites that want work done.
    pub weight: f64,
    /// What it may use at a time.
    pub quotas: Quotas,
    /// When it was created, UTC, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Submit and cancel the site's requests, upload its inputs and exemplars.
    Submit,
    /// See the site's requests and fetch their results.
    Read,
    /// Run the fleet: sites, their keys, and the dead letters of all sites. For operators, not for sites.
    Operate,
}

impl Role {
    /// The name in documents and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Submit => "submit",
            Role::Read => "read",
            Role::Operate => "operate",
        }
    }
}

/// `fleet/keys/{id}.json`: a key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The protocol's version: 1.
    pub version: u32,
    /// The key's id: its middle part.
    pub key: KeyId,
    /// The site that it speaks for.
    pub site: SiteId,
    /// What it allows.
    pub roles: BTreeSet<Role>,
    /// SHA-256 of the secret. A plain digest is right for 256 random bits: there is nothing to guess.
    pub sha256: Digest,
    /// When it was made, UTC, RFC 3339.
    pub created_at: String,
    /// Since when it is refused, UTC, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

/// Reads and writes the documents of sites.
#[derive(Clone)]
pub struct Sites {
    ledger: Ledger,
}

impl Sites {
    /// The sites in the store of `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    /// Creates a site, or gives an existing one new settings. True where it is new.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Document`], the store's.
    pub async fn put(&self, id: &SiteId, settings: SiteSettings) -> Result<(Site, bool), Error> {
        settings.validate()?;
        let known = self.get(id).await?;
        let created_at = known.as_ref().map_or_else(clock::now, |site| site.created_at.clone());
        let SiteSettings { weight, quotas } = settings;
        let site = Site { version: VERSION, site: id.clone(), weight, quotas, created_at };
        self.ledger.write(&keys::site(id), &site).await?;
        self.ledger.create(&format!("{}{id}", keys::SITES), &VERSION).await?;
        Ok((site, known.is_none()))
    }

    /// A site, if it exists.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn get(&self, id: &SiteId) -> Result<Option<Site>, Error> {
        self.ledger.read(&keys::site(id)).await
    }

    /// Ids of all sites, sorted.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self) -> Result<Vec<SiteId>, Error> {
        let listed = self.ledger.store().list(keys::SITES).await?;
        Ok(listed.iter().filter_map(|key| key.strip_prefix(keys::SITES)?.parse().ok()).collect())
    }

    /// Makes a key. This is the only time that its secret is seen.
    ///
    /// # Errors
    /// [`Error::Randomness`], the store's.
    pub async fn create_key(&self, site: &SiteId, roles: BTreeSet<Role>) -> Result<(KeyRecord, Secret), Error> {
        let (key, secret) = key::generate()?;
        let record = KeyRecord {
            version: VERSION,
            key: key.clone(),
            site: site.clone(),
            roles,
            sha256: secret.digest(),
            created_at: clock::now(),
            revoked_at: None,
        };
        self.ledger.create(&record_key(&key), &record).await?;
        Ok((record, secret))
    }

    /// The keys of a site, the revoked ones too, sorted by id.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn keys(&self, site: &SiteId) -> Result<Vec<KeyRecord>, Error> {
        let mut records = Vec::new();
        for key in self.ledger.store().list(keys::API_KEYS).await? {
            records.extend(self.ledger.read::<KeyRecord>(&key).await?.filter(|record| record.site == *site));
        }
        Ok(records)
    }

    /// Refuses a key from now on. `None` where the site has no such key.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn revoke(&self, site: &SiteId, key: &KeyId) -> Result<Option<KeyRecord>, Error> {
        let record = self.ledger.read::<KeyRecord>(&record_key(key)).await?;
        let Some(mut record) = record.filter(|record| record.site == *site) else { return Ok(None) };
        if record.revoked_at.is_none() {
            record.revoked_at = Some(clock::now());
            self.ledger.write(&record_key(key), &record).await?;
        }
        Ok(Some(record))
    }

    /// The record of a valid key, given as `hmk_{id}_{secret}`; `None` for any other text.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn authenticate(&self, text: &str) -> Result<Option<KeyRecord>, Error> {
        let Some((id, secret)) = key::parse(text) else { return Ok(None) };
        let Some(record) = self.ledger.read::<KeyRecord>(&record_key(&id)).await? else { return Ok(None) };
        let same = bool::from(secret.digest().as_bytes().ct_eq(record.sha256.as_bytes()));
        Ok((same && record.revoked_at.is_none()).then_some(record))
    }
}

fn record_key(key: &KeyId) -> String {
    format!("{}{key}.json", keys::API_KEYS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hiresmed_services::store::Directory;

    use super::*;

    #[tokio::test]
    async fn keys_are_rotated_and_revoked_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Directory::open(folder.path()).unwrap());
        let sites = Sites::new(Ledger::new(store));
        let site: SiteId = "charite".parse().unwrap();
        let (_, new) = sites.put(&site, SiteSettings::default()).await.unwrap();
        assert!(new);
        let (first, first_secret) = sites.create_key(&site, [Role::Read].into()).await.unwrap();
        let (second, second_secret) = sites.create_key(&site, [Role::Submit].into()).await.unwrap();
        let text = |record: &KeyRecord, secret: &Secret| key::text(&record.key, secret);
        let known = sites.authenticate(&text(&first, &first_secret)).await.unwrap().unwrap();
        assert_eq!((known.site, known.roles), (site.clone(), [Role::Read].into()));
        assert_eq!(sites.authenticate(&text(&first, &second_secret)).await.unwrap(), None);
        let other: SiteId = "other".parse().unwrap();
        assert_eq!(sites.revoke(&other, &first.key).await.unwrap(), None, "another site's key");
        sites.revoke(&site, &first.key).await.unwrap().unwrap();
        assert_eq!(sites.authenticate(&text(&first, &first_secret)).await.unwrap(), None);
        assert!(sites.authenticate(&text(&second, &second_secret)).await.unwrap().is_some());
        assert_eq!(sites.keys(&site).await.unwrap().len(), 2);
        assert_eq!(sites.list().await.unwrap(), std::slice::from_ref(&site));
        let (changed, new) = sites.put(&site, SiteSettings { weight: 2.0, ..SiteSettings::default() }).await.unwrap();
        assert!(!new && changed.weight == 2.0);
        for weight in [0.0, f64::NAN, -1.0, 101.0] {
            assert!(sites.put(&site, SiteSettings { weight, ..SiteSettings::default() }).await.is_err());
        }
        let stored = std::fs::read_to_string(folder.path().join(record_key(&second.key))).unwrap();
        assert!(!stored.contains(key::text(&second.key, &second_secret).rsplit('_').next().unwrap()));
    }
}
