//! What came out of a request, image by image, as far as it is there.

use std::time::Duration;

use aide::transform::TransformOperation;
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hiresmed_protocol::{
    ImageIndex, JobId, RequestId, SiteId, Verdict,
    job::ImageRange,
    keys,
    manifest::Image,
    outcome::{ImageFailure, Output, Stage, Success},
    request::MOST_UNBOUNDED,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    caller::Reader,
    document::{body, text_header},
    extract::{Path, Query},
    problem::{Problem, problems},
    requests::{PageQuery, RequestPath, foreign_cursor},
};
use crate::Error;

/// An image that is there.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ResultEntry {
    /// What it is made of, as in the manifest.
    pub image: Image,
    /// Its files.
    pub files: Vec<FileLink>,
}

/// A file of an image.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FileLink {
    /// Its path within a delivery: `images/image-00007.dcm`.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: hiresmed_protocol::Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Where it is: a path below the API's own address, to be fetched with the API key.
    pub url: String,
    /// Where it can be fetched from the store itself, without a key, for an hour; none where the store gives no such links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presigned_url: Option<String>,
}

/// How long a link to the store is good.
const LINK_VALID: Duration = Duration::from_secs(3600);

/// A page of results.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ResultPage {
    /// The images of this page that are there, in order of their indices.
    pub items: Vec<ResultEntry>,
    /// The images of this page that could not be made.
    pub failures: Vec<ImageFailure>,
    /// How many images of this page are not settled yet.
    pub pending: u64,
    /// Send it as `cursor` for the next page; none on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The name of a file in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct FilePath {
    /// The request's id.
    pub id: RequestId,
    /// The file's path within a delivery, its `/` written as `%2F`: `images%2Fimage-00007.dcm`.
    pub name: String,
}

/// What a settled job says of one image.
pub(super) enum Made {
    /// It is there, with its files.
    Image(Box<Image>, Vec<Output>),
    /// It could not be made.
    Failed(ImageFailure),
}

impl Api {
    /// What the job of `images` made, in their order; none where it is not settled.
    pub(super) async fn made(
        &self,
        request: &RequestId,
        job: &JobId,
        images: ImageRange,
    ) -> Result<Option<Vec<(u64, Made)>>, Error> {
        let Some(outcome) = self.ledger.outcome(request, job).await? else { return Ok(None) };
        let mut made: Vec<(u64, Made)> = match outcome.verdict {
            Verdict::Succeeded(success) => images_of(success).collect(),
            Verdict::Failed(failure) | Verdict::Transient(failure) => {
                let stage = failure.stage.unwrap_or(Stage::Inputs);
                let of = |index| ImageFailure { index, stage, reason: failure.reason.clone() };
                images.iter().map(|index| (index.0, Made::Failed(of(index)))).collect()
            }
            Verdict::Interrupted | Verdict::Cancelled => Vec::new(),
        };
        made.sort_by_key(|(index, _)| *index);
        Ok(Some(made))
    }

    /// A file with its links.
    async fn link(&self, site: &SiteId, request: &RequestId, output: Output) -> Result<FileLink, Error> {
        let url = format!("/v1/requests/{request}/files/{}", output.file.replace('/', "%2F"));
        let presigned_url = self.ledger.store().presign_get(&keys::object(site, &output.sha256), LINK_VALID).await?;
        Ok(FileLink { url, presigned_url, file: output.file, sha256: output.sha256, size_bytes: output.size_bytes })
    }
}

fn images_of(success: Success) -> impl Iterator<Item = (u64, Made)> {
    let Success { outputs, images, failures, .. } = success;
    let failures = failures.into_iter().map(|failure| (failure.index.0, Made::Failed(failure)));
    let images = images.into_iter().map(move |image| {
        let files = outputs.iter().filter(|output| stem(&output.file) == image.index.stem()).cloned().collect();
        (image.index.0, Made::Image(Box::new(image), files))
    });
    images.chain(failures)
}

/// A file's name without folders and endings: `images/image-00007.dcm` gives `image-00007`.
fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name)
}

/// `GET /v1/requests/{id}/results`.
pub async fn list(
    State(api): State<Api>,
    caller: Reader,
    Path(path): Path<RequestPath>,
    Query(query): Query<PageQuery>,
) -> Result<Json<ResultPage>, Problem> {
    let limit = query.checked()? as u64;
    let first: u64 = match &query.cursor {
        Some(cursor) => cursor.parse().map_err(|_| foreign_cursor())?,
        None => 0,
    };
    api.check_owned(&caller.site, &path.id).await?;
    let plan = api.plans.get(&path.id).await?;
    let last = plan.images().unwrap_or(MOST_UNBOUNDED);
    let mut end = first.saturating_add(limit).min(last);
    let mut page = ResultPage { items: Vec::new(), failures: Vec::new(), pending: 0, next_cursor: None };
    let (mut next, mut more) = (first, true);
    while let Some((job, images)) = plan.job_of(next).filter(|_| next < end) {
        let job_end = end.min(images.first.0 + images.count);
        let made = api.made(&path.id, &job, images).await?;
        let settled = made.is_some();
        for (index, made) in made.unwrap_or_default() {
            match made {
                _ if !(next..job_end).contains(&index) => {}
                Made::Image(image, outputs) => {
                    let mut files = Vec::with_capacity(outputs.len());
                    for output in outputs {
                        files.push(api.link(&caller.site, &path.id, output).await?);
                    }
                    page.items.push(ResultEntry { image: *image, files });
                }
                Made::Failed(failure) => page.failures.push(failure),
            }
        }
        next = job_end;
        // Behind what is not there yet there is no end of images that are not.
        if !settled && plan.images().is_none() {
            (end, more) = (job_end, false);
        }
    }
    page.pending = end.saturating_sub(first) - (page.items.len() + page.failures.len()) as u64;
    page.next_cursor = (more && end < last).then(|| end.to_string());
    Ok(Json(page))
}

/// Documents [`list`].
pub fn describe_list(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("list_results")
        .tag("results")
        .summary("List the images of a request, with links to their files")
        .description(
            "Also while the request runs: what is not settled yet is counted as `pending`. To get each image as soon as \
             it is there, use the stream. The pages of an unbounded request end with the job whose images are not there yet: \
             ask for that page again. A training request has no images: its result is a model. A request that is \
             `waiting` has no images yet: a conflict.",
        )
        .with(problems(&[409]))
}

/// `GET /v1/requests/{id}/files/{name}`.
pub async fn file(State(api): State<Api>, caller: Reader, Path(path): Path<FilePath>) -> Result<Response, Problem> {
    api.check_owned(&caller.site, &path.id).await?;
    let unknown = || Problem::not_found("the request has no such file, or not yet; its results list what there is");
    let index: u64 =
        stem(&path.name).strip_prefix("image-").and_then(|index| index.parse().ok()).ok_or_else(unknown)?;
    let plan = match api.plans.get(&path.id).await {
        Err(Error::Waiting { .. }) => return Err(unknown()),
        plan => plan?,
    };
    let (job, _) = plan.job_of(index).ok_or_else(unknown)?;
    let Some(outcome) = api.ledger.outcome(&path.id, &job).await? else { return Err(unknown()) };
    let Verdict::Succeeded(success) = outcome.verdict else { return Err(unknown()) };
    let output = success.outputs.into_iter().find(|output| output.file == path.name).ok_or_else(unknown)?;
    send(&api, &caller.site, ImageIndex(index), &output).await
}

/// Streams an object; nothing of it is kept in memory.
async fn send(api: &Api, site: &SiteId, index: ImageIndex, output: &Output) -> Result<Response, Problem> {
    let content = api.ledger.store().get_stream(&keys::object(site, &output.sha256)).await?;
    let ending = output.file.rsplit_once('.').map_or("", |(_, ending)| ending);
    let kind = match ending {
        "dcm" => "application/dicom",
        "png" => "image/png",
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let mut response = Body::from_stream(content).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, output.size_bytes.into());
    // The name has no characters beyond those of a stem and an ending of ours.
    for (name, text) in [
        (header::ETAG, format!("\"{}\"", output.sha256)),
        (header::CACHE_CONTROL, "private, immutable, max-age=31536000".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.{ending}\"", index.stem())),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ] {
        headers.extend(HeaderValue::from_str(&text).ok().map(|value| (name, value)));
    }
    Ok(response)
}

/// Documents [`file`].
pub fn describe_file(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let mut operation = operation
        .id("get_file")
        .tag("results")
        .summary("Fetch a file of a result")
        .description("The results' links lead here. The bytes never change; the `ETag` is their SHA-256.");
    let bytes = schemars::json_schema!({ "type": "string", "format": "binary" });
    let mut response = body("application/dicom", "The file.", bytes.clone());
    for kind in ["image/png", "application/json", "text/plain", "application/octet-stream"] {
        let other = body(kind, "", bytes.clone());
        response.content.extend(other.content);
    }
    let etag = text_header("The SHA-256 of the bytes, in quotation marks.");
    response.headers.insert("ETag".to_owned(), aide::openapi::ReferenceOr::Item(etag));
    let responses = operation.inner_mut().responses.get_or_insert_default();
    responses.responses.insert(aide::openapi::StatusCode::Code(200), aide::openapi::ReferenceOr::Item(response));
    operation
}
