//! Files and texts: what every room stands on.

pub mod absent;
pub mod atomic_file;
pub mod bounded_file;
pub mod checked_file;
pub mod owned_folder;
pub mod printable;
