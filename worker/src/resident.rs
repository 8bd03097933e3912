//! What stays in memory from one job to the next, so that a model is loaded once and not once a job.

use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// At most so many values stay. A request names some ten models.
const LIMIT: usize = 32;

/// Values by type and name, the least recently used one dropped first when there are too many.
#[derive(Default)]
pub struct Residents {
    entries: Mutex<VecDeque<Entry>>,
}

struct Entry {
    kind: TypeId,
    name: String,
    value: Arc<dyn Any + Send + Sync>,
}

impl Residents {
    /// The value called `name`, or what `load` makes. Two threads that load the same value at once both do so; one stays.
    ///
    /// # Errors
    /// Those of `load`; nothing is kept then.
    pub fn get_or_load<T, E>(&self, name: &str, load: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E>
    where
        T: Send + Sync + 'static,
    {
        if let Some(value) = self.find(name) {
            return Ok(value);
        }
        // Loaded without the lock: seconds of work must not stop other jobs.
        let value = Arc::new(load()?);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back(Entry { kind: TypeId::of::<T>(), name: name.to_owned(), value: value.clone() });
        if entries.len() > LIMIT {
            entries.pop_front();
        }
        Ok(value)
    }

    fn find<T: Send + Sync + 'static>(&self, name: &str) -> Option<Arc<T>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let position = entries.iter().position(|entry| entry.kind == TypeId::of::<T>() && entry.name == name)?;
        let entry = entries.remove(position)?;
        let value = entry.value.clone().downcast().ok();
        entries.push_back(entry);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(residents: &Residents, name: &str, value: u32) -> u32 {
        *residents.get_or_load(name, || Ok::<_, ()>(value)).unwrap()
    }

    #[test]
    fn a_value_is_loaded_once() {
        let residents = Residents::default();
        assert_eq!(number(&residents, "a", 1), 1);
        assert_eq!(number(&residents, "a", 2), 1);
        assert_eq!(*residents.get_or_load("a", || Ok::<_, ()>("another type")).unwrap(), "another type");
    }

    #[test]
    fn the_least_recently_used_value_goes_first() {
        let residents = Residents::default();
        number(&residents, "kept", 1);
        for n in 0..LIMIT {
            number(&residents, &n.to_string(), 0);
            number(&residents, "kept", 2);
        }
        assert_eq!(number(&residents, "kept", 3), 1);
        assert_eq!(number(&residents, "0", 4), 4);
    }

    #[test]
    fn a_failure_keeps_nothing() {
        let residents = Residents::default();
        assert_eq!(residents.get_or_load("a", || Err::<u32, _>("no")).unwrap_err(), "no");
        assert_eq!(number(&residents, "a", 5), 5);
    }
}
