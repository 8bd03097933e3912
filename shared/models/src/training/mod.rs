//! Long training as a chain of short rounds.
