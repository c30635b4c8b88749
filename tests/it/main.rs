//! The one integration-test binary: by capability, through public interfaces.

mod support;

mod auth;
mod bench;
mod changes;
mod cli;
mod clients;
mod contract;
mod crowd;
mod degraded;
mod desk;
mod doctor;
mod doubt;
mod end_to_end;
mod failover;
mod faults;
mod formula;
mod graphql;
mod history;
mod hostile;
mod http;
mod ledger;
mod ledger_away;
mod live;
mod nodes;
mod npm;
mod orders;
mod periods;
mod redis;
mod repair;
mod roll;
mod roll_faults;
mod schema;
mod sse;
mod system;
mod tidy;
