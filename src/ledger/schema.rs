//! The tables as diesel sees them, for both databases. Written by hand beside `migrations/`; the tests of the ledger
//! read and write every column over both databases, so a difference between the two shows there.

macro_rules! tables {
    ($($name:ident ($($key:ident),+) { $($column:ident -> $type:ty,)+ })+) => {
        $(diesel::table! {
            use diesel::sql_types::*;
            use crate::ledger::instant::Instant;
            $name ($($key),+) { $($column -> $type,)+ }
        })+
    };
}

tables! {
    products (id) {
        id -> Text,
        name -> Text,
        image_url -> Nullable<Text>,
        price -> Nullable<Text>,
        currency -> Nullable<Text>,
        category -> Nullable<Text>,
        brand -> Nullable<Text>,
        created_at -> Instant,
    }
    events (id) {
        id -> Text,
        partition -> SmallInt,
        epoch -> BigInt,
        seq -> BigInt,
        signal -> SmallInt,
        product_id -> Text,
        user_id -> Nullable<Text>,
        count -> BigInt,
        occurred_at -> Instant,
        recorded_at -> Instant,
        reverses -> Nullable<Text>,
    }
    likes (user_id, product_id) {
        user_id -> Text,
        product_id -> Text,
        liked -> Bool,
        liked_at -> Instant,
        epoch -> BigInt,
        seq -> BigInt,
    }
    activity (bucket, signal, product_id, partition) {
        bucket -> Integer,
        signal -> SmallInt,
        product_id -> Text,
        partition -> SmallInt,
        count -> BigInt,
    }
    cursors (partition) {
        partition -> SmallInt,
        epoch -> BigInt,
        seq -> BigInt,
    }
    meta (id) {
        id -> SmallInt,
        epoch -> BigInt,
        epoch_began_at -> Instant,
        partitions -> SmallInt,
        ledger_id -> Nullable<Text>,
        history -> Nullable<BigInt>,
    }
    heartbeats (node) {
        node -> Text,
        engine -> Text,
        epoch -> BigInt,
        beats -> BigInt,
        at -> Instant,
    }
    lease (id) {
        id -> SmallInt,
        fence -> BigInt,
        renewals -> BigInt,
        held -> Bool,
    }
    boards (id) {
        id -> Text,
        title -> Text,
        time_window -> Text,
        time_zone -> Text,
        revision -> BigInt,
        half_life_ms -> Nullable<BigInt>,
        category -> Nullable<Text>,
        brand -> Nullable<Text>,
        carry_over -> BigInt,
        closed_from -> Nullable<Instant>,
        reopened -> BigInt,
        deleted -> Bool,
    }
    weight_rules (version) {
        version -> Integer,
        board -> Nullable<Text>,
        weights -> Text,
        created_by -> Text,
        created_at -> Instant,
        note -> Text,
        from_at -> Nullable<Instant>,
        until_at -> Nullable<Instant>,
        hours -> Nullable<Text>,
        cancels -> Nullable<Integer>,
    }
    product_rules (version) {
        version -> Integer,
        product_id -> Text,
        board -> Nullable<Text>,
        excluded -> Bool,
        boost -> Nullable<BigInt>,
        until_at -> Nullable<Instant>,
        created_by -> Text,
        created_at -> Instant,
        note -> Text,
    }
    audit_log (id) {
        id -> BigInt,
        at -> Instant,
        actor -> Text,
        action -> Text,
        target -> Text,
        before -> Nullable<Text>,
        after -> Nullable<Text>,
        note -> Nullable<Text>,
    }
    versions (id) {
        id -> SmallInt,
        rules -> Integer,
        audit -> BigInt,
    }
    closed_periods (board, period) {
        board -> Text,
        period -> Text,
        starts_at -> Nullable<Instant>,
        ends_at -> Instant,
        closed_at -> Instant,
        places -> BigInt,
        kept -> BigInt,
        rules_version -> Integer,
    }
    period_results (board, period, rank) {
        board -> Text,
        period -> Text,
        rank -> BigInt,
        product_id -> Text,
        points -> BigInt,
        exact -> Nullable<Text>,
    }
    dead_letters (id) {
        id -> Text,
        partition -> SmallInt,
        epoch -> BigInt,
        seq -> BigInt,
        entry -> Text,
        error -> Text,
        at -> Instant,
    }
    rejections (partition, epoch, seq) {
        partition -> SmallInt,
        epoch -> BigInt,
        seq -> BigInt,
        event_id -> Text,
        user_id -> Nullable<Text>,
        reverses -> Nullable<Text>,
        signal -> Nullable<SmallInt>,
        product_id -> Nullable<Text>,
        count -> Nullable<BigInt>,
        occurred_at -> Nullable<Instant>,
        counted -> Nullable<Bool>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(period_results, products);
diesel::allow_tables_to_appear_in_same_query!(period_results, closed_periods);
