//! From a job's number to the job: which images it makes, and from which sources.
//!
//! The jobs of every synthesis request are made here, written into a plan or not, so that image i of an unbounded request is
//! made of the same things as image i of a bounded one.

use hiresmed_protocol::{
    ImageIndex, Job, JobId, Plan, RequestId, SiteId, VERSION, Work,
    job::{ImageRange, Models, Object, SynthesiseImages},
    noise::{self, Purpose},
    plan::Recipe,
    request::MOST_UNBOUNDED,
};

/// The jobs of a synthesis request, each by its number. A pure function of a plan's parts.
pub(crate) struct Jobs<'a> {
    pub(crate) id: &'a RequestId,
    pub(crate) site: &'a SiteId,
    pub(crate) models: &'a Models,
    pub(crate) recipe: &'a Recipe,
    /// How many images the jobs make together.
    pub(crate) images: u64,
}

impl<'a> Jobs<'a> {
    /// The jobs of an unbounded request; none for another.
    pub(crate) fn unbounded(plan: &'a Plan) -> Option<Self> {
        let (recipe, models) = (plan.recipe.as_ref()?, plan.models.as_ref()?);
        Some(Self { id: &plan.request, site: &plan.site, models, recipe, images: MOST_UNBOUNDED })
    }

    /// The images of job `number`; none beyond the request's last.
    pub(crate) fn images(&self, number: u64) -> Option<ImageRange> {
        images(number, self.recipe.chunk, self.images)
    }

    /// Job `number` at its first attempt; none beyond the request's last image.
    pub(crate) fn job(&self, number: u64) -> Option<Job> {
        let images = self.images(number)?;
        let recipe = self.recipe;
        let order = Order { seed: recipe.request.seed, draws: recipe.draws.max(1), sources: &recipe.sources };
        let inputs = order.inputs(images);
        let work = SynthesiseImages { images, request: recipe.request.clone(), models: self.models.clone(), inputs };
        Some(Job {
            version: VERSION,
            id: JobId::synthesise(self.id, number),
            request: self.id.clone(),
            site: self.site.clone(),
            attempt: 0,
            class: recipe.request.class,
            work: Work::Synthesise(work),
        })
    }
}

/// The images of job `number` where each job makes `chunk` images, of `count` together; none beyond the last.
pub(crate) fn images(number: u64, chunk: u64, count: u64) -> Option<ImageRange> {
    let chunk = chunk.max(1);
    let first = number.checked_mul(chunk).filter(|first| *first < count)?;
    Some(ImageRange { first: ImageIndex(first), count: chunk.min(count - first) })
}

/// Which source each image is made from: all of them in a shuffled order, each for `draws` images, then all again in another
/// order.
struct Order<'a> {
    seed: u64,
    draws: u64,
    sources: &'a [Object],
}

impl Order<'_> {
    fn inputs(&self, images: ImageRange) -> Vec<Object> {
        let count = self.sources.len() as u64;
        if count == 0 {
            return Vec::new();
        }
        let mut inputs = Vec::new();
        let mut shuffled = (u64::MAX, Vec::new());
        for index in images.iter() {
            let background = index.0 / self.draws;
            let pass = background / count;
            if shuffled.0 != pass {
                shuffled = (pass, self.shuffle(pass * count));
            }
            let source = shuffled.1[(background % count) as usize];
            inputs.push(self.sources[source].clone());
        }
        inputs
    }

    /// The sources in the order of a digest that belongs to each place of this pass.
    fn shuffle(&self, first: u64) -> Vec<usize> {
        let key = |place: &usize| noise::seed(self.seed, ImageIndex(first + *place as u64), Purpose::Input);
        let mut places: Vec<usize> = (0..self.sources.len()).collect();
        places.sort_by_cached_key(key);
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_end_with_the_last_image() {
        let range = |first, count| Some(ImageRange { first: ImageIndex(first), count });
        assert_eq!(images(0, 4, 10), range(0, 4));
        assert_eq!(images(2, 4, 10), range(8, 2));
        assert_eq!(images(3, 4, 10), None);
        assert_eq!(images(u64::MAX, 4, MOST_UNBOUNDED), None);
        assert_eq!(images(5, 0, 10), range(5, 1), "a damaged plan");
    }
}
