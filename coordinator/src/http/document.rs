//! The OpenAPI 3.1 description, made from the handlers' own types.

use aide::{
    generate::in_context,
    openapi::{Header, OpenApi, ParameterSchemaOrContent, Response as Documented, SchemaObject, SecurityScheme, Tag},
    transform::TransformOpenApi,
};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};

use super::caller::SCHEME;

const DESCRIPTION: &str = "\
Labelled synthetic medical images, made to order by a fleet of workers.

A site submits a *request* (\"2,000 lung CT slices with one to three nodules of 4 to 12 mm\"), follows it by its *events*, \
and fetches its *results* image by image, as soon as each is done: through links, or as one WebDataset tar *stream* that a \
training loop reads while the request runs.

Every call carries an API key of its site: `Authorization: Bearer hmk_...`. A site sees and reaches its own requests, \
inputs and outputs only. Failures are problem details (RFC 9457). Whatever is sent again after a lost answer is harmless.";

const TAGS: [(&str, &str); 7] = [
    ("requests", "What a site asks for, and where it stands."),
    ("results", "What came out: images, masks, boxes and how each was made."),
    ("inputs", "Source images and lesion exemplars."),
    ("models", "The models that requests can name."),
    ("site", "The caller's own site."),
    ("operation", "Running the fleet: sites, their keys, dead letters. For operators."),
    ("health", "For orchestrators and Prometheus. No key is needed."),
];

/// An empty description, and schemas of the dialect that OpenAPI 3.1 has: JSON Schema 2020-12.
pub fn begin() -> OpenApi {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    in_context(|context| context.schema = SchemaGenerator::new(settings));
    OpenApi::default()
}

/// What concerns the whole API.
pub fn describe(api: TransformOpenApi<'_>) -> TransformOpenApi<'_> {
    let api = api.title("hiresmed").version(env!("CARGO_PKG_VERSION")).description(DESCRIPTION);
    let scheme = SecurityScheme::Http {
        scheme: "bearer".to_owned(),
        bearer_format: Some("hmk_{id}_{secret}".to_owned()),
        description: Some("An API key of a site, made by an operator and shown once.".to_owned()),
        extensions: Default::default(),
    };
    TAGS.iter().fold(api.security_scheme(SCHEME, scheme), |api, (name, description)| {
        api.tag(Tag { name: (*name).to_owned(), description: Some((*description).to_owned()), ..Tag::default() })
    })
}

/// Leaves out what only the code needs, and says of requests what a caller needs to know.
pub fn finish(mut description: OpenApi) -> OpenApi {
    if let Some(components) = &mut description.components {
        // Parameters stand at their operations.
        components.schemas.retain(|name, _| !name.ends_with("Path") && !name.ends_with("Query"));
        if let Some(request) = components.schemas.get_mut("Request") {
            let text = "What a site asks for; `kind` chooses what. Every default is filled in when it is accepted.";
            request.json_schema.insert("description".to_owned(), text.into());
        }
    }
    description
}

/// The description as it is served.
pub fn text(description: &OpenApi) -> String {
    // Plain data with string keys: serialising it into memory has no way to fail.
    // Links within the code's documentation lead nowhere here.
    serde_json::to_string_pretty(description).unwrap_or_default().replace("[`", "`").replace("`]", "`")
}

/// The answer of `/v1/openapi.json`.
pub fn response(text: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_owned()).into_response()
}

/// A schema as the description has it.
pub fn schema(json_schema: Schema) -> SchemaObject {
    SchemaObject { json_schema, example: None, external_docs: None }
}

/// A response with one body of any type.
pub fn body(content_type: &str, description: &str, json_schema: Schema) -> Documented {
    let mut response = Documented { description: description.to_owned(), ..Documented::default() };
    let media = aide::openapi::MediaType { schema: Some(schema(json_schema)), ..Default::default() };
    response.content.insert(content_type.to_owned(), media);
    response
}

/// A response header that holds text.
pub fn text_header(description: &str) -> Header {
    let text = schemars::json_schema!({ "type": "string" });
    Header {
        description: Some(description.to_owned()),
        style: aide::openapi::HeaderStyle::Simple,
        required: false,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(schema(text)),
        example: None,
        examples: Default::default(),
        extensions: Default::default(),
    }
}
