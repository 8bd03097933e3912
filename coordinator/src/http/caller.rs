//! Who calls, and what their key allows.

use aide::{OperationInput, generate::GenContext, openapi::Operation};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use hiresmed_protocol::SiteId;

use super::{
    Api,
    problem::{Problem, document},
};
use crate::sites::Role;

/// The name of the security scheme in the OpenAPI document.
pub const SCHEME: &str = "api_key";

/// A caller who may submit.
pub struct Submitter {
    /// The site that it speaks for.
    pub site: SiteId,
    /// Whether it may operate the fleet too.
    pub operates: bool,
}

/// A caller who may read.
pub struct Reader {
    /// The site that it speaks for.
    pub site: SiteId,
}

/// A caller who may operate the fleet.
pub struct Operator;

/// The site of the call's key, and whether it may operate, if it has `role`.
async fn authorise(parts: &Parts, api: &Api, role: Role) -> Result<(SiteId, bool), Problem> {
    let refuse = |detail| Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    let Some(key) = bearer(&parts.headers) else {
        return refuse("send `Authorization: Bearer hmk_...`; an operator makes keys");
    };
    let Some(record) = api.sites.authenticate(key).await? else {
        return refuse("the API key is unknown or revoked; ask an operator for another one");
    };
    if !record.roles.contains(&role) {
        let detail = format!("this needs a key with the role `{}`; ask an operator for one", role.as_str());
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok((record.site, record.roles.contains(&Role::Operate)))
}

/// The token of RFC 6750, section 2.1. The scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn document_key(context: &mut GenContext, operation: &mut Operation, role: Role) {
    operation.security = vec![[(SCHEME.to_owned(), Vec::new())].into_iter().collect()];
    document(context, operation, &[401, 403, 500, 503]);
    let note = format!("Needs a key with the role `{}`.", role.as_str());
    operation.description = Some(match operation.description.take() {
        Some(text) => format!("{text}\n\n{note}"),
        None => note,
    });
}

macro_rules! caller {
    ($name:ident, $role:expr, |$site:ident, $operates:ident| $made:expr) => {
        impl FromRequestParts<Api> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
                let ($site, $operates) = authorise(parts, api, $role).await?;
                Ok($made)
            }
        }

        impl OperationInput for $name {
            fn operation_input(context: &mut GenContext, operation: &mut Operation) {
                document_key(context, operation, $role);
            }
        }
    };
}

caller!(Submitter, Role::Submit, |site, operates| Submitter { site, operates });
caller!(Reader, Role::Read, |site, _operates| Reader { site });
caller!(Operator, Role::Operate, |_site, _operates| Operator);
