//! What strangers, users and their browsers can not do.

mod ask;
mod fields;
mod schema;
mod secrets;
mod tokens;
