//! Lesion exemplars: a crop of a real image around a lesion, and the lesion's mask.

use std::time::Duration;

use aide::{
    openapi::{MediaType, ReferenceOr, RequestBody},
    transform::TransformOperation,
};
use axum::{
    Json,
    extract::{FromRequest, Multipart, Request, State, multipart::MultipartError},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use hiresmed_protocol::{Digest, keys};
use hiresmed_services::store::Put;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{
    Api,
    caller::Submitter,
    document::schema,
    extract::broken,
    problem::{Fault, Problem, problems},
};

/// Largest picture of an exemplar in bytes: a lesion is small.
const LARGEST: usize = 16 << 20;

/// An exemplar that is in the store.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Exemplar {
    /// Digest of the crop's and the mask's digests: the same pictures are the same exemplar.
    pub exemplar: Digest,
    /// How a training request names it, in its `data`: `exemplars/{digest}`.
    pub data: String,
    /// Columns and rows of both pictures.
    pub size: [u32; 2],
}

/// `POST /v1/exemplars`.
pub async fn create(State(api): State<Api>, caller: Submitter, request: Request) -> Result<Response, Problem> {
    let idle = Duration::from_secs(api.limits.idle_s);
    // The pictures are small: together they come within one such time, or too slowly.
    let read = tokio::time::timeout(idle, pictures(request)).await;
    let (crop, mask) = read.unwrap_or_else(|_| {
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, format!("not whole within {} s; send it again", idle.as_secs())))
    })?;
    let size = check(&crop, &mask)?;
    let exemplar = Digest::of(format!("{}{}", Digest::of(&crop), Digest::of(&mask)).as_bytes());
    let site = &caller.site;
    let quotas = api.sites.get(site).await?.map(|site| site.quotas).unwrap_or_default();
    let bytes = (crop.len() + mask.len()) as u64;
    api.usage.check_upload(site, &quotas, bytes).await?;
    let prefix = keys::exemplar(site, &exemplar);
    let store = api.ledger.store();
    store.put_if_absent(&format!("{prefix}exemplar.mask.png"), mask).await?;
    let put = store.put_if_absent(&format!("{prefix}exemplar.png"), crop).await?;
    let code = if put == Put::Created { StatusCode::CREATED } else { StatusCode::OK };
    if put == Put::Created {
        api.usage.uploaded(site, bytes);
    }
    Ok((code, Json(Exemplar { exemplar, data: format!("exemplars/{exemplar}"), size })).into_response())
}

/// The parts `crop` and `mask`.
async fn pictures(request: Request) -> Result<(Bytes, Bytes), Problem> {
    let parts = Multipart::from_request(request, &()).await;
    let mut parts = parts.map_err(|_| {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send `multipart/form-data` with the parts `crop` and `mask`")
    })?;
    let unreadable = |error: MultipartError| broken(error.status(), error.body_text());
    let (mut crop, mut mask) = (None, None);
    while let Some(mut part) = parts.next_field().await.map_err(unreadable)? {
        let place = match part.name() {
            Some("crop") => &mut crop,
            Some("mask") => &mut mask,
            _ => {
                return Err(Problem::faults(
                    "there are parts other than `crop` and `mask`; leave them out",
                    Vec::new(),
                ));
            }
        };
        let mut bytes = BytesMut::new();
        while let Some(piece) = part.chunk().await.map_err(unreadable)? {
            if bytes.len() + piece.len() > LARGEST {
                let text = format!("a picture is longer than {LARGEST} bytes; cut it closer to the lesion");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            bytes.extend_from_slice(&piece);
        }
        *place = Some(bytes.freeze());
    }
    match (crop, mask) {
        (Some(crop), Some(mask)) => Ok((crop, mask)),
        (crop, mask) => {
            let missing = [("crop", crop.is_none()), ("mask", mask.is_none())].into_iter().filter(|(_, gone)| *gone);
            let faults = missing.map(|(path, _)| fault(path, "missing", "must be a PNG picture")).collect();
            Err(Problem::faults("parts are missing: `faults` names them", faults))
        }
    }
}

/// The pictures' common size.
fn check(crop: &[u8], mask: &[u8]) -> Result<[u32; 2], Problem> {
    let sizes = [("crop", png_size(crop)), ("mask", png_size(mask))];
    let bad = sizes.iter().filter(|(_, size)| size.is_none());
    let faults: Vec<_> = bad.map(|(path, _)| fault(path, "other bytes", "must be a PNG picture")).collect();
    match sizes {
        [(_, Some(crop)), (_, Some(mask))] if crop == mask => Ok(crop),
        [(_, Some(crop)), (_, Some(mask))] => {
            let allowed = format!("must be as large as the crop: {} x {}", crop[0], crop[1]);
            let fault = fault("mask", &format!("{} x {}", mask[0], mask[1]), &allowed);
            Err(Problem::faults("crop and mask differ in size", vec![fault]))
        }
        _ => Err(Problem::faults("pictures cannot be read: `faults` names them", faults)),
    }
}

fn fault(path: &str, value: &str, allowed: &str) -> Fault {
    Fault { path: path.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() }
}

/// Columns and rows of a PNG picture (ISO/IEC 15948, 5.2 and 11.2.2). The pixels are read by the worker.
fn png_size(bytes: &[u8]) -> Option<[u32; 2]> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(4..16)?.strip_prefix(b"IHDR")?;
    let number = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    Some([number(0)?, number(4)?]).filter(|size| size.iter().all(|side| *side > 0))
}

/// Documents [`create`].
pub fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let mut operation = operation
        .id("upload_exemplar")
        .tag("inputs")
        .summary("Upload a lesion exemplar")
        .description(
            "A crop of a real image around a lesion and the lesion's mask (0 outside, 255 inside, or grey for a soft edge), \
             both PNG and of one size. A training request for a lesion model (`\"model\": \"singan\"`) names it in `data`.",
        )
        .response_with::<201, Json<Exemplar>, _>(|response| response.description("Stored now."))
        .response_with::<200, Json<Exemplar>, _>(|response| response.description("Stored before; nothing new."))
        .with(problems(&[400, 408, 413, 415, 422, 429]));
    let form = schemars::json_schema!({
        "type": "object",
        "required": ["crop", "mask"],
        "properties": {
            "crop": { "type": "string", "format": "binary", "description": "The crop, PNG." },
            "mask": { "type": "string", "format": "binary", "description": "The lesion's mask, PNG." },
        },
    });
    let media = MediaType { schema: Some(schema(form)), ..MediaType::default() };
    let encoding = json!({ "contentType": "image/png" });
    let mut media = media;
    for part in ["crop", "mask"] {
        if let Ok(encoding) = serde_json::from_value(encoding.clone()) {
            media.encoding.insert(part.to_owned(), encoding);
        }
    }
    operation.inner_mut().request_body = Some(ReferenceOr::Item(RequestBody {
        description: Some("Both pictures.".to_owned()),
        content: [("multipart/form-data".to_owned(), media)].into_iter().collect(),
        required: true,
        extensions: Default::default(),
    }));
    operation
}
