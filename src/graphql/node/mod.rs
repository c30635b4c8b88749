//! Everything that has an identity, and how it is found again by its global id.
//!
//! An object keeps the id that people know it by (`id`); `nodeId` is for client caches and refetching, as Relay asks for
//! it. Invariant: what implements [`Node`] is found by [`find`], by whoever may read it where it else stands.

mod id;

use std::collections::{BTreeMap, BTreeSet};

use async_graphql::{Context, Error, ID, Interface, Result};

use super::app;
use super::errors::Failure;
use super::guards::{Caller, Role};
use super::siblings::Siblings;
use super::types::audit::{AuditEntry, DeadLetter};
use super::types::board::Board;
use super::types::desk::ProductRule;
use super::types::period::{Period, asks_position};
use super::types::product::Product;
use super::types::ranking::RankingEntry;
use super::types::viewer::Viewer;
use super::types::weights::WeightRule;
use crate::domain::{BoardId, ProductId};
use crate::pipeline::{self, Meant};
pub use id::NodeId;

/// What can be looked up again by its global id.
#[derive(Interface)]
#[graphql(field(
    name = "node_id",
    ty = "ID",
    desc = "Of this object alone, among those of all types. Opaque; hand it to `node` or `nodes`."
))]
#[allow(clippy::large_enum_variant, reason = "there are a hundred at most, and the macro takes no boxes")]
pub enum Node {
    Product(Product),
    Board(Board),
    Period(Period),
    RankingEntry(RankingEntry),
    Viewer(Viewer),
    WeightRule(WeightRule),
    ProductRule(ProductRule),
    AuditEntry(AuditEntry),
    DeadLetter(DeadLetter),
}

/// What an id leads to: nothing, or one object, or why it can't be read.
pub type Found = Option<Result<Node>>;

/// Periods that one list of ids may lead to: each is looked up by itself.
const PERIODS_MAX: usize = 8;

/// Refuses ids that lead to too many periods.
pub fn check(ids: &[ID]) -> Result<(), Failure> {
    let periods = ids.iter().filter_map(|id| match NodeId::decode(id)? {
        NodeId::Period(board, key) | NodeId::Entry(board, key, _) => Some((board, key)),
        _ => None,
    });
    match periods.collect::<BTreeSet<_>>().len() {
        found if found > PERIODS_MAX => {
            let message = format!("nodeIds: they lead to {found} periods");
            Err(Failure::too_many("nodePeriods", PERIODS_MAX, message))
        }
        _ => Ok(()),
    }
}

/// The objects that ids name, in their order. Products are looked up together, and so are the entries of a period.
pub async fn find(ctx: &Context<'_>, ids: &[ID]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut products = Vec::new();
    let mut entries: BTreeMap<(BoardId, String), Vec<(usize, ProductId)>> = BTreeMap::new();
    for (index, id) in ids.iter().enumerate() {
        let one = match NodeId::decode(id) {
            None => None,
            Some(NodeId::Product(product)) => {
                products.push((index, product));
                None
            }
            Some(NodeId::Entry(board, key, product)) => {
                entries.entry((board, key)).or_default().push((index, product));
                None
            }
            Some(other) => find_one(ctx, other).await.transpose(),
        };
        found.push(one);
    }
    for (index, one) in find_products(ctx, products).await {
        found[index] = one;
    }
    for ((board, key), wanted) in entries {
        for (index, one) in find_entries(ctx, &board, key, wanted).await {
            found[index] = one;
        }
    }
    found
}

async fn find_one(ctx: &Context<'_>, id: NodeId) -> Result<Option<Node>> {
    let app = app(ctx);
    let definitions = app.definitions();
    Ok(match id {
        NodeId::Board(id) => app.board(&id).map(|board| Node::Board(Board(board))),
        NodeId::Period(id, key) => {
            let with_position = asks_position(&ctx.look_ahead());
            period(ctx, &id, key, with_position).await?.map(Node::Period)
        }
        NodeId::Viewer(user) => Viewer::of(Caller::of(ctx)?).filter(|viewer| viewer.is(&user)).map(Node::Viewer),
        NodeId::WeightRule(version) => {
            let rule = WeightRule::of_version(version, &definitions.rules);
            let may_see = Caller::of(ctx)?.is_admin();
            rule.filter(|rule| may_see || rule.has_begun(app.now())).map(Node::WeightRule)
        }
        NodeId::InForce(id, version) => {
            let in_force = app.board(&id).map(|board| WeightRule::in_force(&board, &definitions.rules, app.now()));
            in_force.filter(|rule| rule.version == version).map(Node::WeightRule)
        }
        NodeId::ProductRule(version) => {
            Caller::of(ctx)?.has(Role::Admin)?;
            let rule = definitions.rules.products.iter().find(|rule| rule.version == version);
            rule.cloned().map(|rule| Node::ProductRule(rule.into()))
        }
        NodeId::AuditEntry(id) => {
            Caller::of(ctx)?.has(Role::Admin)?;
            app.audit_entry(id).await?.map(|entry| Node::AuditEntry(entry.into()))
        }
        NodeId::DeadLetter(id) => {
            Caller::of(ctx)?.has(Role::Admin)?;
            app.dead_letter(&id).await?.map(|letter| Node::DeadLetter(letter.into()))
        }
        NodeId::Product(_) | NodeId::Entry(..) => unreachable!("these are looked up together"),
    })
}

async fn period(ctx: &Context<'_>, id: &BoardId, key: String, with_position: bool) -> pipeline::Result<Option<Period>> {
    let Some(board) = app(ctx).board(id) else { return Ok(None) };
    let found = app(ctx).period(&board, &Meant::Key(key)).await?;
    Ok(found.map(|found| Period::found(&board, found, with_position)))
}

async fn find_products(ctx: &Context<'_>, wanted: Vec<(usize, ProductId)>) -> Vec<(usize, Found)> {
    let (places, ids): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let products = Product::all(&Siblings::new(app(ctx), &Caller::viewing(ctx), ids)).await;
    together(&places, products.map(|all| all.into_iter().map(|one| one.map(Node::Product)).collect()))
}

async fn find_entries(
    ctx: &Context<'_>,
    board: &BoardId,
    key: String,
    wanted: Vec<(usize, ProductId)>,
) -> Vec<(usize, Found)> {
    let (places, ids): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let siblings = Siblings::new(app(ctx), &Caller::viewing(ctx), ids);
    let read = async {
        let Some(period) = period(ctx, board, key, false).await? else { return Ok(Vec::new()) };
        let entries = period.entries_of(ctx, &siblings).await?;
        let entry = |index| RankingEntry::of(&entries, &siblings, index).map(Node::RankingEntry);
        Ok((0..places.len()).map(entry).collect())
    };
    together(&places, read.await)
}

/// Puts one look-up's answer, or its failure, to each place that asked.
fn together(places: &[usize], answer: pipeline::Result<Vec<Option<Node>>>) -> Vec<(usize, Found)> {
    match answer {
        Ok(found) => places.iter().copied().zip(found.into_iter().map(|one| one.map(Ok))).collect(),
        Err(error) => places.iter().map(|place| (*place, Some(Err(Error::from(error.clone()))))).collect(),
    }
}
