//! The REST client of one InvenioRDM server: transport, one file per resource, models.
//!
//! Called by `catalog/`, `content/`, `staging/` and `cli/`. It blocks the calling thread, within limits, and knows
//! nothing of nodes, caches or FUSE.

pub mod model;
