//! Starts training rounds.
fn main() {}
