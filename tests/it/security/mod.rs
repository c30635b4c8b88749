//! What strangers, users and their browsers can not do.

mod ask;
mod browser;
mod fields;
mod flood;
mod foreign;
mod limited;
mod schema;
mod secrets;
mod tls;
mod tokens;
mod visitors;
