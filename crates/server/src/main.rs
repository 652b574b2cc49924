//! tidings.

fn main() {}
