//! What images of one background share: everything that does not depend on their lesions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hiresmed_protocol::Digest;

use super::{Anatomy, Background, Geometry};

/// A background with its anatomy.
#[derive(Debug)]
pub struct Scene {
    /// Digest of the source image; none where the background was sampled.
    pub source_sha256: Option<Digest>,
    /// The source's own geometry, where images are delivered in it: pixels and maps are of its content alone.
    pub geometry: Option<Geometry>,
    /// The pixels.
    pub background: Background,
    /// Where lesions may be in it.
    pub anatomy: Anatomy,
}

impl Scene {
    /// Without what lies around the source's content, where that is not delivered: a lesion's place is in the source.
    pub fn of_content(mut self) -> Self {
        if let Some(geometry) = &self.geometry {
            self.background.plane = geometry.of_content(self.background.plane);
            self.anatomy = self.anatomy.of_content(geometry);
        }
        self
    }
}

type Slot = Arc<Mutex<Option<Arc<Scene>>>>;

/// The scenes of a job's last few sources, so that images in a row of one source take the time of its background once.
#[derive(Debug)]
pub struct Scenes {
    /// Most recently asked for last.
    slots: Mutex<VecDeque<(Digest, Slot)>>,
    limit: usize,
}

impl Scenes {
    /// Keeps the scenes of `limit` sources: as many as images are made at a time.
    pub fn new(limit: usize) -> Self {
        Self { slots: Mutex::default(), limit: limit.max(1) }
    }

    /// The scene of `source`, or what `make` makes. Who asks for a scene that another thread makes waits for it.
    ///
    /// # Errors
    /// Those of `make`; nothing is kept then, and the next one tries again.
    pub fn get_or_make<E>(&self, source: Digest, make: impl FnOnce() -> Result<Scene, E>) -> Result<Arc<Scene>, E> {
        let slot = self.slot(source);
        // A thread that panicked while it made the scene has left none: made anew.
        let mut scene = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scene) = &*scene {
            return Ok(scene.clone());
        }
        Ok(scene.insert(Arc::new(make()?)).clone())
    }

    fn slot(&self, source: Digest) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let found = slots.iter().position(|(digest, _)| *digest == source).and_then(|at| slots.remove(at));
        let (digest, slot) = found.unwrap_or_else(|| (source, Slot::default()));
        slots.push_back((digest, slot.clone()));
        if slots.len() > self.limit {
            slots.pop_front();
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use hiresmed_imaging::{Mask, Plane, Spacing};

    use super::*;

    fn scene(value: f32) -> Result<Scene, ()> {
        let plane = Plane::filled(4, 4, value);
        let mask = Mask::empty(4, 4);
        Ok(Scene {
            source_sha256: Some(Digest::of(b"source")),
            geometry: None,
            background: Background { plane: plane.clone(), spacing: Spacing::square(1.0) },
            anatomy: Anatomy { weights: plane, permissible: mask.clone(), body: mask },
        })
    }

    #[test]
    fn a_scene_is_made_once_while_it_is_among_the_last() {
        let scenes = Scenes::new(2);
        let value = |source: &[u8], value| {
            scenes.get_or_make(Digest::of(source), || scene(value)).unwrap().background.plane.at(0, 0)
        };
        assert_eq!((value(b"a", 1.0), value(b"b", 2.0), value(b"a", 3.0)), (1.0, 2.0, 1.0));
        assert_eq!((value(b"c", 4.0), value(b"a", 5.0), value(b"b", 6.0)), (4.0, 1.0, 6.0));
        assert!(scenes.get_or_make(Digest::of(b"d"), || Err("no")).is_err());
        assert_eq!(value(b"d", 7.0), 7.0);
    }

    #[test]
    fn threads_that_want_the_same_scene_make_it_once() {
        let scenes = Scenes::new(2);
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    scenes.get_or_make(Digest::of(b"a"), || {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        scene(1.0)
                    })
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}
