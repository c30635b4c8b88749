//! What an admin decides about boards and products, as inputs with their checks, and what comes of it.

use std::sync::Arc;

use async_graphql::{ComplexObject, ID, InputObject, SimpleObject};

use super::board::{Board, WindowKind};
use super::scalars::{DateTime, Duration};
use crate::domain::{self, BoardId, Factor, HalfLife, Period, Scope, Timestamp};
use crate::graphql::errors::UserError;
use crate::graphql::inputs;
use crate::graphql::node::NodeId;
use crate::ledger::{Author, NewProductRule, ReopenOutcome, SaveOutcome};

/// Longest title, in bytes: a line on a page.
const TITLE_LEN_MAX: usize = 100;

#[derive(InputObject)]
pub struct BoardInput {
    /// 1 to 32 of a-z, 0-9 and -. That of a board that exists changes it; its window must stay.
    pub id: ID,
    pub title: String,
    pub window: WindowKind,
    /// Only for HALF_LIFE: PT5M to P30D.
    pub half_life: Option<Duration>,
    /// Null means every product.
    pub category: Option<String>,
    pub brand: Option<String>,
    #[graphql(default = "UTC")]
    pub time_zone: String,
    /// 0 to 1; 0 for ALL_TIME and HALF_LIFE.
    #[graphql(default = 0.0)]
    pub carry_over: f64,
}

impl BoardInput {
    /// Checks everything that is wrong.
    pub fn parse(self) -> Result<domain::Board, Vec<UserError>> {
        let mut errors = Vec::new();
        let mut check = |path: &str, problem: Option<String>| {
            errors.extend(problem.map(|message| UserError::invalid(path, message)));
        };
        let id = BoardId::new(&self.id);
        check("id", id.as_ref().err().map(ToString::to_string));
        let is_blank = self.title.trim().is_empty().then(|| "must not be empty".to_owned());
        check("title", is_blank.or_else(|| inputs::text_problem(&self.title, TITLE_LEN_MAX)));
        let half_life = half_life(self.window, self.half_life.as_ref());
        check("halfLife", half_life.as_ref().err().cloned());
        check("category", self.category.as_deref().and_then(inputs::label_problem));
        check("brand", self.brand.as_deref().and_then(inputs::label_problem));
        let zone = domain::time_zone(&self.time_zone).map_err(|error| error.to_string());
        check("timeZone", zone.as_ref().err().cloned());
        let carry_over = carry_over(self.window, self.carry_over);
        check("carryOver", carry_over.as_ref().err().cloned());
        match (id, half_life, zone, carry_over) {
            (Ok(id), Ok(half_life), Ok(time_zone), Ok(carry_over)) if errors.is_empty() => Ok(domain::Board {
                id,
                title: self.title,
                window: self.window.window(half_life).expect("a half-life was asked for where one is needed"),
                scope: Scope { category: self.category, brand: self.brand },
                time_zone,
                carry_over,
            }),
            _ => Err(errors),
        }
    }
}

fn half_life(window: WindowKind, given: Option<&Duration>) -> Result<Option<HalfLife>, String> {
    match (window, given) {
        (WindowKind::HalfLife, None) => Err("the window HALF_LIFE needs one, for example PT1H".to_owned()),
        (WindowKind::HalfLife, Some(Duration(given))) => {
            given.parse().map(Some).map_err(|error| format!("{error}; {given:?} is not"))
        }
        (_, None) => Ok(None),
        (_, Some(_)) => Err("only the window HALF_LIFE has one".to_owned()),
    }
}

fn carry_over(window: WindowKind, share: f64) -> Result<Factor, String> {
    let factor = Factor::from_f64(share).ok().filter(|factor| *factor <= Factor::ONE);
    let factor =
        factor.ok_or_else(|| format!("a share is a number from 0 to 1, with at most six decimals; {share} is not"))?;
    match window {
        WindowKind::AllTime | WindowKind::HalfLife if factor != Factor::ZERO => {
            Err("a board with this window starts no period anew, so nothing carries over".to_owned())
        }
        _ => Ok(factor),
    }
}

#[derive(InputObject)]
pub struct DeleteBoardInput {
    pub id: ID,
    pub note: String,
}

impl DeleteBoardInput {
    /// The board that is to be deleted, and all that is wrong.
    pub fn parse(&self, is_board: impl Fn(&BoardId) -> bool) -> Result<BoardId, Vec<UserError>> {
        let mut errors = Vec::new();
        let board = inputs::board("id", &self.id, is_board, &mut errors);
        if board.as_ref() == Some(&BoardId::daily()) {
            errors.push(UserError::invalid("id", "the board daily stays: it is meant where no board is named"));
        }
        inputs::check_note(&self.note, &mut errors);
        board.filter(|_| errors.is_empty()).ok_or(errors)
    }
}

#[derive(InputObject)]
pub struct RebuildBoardInput {
    pub id: ID,
    /// The key of the first closed period that is computed anew. Null for only what is open.
    pub from_period: Option<String>,
    /// For the audit log.
    pub note: Option<String>,
}

/// What is to be computed anew, and why.
pub struct Rebuild {
    pub board: Arc<domain::Board>,
    pub from: Option<Period>,
    pub note: String,
}

impl RebuildBoardInput {
    /// Checks everything that is wrong. `board` finds a board that there is.
    pub fn parse(
        self,
        board: impl Fn(&BoardId) -> Option<Arc<domain::Board>>,
        now: Timestamp,
    ) -> Result<Rebuild, Vec<UserError>> {
        let mut errors = Vec::new();
        let note = inputs::optional_note(self.note).map_err(|error| errors.push(error));
        let id = inputs::board("id", &self.id, |id| board(id).is_some(), &mut errors);
        let Some(board) = id.and_then(|id| board(&id)) else { return Err(errors) };
        let from = self.from_period.map(|key| first_period(&board, &key, now)).transpose();
        let from = from.map_err(|error| errors.push(error));
        match (from, note) {
            (Ok(from), Ok(note)) => Ok(Rebuild { board, from, note }),
            _ => Err(errors),
        }
    }
}

/// The period that a key names, of a board that shall be computed anew from there on.
fn first_period(board: &domain::Board, key: &str, now: Timestamp) -> Result<Period, UserError> {
    let period = board.period_of_key(key).ok_or_else(|| {
        let now = board.period_at(now).key;
        UserError::invalid("fromPeriod", format!("{key:?} is not the key of a period of this board; {now:?} is one"))
    })?;
    match period.starts_at {
        Some(starts_at) if starts_at > now => {
            Err(UserError::invalid("fromPeriod", format!("the period {key} begins at {starts_at} only")))
        }
        _ => Ok(period),
    }
}

#[derive(SimpleObject, Default)]
pub struct BoardPayload {
    /// As it is now, or was when it was deleted.
    pub board: Option<Board>,
    /// After rebuildBoard: the key of the first closed period that is computed anew. It lies before the one that was asked for
    /// where exact carries begin earlier.
    pub from_period: Option<String>,
    pub user_errors: Vec<UserError>,
}

impl BoardPayload {
    pub fn of(board: domain::Board) -> Self {
        Self { board: Some(Board(Arc::new(board))), ..Self::default() }
    }

    pub fn refused(user_errors: Vec<UserError>) -> Self {
        Self { user_errors, ..Self::default() }
    }

    pub fn reopened(board: &Arc<domain::Board>, outcome: ReopenOutcome) -> Self {
        match outcome {
            ReopenOutcome::Reopened { from } => Self {
                board: Some(Board(board.clone())),
                from_period: from.map(|at| board.period_at(at).key),
                user_errors: Vec::new(),
            },
            ReopenOutcome::Unknown => Self::unknown(&board.id),
        }
    }

    pub fn unknown(id: &BoardId) -> Self {
        Self::refused(vec![UserError::not_found("id", format!("there is no board {id}"))])
    }
}

impl From<SaveOutcome> for BoardPayload {
    fn from(outcome: SaveOutcome) -> Self {
        match outcome {
            SaveOutcome::Saved(definition) => Self::of(definition.board),
            SaveOutcome::Taken(window) => {
                let message = format!("is taken by a board with the window {}", window.name());
                Self::refused(vec![UserError::conflict("id", message)])
            }
            SaveOutcome::Full { most } => {
                let message = format!("there are {most} boards already, which is as many as there may be");
                Self::refused(vec![UserError::invalid("id", message)])
            }
        }
    }
}

#[derive(InputObject)]
pub struct ProductRuleInput {
    pub product_id: ID,
    /// Null means every board.
    pub board: Option<ID>,
    /// An excluded product holds no rank. Neither excluded nor boosted takes back what was decided before.
    pub excluded: Option<bool>,
    /// Multiplies the product's score, for example 1.5 to lift a new product. 0 to 100.
    pub boost: Option<f64>,
    /// From then on it is as if the rule were not there.
    pub until: Option<DateTime>,
    pub note: String,
}

impl ProductRuleInput {
    /// Checks everything that is wrong. `is_known` says whether there is such a product, `is_board` whether there is such a
    /// board.
    pub fn parse(
        self,
        author: impl FnOnce(String) -> Author,
        now: Timestamp,
        is_known: bool,
        is_board: impl Fn(&BoardId) -> bool,
    ) -> Result<NewProductRule, Vec<UserError>> {
        let mut errors = Vec::new();
        let product = inputs::product("productId", &self.product_id, &mut errors);
        if !is_known {
            errors.push(UserError::not_found("productId", format!("there is no product {}", self.product_id.0)));
        }
        let board = self.board.and_then(|id| inputs::board("board", &id, is_board, &mut errors));
        let boost = self.boost.map(|boost| {
            Factor::from_f64(boost).map_err(|_| {
                let message = format!("a boost is a number from 0 to 100, with at most six decimals; {boost} is not");
                UserError::invalid("boost", message)
            })
        });
        let boost = boost.transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        if self.excluded == Some(true) && self.boost.is_some() {
            errors.push(UserError::invalid("boost", "an excluded product scores nothing that could be multiplied"));
        }
        let until = self.until.map(|at| at.0);
        if until.is_some_and(|until| until <= now) {
            errors.push(UserError::invalid("until", format!("a rule ends in the future; it is {now} now")));
        }
        inputs::check_note(&self.note, &mut errors);
        match product {
            Some(product) if errors.is_empty() => {
                let excluded = self.excluded.unwrap_or(false);
                Ok(NewProductRule { product, board, excluded, boost, until, author: author(self.note) })
            }
            _ => Err(errors),
        }
    }
}

/// What an admin has decided about a product. The newest for a product and a board counts, and one for a board counts
/// before one for all.
#[derive(SimpleObject)]
#[graphql(complex)]
pub struct ProductRule {
    #[graphql(skip)]
    version: i32,
    pub id: ID,
    pub product_id: ID,
    /// Null for every board.
    pub board: Option<ID>,
    pub excluded: bool,
    pub boost: Option<f64>,
    pub until: Option<DateTime>,
    pub created_by: String,
    pub created_at: DateTime,
    pub note: String,
}

#[ComplexObject]
impl ProductRule {
    pub async fn node_id(&self) -> ID {
        NodeId::ProductRule(self.version).encode()
    }
}

impl From<domain::ProductRule> for ProductRule {
    fn from(rule: domain::ProductRule) -> Self {
        Self {
            version: rule.version,
            id: ID(rule.version.to_string()),
            product_id: ID(rule.product.to_string()),
            board: rule.board.map(|board| ID(board.to_string())),
            excluded: rule.excluded,
            boost: rule.boost.map(Factor::as_f64),
            until: rule.until.map(DateTime),
            created_by: rule.created_by,
            created_at: DateTime(rule.created_at),
            note: rule.note,
        }
    }
}

#[derive(SimpleObject, Default)]
pub struct ProductRulePayload {
    pub rule: Option<ProductRule>,
    pub user_errors: Vec<UserError>,
}

impl ProductRulePayload {
    pub fn of(rule: domain::ProductRule) -> Self {
        Self { rule: Some(rule.into()), user_errors: Vec::new() }
    }

    pub fn refused(user_errors: Vec<UserError>) -> Self {
        Self { rule: None, user_errors }
    }
}
