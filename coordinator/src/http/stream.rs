//! The images of a request as a WebDataset tar stream, each as soon as it is there.

use std::{io, time::Duration};

use aide::transform::TransformOperation;
use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::stream;
use hiresmed_protocol::{Event, RequestId, SiteId, keys, manifest::Image, outcome::Output};
use hiresmed_services::queue::Subscription;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    Api,
    caller::Reader,
    document::body,
    extract::{Path, Query},
    plans::Outline,
    problem::{Problem, problems},
    reader,
    requests::RequestPath,
    results::Made,
    tar,
};
use crate::Error;

/// How often the store is asked for the next image: an event may be lost.
const LOOK: Duration = Duration::from_secs(2);

/// Where a stream begins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamQuery {
    /// The first image's index. Default 0. To resume, one more than that of the last sample that arrived whole.
    #[serde(default)]
    pub from: u64,
}

/// `GET /v1/requests/{id}/stream`.
pub async fn get(
    State(api): State<Api>,
    caller: Reader,
    Path(path): Path<RequestPath>,
    Query(query): Query<StreamQuery>,
) -> Result<Response, Problem> {
    api.check_owned(&caller.site, &path.id).await?;
    let plan = api.plans.get(&path.id).await?;
    let subscription = api.queue.subscribe(&Event::topics_of(&path.id)).await.map_err(Error::from)?;
    let reader = match plan.images() {
        Some(_) => None,
        None => Some(reader::Reader::new(api.clone(), path.id.clone(), caller.site.clone())?),
    };
    let (next, present) = (query.from, query.from);
    let samples =
        Samples { api, id: path.id, site: caller.site, plan, subscription, reader, next, present, ended: false };
    let pieces = stream::try_unfold(samples, async |mut samples| {
        Ok::<_, io::Error>(samples.piece().await?.map(|piece| (piece, samples)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(pieces)).into_response())
}

struct Samples {
    api: Api,
    id: RequestId,
    site: SiteId,
    plan: std::sync::Arc<Outline>,
    subscription: Box<dyn Subscription>,
    /// For an unbounded request: what tells the dispatcher how far this stream has come.
    reader: Option<reader::Reader>,
    /// The next image's index.
    next: u64,
    /// One more than the index of the last image that was there.
    present: u64,
    ended: bool,
}

impl Samples {
    /// The samples of the next job, or the stream's end; none after that. A failure breaks the stream off, so that the
    /// reader knows that it is not whole.
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        while !self.ended {
            let Some((job, images)) = self.plan.job_of(self.next) else {
                self.ended = true;
                return Ok(Some(tar::end()));
            };
            self.tell(false).await?;
            match self.api.made(&self.id, &job, images).await.map_err(io::Error::other)? {
                Some(made) => {
                    let first = self.next;
                    let found = made.into_iter().find_map(|(index, made)| match made {
                        Made::Image(image, outputs) if index >= first => Some((*image, outputs)),
                        _ => None,
                    });
                    let Some((image, outputs)) = found else {
                        self.next = images.first.0 + images.count;
                        continue;
                    };
                    self.next = image.index.0 + 1;
                    self.present = self.next;
                    return Ok(Some(self.sample(&image, &outputs).await?));
                }
                // Nothing more is made, but later jobs may have been.
                None if self.api.clone().is_over(&self.site, &self.id).await.map_err(io::Error::other)? => {
                    // Settled between the two looks.
                    if self.api.ledger.outcome(&self.id, &job).await.map_err(io::Error::other)?.is_none() {
                        self.next = images.first.0 + images.count;
                        // Behind a gap of an unbounded request as wide as is made ahead, nothing is looked for.
                        let gap = self.next - self.present.min(self.next);
                        if self.plan.images().is_none() && gap > self.api.supervisor.ahead() {
                            self.ended = true;
                            return Ok(Some(tar::end()));
                        }
                    }
                }
                None => {
                    self.tell(true).await?;
                    self.wait().await?;
                }
            }
        }
        Ok(None)
    }

    /// Tells the dispatcher of an unbounded request how far this stream has come.
    async fn tell(&mut self, waiting: bool) -> io::Result<()> {
        match &mut self.reader {
            Some(reader) => reader.tell(self.next, waiting).await.map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Waits until something may have changed.
    async fn wait(&mut self) -> io::Result<()> {
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = self.api.stop.cancelled() => return Err(io::Error::other("the coordinator stops; resume by `from`")),
                () = &mut look => return Ok(()),
                notice = self.subscription.next() => {
                    let notice = notice.map_err(io::Error::other)?;
                    let ending = notice.topic.rsplit('.').next().unwrap_or("");
                    if matches!(ending, "ended" | "completed" | "aborted") {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The files of one image, their names alike up to the first dot.
    async fn sample(&mut self, image: &Image, outputs: &[Output]) -> io::Result<Bytes> {
        let key = format!("{}/{}", self.id, image.index.stem());
        let mut files = vec![("image.dcm", self.object(outputs, &image.file).await?)];
        if let Some(mask) = &image.mask {
            files.push(("mask.png", self.object(outputs, &mask.file).await?));
        }
        for (ending, part) in [("seg.dcm", &image.seg), ("sr.dcm", &image.sr)] {
            if let Some(part) = part {
                files.push((ending, self.object(outputs, &part.file).await?));
            }
        }
        let boxes: Vec<_> =
            image.lesions.iter().map(|lesion| json!({ "label": "lesion", "bbox": lesion.bbox })).collect();
        files.push(("boxes.json", serde_json::to_vec(&boxes)?.into()));
        files.push(("entry.json", serde_json::to_vec(image)?.into()));
        let mut bytes = BytesMut::new();
        for (ending, content) in files {
            let name = format!("{key}.{ending}");
            let file = tar::file(&name, &content)
                .ok_or_else(|| io::Error::other(format!("`{name}` does not fit in a tar file")))?;
            bytes.extend_from_slice(&file);
        }
        Ok(bytes.freeze())
    }

    async fn object(&mut self, outputs: &[Output], file: &str) -> io::Result<Bytes> {
        let output = outputs.iter().find(|output| output.file == file);
        let output = output.ok_or_else(|| io::Error::other(format!("`{file}` is not among the job's outputs")))?;
        self.api.ledger.store().get(&keys::object(&self.site, &output.sha256)).await.map_err(io::Error::other)
    }
}

/// Documents [`get`].
pub fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let mut operation = operation
        .id("stream_samples")
        .tag("results")
        .summary("Stream the images as a WebDataset, while they are made")
        .description(
            "A tar stream in order of the images' indices. A sample is `{request}/image-00007` with the endings \
             `image.dcm`, `mask.png`, `seg.dcm` and `sr.dcm` (each of these three where it is delivered), `boxes.json` (a list \
             of `label` and `bbox`: left, top, width, height in pixels) and `entry.json` (the manifest's entry). Images that could not be made are left \
             out. While the request runs, the stream waits for the next image; it ends when the request does. A stream \
             that breaks off is resumed by `from`. The same images give the same bytes. An unbounded request is made as far \
             as its streams are read: a bounded number of images ahead of the slowest. A stream from which nothing is taken \
             for 25 s holds the others up no longer, and counts again when it is read on. A request that is `waiting` has no \
             stream yet: a conflict.",
        )
        .with(problems(&[409]));
    let bytes = schemars::json_schema!({ "type": "string", "format": "binary" });
    let response = body("application/x-tar", "The samples.", bytes);
    let responses = operation.inner_mut().responses.get_or_insert_default();
    responses.responses.insert(aide::openapi::StatusCode::Code(200), aide::openapi::ReferenceOr::Item(response));
    operation
}
