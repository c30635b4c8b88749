//! What strangers, users and their browsers can not do.

mod ask;
mod browser;
mod budget;
mod fields;
mod flood;
mod foreign;
mod limited;
mod pages;
mod producers;
mod revoked;
mod schema;
mod scores;
mod secrets;
mod tls;
mod tokens;
mod traces;
mod visitors;
