//! An image, stage by stage: inputs → background → lesions → placement → composite → outputs.
//!
//! A file a stage. No stage looks back, and each draws its noise from generators of its own, seeded by the request's seed,
//! the image's index and the stage's purpose. So the same image comes out whatever job it belongs to.

mod background;
pub mod candidates;
mod clock;
mod composite;
mod geometry;
mod inputs;
mod lesions;
mod models;
mod outputs;
mod placement;
mod scene;

use hiresmed_protocol::{ImageIndex, noise, noise::Purpose, request::Synthesise};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

#[cfg(feature = "training")]
pub(crate) use background::condition;

pub use self::{
    background::Background,
    clock::Clock,
    composite::Composite,
    geometry::Geometry,
    inputs::{Source, decode, fetch},
    lesions::Sampled,
    models::{LocationModels, Locator, Pipeline},
    outputs::Encoded,
    placement::{Anatomy, Placed},
    scene::{Scene, Scenes},
};

/// The generator for one purpose of one image.
fn generator(request: &Synthesise, index: ImageIndex, purpose: Purpose) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(noise::seed(request.seed, index, purpose))
}
