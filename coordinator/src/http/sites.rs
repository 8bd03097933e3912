//! The caller's own site; and, for operators, all sites and their keys.

use std::collections::BTreeSet;

use aide::transform::TransformOperation;
use axum::{
    Json as Answer,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hiresmed_protocol::SiteId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    caller::{Operator, Reader},
    extract::{Json, Path},
    problem::{Fault, Problem, problems},
    quota::Used,
};
use crate::sites::{
    KeyRecord, Quotas, Role, Site, SiteSettings,
    key::{self, KeyId},
};

/// The caller's own site.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OwnSite {
    /// The site.
    pub site: SiteId,
    /// What it may use at a time.
    pub quotas: Quotas,
    /// What it uses now.
    pub used: Used,
}

/// All sites.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SiteList {
    /// Sites by id.
    pub items: Vec<Site>,
}

/// An API key without its secret.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ApiKey {
    /// The key's id: its middle part.
    pub id: KeyId,
    /// What it allows.
    pub roles: BTreeSet<Role>,
    /// When it was made, UTC, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// Since when it is refused, UTC, RFC 3339; none where it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub revoked_at: Option<String>,
}

/// A key that was made now.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NewApiKey {
    /// The key as it is sent: `hmk_{id}_{secret}`. It is shown this once and cannot be had again.
    #[schemars(regex(pattern = "^hmk_[0-9a-f]{16}_[0-9a-f]{64}$"))]
    pub secret: String,
    /// What is kept of it.
    pub key: ApiKey,
}

/// All keys of a site.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ApiKeyList {
    /// Keys by id, the revoked ones too.
    pub items: Vec<ApiKey>,
}

/// What a new key allows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyRequest {
    /// At least one role.
    #[schemars(length(min = 1), extend("example" = ["submit", "read"]))]
    pub roles: Vec<Role>,
}

/// The name of a site in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SitePath {
    /// The site's id.
    pub site: SiteId,
}

/// The name of a key in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct KeyPath {
    /// The site's id.
    pub site: SiteId,
    /// The key's id.
    pub key: KeyId,
}

impl From<KeyRecord> for ApiKey {
    fn from(record: KeyRecord) -> Self {
        let KeyRecord { key, roles, created_at, revoked_at, .. } = record;
        Self { id: key, roles, created_at, revoked_at }
    }
}

impl Api {
    async fn site(&self, id: &SiteId) -> Result<Site, Problem> {
        let site = self.sites.get(id).await?;
        site.ok_or_else(|| Problem::not_found(format!("there is no site `{id}`; PUT creates it")))
    }
}

/// `GET /v1/site`.
pub async fn own(State(api): State<Api>, caller: Reader) -> Result<Answer<OwnSite>, Problem> {
    let quotas = api.sites.get(&caller.site).await?.map(|site| site.quotas).unwrap_or_default();
    let used = api.usage.of(&caller.site).await?;
    Ok(Answer(OwnSite { site: caller.site, quotas, used }))
}

/// Documents [`own`].
pub fn describe_own(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("get_own_site").tag("site").summary("The caller's site: its quotas and what it uses of them")
}

/// `GET /v1/sites`.
pub async fn list(State(api): State<Api>, _: Operator) -> Result<Answer<SiteList>, Problem> {
    let mut items = Vec::new();
    for id in api.sites.list().await? {
        items.extend(api.sites.get(&id).await?);
    }
    Ok(Answer(SiteList { items }))
}

/// Documents [`list`].
pub fn describe_list(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("list_sites").tag("operation").summary("List all sites")
}

/// `GET /v1/sites/{site}`.
pub async fn get(State(api): State<Api>, _: Operator, Path(path): Path<SitePath>) -> Result<Answer<Site>, Problem> {
    Ok(Answer(api.site(&path.site).await?))
}

/// Documents [`get`].
pub fn describe_get(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("get_site").tag("operation").summary("A site's weight and quotas")
}

/// `PUT /v1/sites/{site}`.
pub async fn put(
    State(api): State<Api>,
    _: Operator,
    Path(path): Path<SitePath>,
    Json(settings): Json<SiteSettings>,
) -> Result<Response, Problem> {
    let (site, new) = api.sites.put(&path.site, settings).await?;
    let code = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((code, Answer(site)).into_response())
}

/// Documents [`put`].
pub fn describe_put(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("put_site")
        .tag("operation")
        .summary("Create a site, or replace its weight and quotas")
        .description("What is left out gets its default. New quotas hold from the next submission or upload on.")
        .response_with::<201, Answer<Site>, _>(|response| response.description("Created."))
        .response_with::<200, Answer<Site>, _>(|response| response.description("Replaced."))
}

/// `GET /v1/sites/{site}/keys`.
pub async fn keys(
    State(api): State<Api>,
    _: Operator,
    Path(path): Path<SitePath>,
) -> Result<Answer<ApiKeyList>, Problem> {
    api.site(&path.site).await?;
    let records = api.sites.keys(&path.site).await?;
    Ok(Answer(ApiKeyList { items: records.into_iter().map(ApiKey::from).collect() }))
}

/// Documents [`keys`].
pub fn describe_keys(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("list_api_keys").tag("operation").summary("List a site's API keys, without their secrets")
}

/// `POST /v1/sites/{site}/keys`.
pub async fn create_key(
    State(api): State<Api>,
    _: Operator,
    Path(path): Path<SitePath>,
    Json(wanted): Json<ApiKeyRequest>,
) -> Result<Response, Problem> {
    api.site(&path.site).await?;
    if wanted.roles.is_empty() {
        let fault = Fault {
            path: "roles".to_owned(),
            value: "[]".to_owned(),
            allowed: "must hold one or more of `submit`, `read` and `operate`".to_owned(),
        };
        return Err(Problem::faults("a key without roles allows nothing", vec![fault]));
    }
    let (record, secret) = api.sites.create_key(&path.site, wanted.roles.into_iter().collect()).await?;
    let secret = key::text(&record.key, &secret);
    Ok((StatusCode::CREATED, Answer(NewApiKey { secret, key: record.into() })).into_response())
}

/// Documents [`create_key`].
pub fn describe_create_key(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("create_api_key")
        .tag("operation")
        .summary("Make an API key for a site")
        .description(
            "A site may have any number of valid keys: to rotate one, make another, hand it over, and revoke the first.",
        )
        .response_with::<201, Answer<NewApiKey>, _>(|response| response.description("The key, shown this once."))
}

/// `DELETE /v1/sites/{site}/keys/{key}`.
pub async fn revoke(State(api): State<Api>, _: Operator, Path(path): Path<KeyPath>) -> Result<Answer<ApiKey>, Problem> {
    match api.sites.revoke(&path.site, &path.key).await? {
        Some(record) => Ok(Answer(record.into())),
        None => Err(Problem::not_found("the site has no such key; list its keys")),
    }
}

/// Documents [`revoke`].
pub fn describe_revoke(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("revoke_api_key")
        .tag("operation")
        .summary("Revoke an API key")
        .description("The key is refused from the next call on. Its record stays. Revoking once more is harmless.")
        .with(problems(&[]))
}
