//! Source images, and masks of training images, by the digest of their content.

use std::time::Duration;

use aide::{
    openapi::{MediaType, ReferenceOr, RequestBody},
    transform::TransformOperation,
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use hiresmed_protocol::{Digest, keys};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    caller::Submitter,
    document::schema,
    extract::Path,
    problem::{Problem, problems},
    upload::{Bounds, verified},
};

/// Hexadecimal digits of a file's digest that name it within its source, as on a single machine.
const DIGITS: usize = 16;

/// The types of files that are taken, and the endings under which they are stored: the planner tells images by these.
const TYPES: [(&str, &str); 4] =
    [("application/dicom", ".dcm"), ("image/png", ".png"), ("image/jpeg", ".jpg"), ("application/gzip", ".nii.gz")];

/// The type of a mask, and the ending behind its image's name by which trainings know it.
const MASK_TYPES: [(&str, &str); 1] = [("image/png", ".mask.png")];

/// A file's place in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct InputPath {
    /// The folder that requests name as `inputs` or in `data`: 1 to 48 lower-case letters, digits and hyphens. It appears in
    /// records and logs: never a patient's name or number.
    pub source: SourceName,
    /// SHA-256 of the content in hexadecimal.
    pub sha256: Digest,
}

/// A mask's place in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MaskPath {
    /// The folder of the image.
    pub source: SourceName,
    /// SHA-256 of the image to which the mask belongs, in hexadecimal.
    pub sha256: Digest,
    /// SHA-256 of the mask in hexadecimal.
    pub mask: Digest,
}

/// The name of a folder of inputs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SourceName(#[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]*$"), length(min = 1, max = 48))] String);

impl SourceName {
    fn check(&self) -> Result<&str, Problem> {
        // The same alphabet as that of sites, for the same reasons: it becomes a part of keys.
        match self.0.parse::<hiresmed_protocol::SiteId>() {
            Ok(_) => Ok(&self.0),
            Err(_) => Err(Problem::not_found(
                "a source's name is 1 to 48 lower-case letters, digits and hyphens, not starting with a hyphen",
            )),
        }
    }
}

/// A file that is in the store.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct InputFile {
    /// The folder: name it as `inputs` of a request.
    pub source: String,
    /// The file's name there, made of its digest.
    pub file: String,
    /// SHA-256 of the content.
    pub sha256: Digest,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// `PUT /v1/inputs/{source}/{sha256}`.
pub async fn put(
    State(api): State<Api>,
    caller: Submitter,
    Path(path): Path<InputPath>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let source = path.source.check()?.to_owned();
    let file = format!("{}{}", &path.sha256.to_string()[..DIGITS], ending(&headers, &TYPES)?);
    store(&api, &caller, (source, file), path.sha256, &headers, body).await
}

/// `PUT /v1/inputs/{source}/{sha256}/masks/{mask}`.
pub async fn put_mask(
    State(api): State<Api>,
    caller: Submitter,
    Path(path): Path<MaskPath>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let source = path.source.check()?.to_owned();
    let file = format!("{}{}", &path.sha256.to_string()[..DIGITS], ending(&headers, &MASK_TYPES)?);
    let key = format!("{}{source}/{file}", keys::inputs(&caller.site));
    if let Some(head) = api.ledger.store().head(&key).await?
        && head.sha256 != *path.mask.as_bytes()
    {
        let text = format!(
            "the image has another mask there, of SHA-256 {}; upload image and mask to another source",
            Digest::from_bytes(head.sha256)
        );
        return Err(Problem::conflict(text));
    }
    store(&api, &caller, (source, file), path.mask, &headers, body).await
}

/// Stores the content of `body` as the `file` of a `source` of the caller's, if its digest is `sha256`.
async fn store(
    api: &Api,
    caller: &Submitter,
    (source, file): (String, String),
    sha256: Digest,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let site = &caller.site;
    let key = format!("{}{source}/{file}", keys::inputs(site));
    let answer =
        |code: StatusCode, size_bytes| (code, Json(InputFile { source, file, sha256, size_bytes })).into_response();
    if let Some(head) = api.ledger.store().head(&key).await?
        && head.sha256 == *sha256.as_bytes()
    {
        return Ok(answer(StatusCode::OK, head.size_bytes));
    }
    let quotas = api.sites.get(site).await?.map(|site| site.quotas).unwrap_or_default();
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let limit_bytes = api.limits.upload_bytes;
    if announced.is_some_and(|length: u64| length > limit_bytes) {
        let text = format!("the content is longer than {limit_bytes} bytes; send smaller files");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let room_bytes = api.usage.check_upload(site, &quotas, announced.unwrap_or(0)).await?;
    let idle = Duration::from_secs(api.limits.idle_s);
    let (content, refusal) = verified(body, Bounds { sha256, limit_bytes, room_bytes, idle });
    let head = api.ledger.store().put_stream(&key, content).await.map_err(|error| refusal.problem(error))?;
    api.usage.uploaded(site, head.size_bytes);
    Ok(answer(StatusCode::CREATED, head.size_bytes))
}

fn ending(headers: &HeaderMap, types: &[(&str, &'static str)]) -> Result<&'static str, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    types.iter().find(|(known, _)| *known == kind).map(|(_, ending)| *ending).ok_or_else(|| {
        let known: Vec<_> = types.iter().map(|(known, _)| *known).collect();
        let text = format!("`Content-Type` says what the file is: one of {}", known.join(", "));
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
    })
}

/// Documents [`put`].
pub fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let operation = operation
        .id("upload_input")
        .tag("inputs")
        .summary("Upload a source image")
        .description(
            "The content is verified against the digest in the path and stored only if it is right, so that an upload can \
             be sent again without harm. De-identify images first. A NIfTI volume comes compressed, as `application/gzip`.",
        )
        .with(problems(&[400, 408, 413, 415, 422, 429]));
    file(operation, &TYPES)
}

/// Documents [`put_mask`].
pub fn describe_mask(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let operation = operation
        .id("upload_mask")
        .tag("inputs")
        .summary("Upload the mask of a training image")
        .description(
            "A PNG of the image's size, 0 outside and 255 inside, beside the image of this digest. A training request for a \
             model of permissible regions (`\"model\": \"unet\"`) takes the pairs of a source that it names in `data`. An \
             image has one mask; no request makes images from masks.",
        )
        .with(problems(&[400, 408, 409, 413, 415, 422, 429]));
    file(operation, &MASK_TYPES)
}

/// Documents a body of one of `types`, and that it is stored.
fn file<'a>(operation: TransformOperation<'a>, types: &[(&str, &str)]) -> TransformOperation<'a> {
    let mut operation = operation
        .response_with::<201, Json<InputFile>, _>(|response| response.description("Stored now."))
        .response_with::<200, Json<InputFile>, _>(|response| response.description("Stored before; nothing new."));
    let bytes = schemars::json_schema!({ "type": "string", "format": "binary" });
    let media = |(kind, _): &(&str, &str)| {
        ((*kind).to_owned(), MediaType { schema: Some(schema(bytes.clone())), ..MediaType::default() })
    };
    operation.inner_mut().request_body = Some(ReferenceOr::Item(RequestBody {
        description: Some("The file.".to_owned()),
        content: types.iter().map(media).collect(),
        required: true,
        extensions: Default::default(),
    }));
    operation
}
