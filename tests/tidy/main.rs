//! The house itself: which module may use which, how long a function may be, and whether the documents are alive.

mod documents;
mod layers;
mod sources;
