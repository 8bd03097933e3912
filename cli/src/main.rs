//! The `hiresmed` command.
fn main() {}
