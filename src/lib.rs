//! rdmfs mounts an InvenioRDM research-data repository as a file system.
//!
//! One folder is one floor, and calls go down only: `cli` → `mount` → `tree` → `catalog`, `content`, `staging` →
//! `repository`; `archives` is between `tree` and `content`.
//! `error`, `config`, `history`, `md5`, `memory` and `status` are the ground, used by all.

pub mod archives;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod content;
pub mod error;
pub mod history;
pub mod md5;
pub mod memory;
pub mod mount;
pub mod repository;
pub mod staging;
pub mod status;
pub mod tree;
