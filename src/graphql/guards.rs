//! Who calls, and what they may do.
//!
//! The server puts a [`Caller`] into every operation; a call without one is an anonymous one without any role. Guards
//! run before arguments are looked at, so that a stranger learns nothing from how a bad argument is refused.

use async_graphql::{Context, Enum, Guard, Result};

use super::app;
use super::errors::Failure;
use crate::domain::{Producer, UserId};
use crate::ledger::Author;
use crate::pipeline::AppError;

#[derive(Enum, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    User,
    Ingest,
    Admin,
    // Reads metrics, which are no part of this API; alone, it reads nothing else.
    Metrics,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::User, Self::Ingest, Self::Admin, Self::Metrics];

    /// As it stands in the API and in a token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Ingest => "INGEST",
            Self::Admin => "ADMIN",
            Self::Metrics => "METRICS",
        }
    }

    /// Upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name().eq_ignore_ascii_case(name))
    }
}

/// Who calls: the viewer where somebody is signed in, and the roles granted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Caller {
    pub user: Option<UserId>,
    pub roles: Vec<Role>,
    /// To whom events belong that the caller records; `None` in open mode, where they belong to nobody.
    pub producer: Option<Producer>,
}

/// For whom an operation runs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Audience {
    One(Caller),
    /// For all who ask the same. Whatever depends on the caller fails.
    Everyone,
}

/// Who is signed in, if anybody; an error where an operation runs for everyone.
pub type Viewing = Result<Option<UserId>, AppError>;

impl Caller {
    /// Nobody, with no role.
    pub const ANONYMOUS: &'static Self = &Self { user: None, roles: Vec::new(), producer: None };

    /// Who calls this operation.
    pub fn of<'a>(ctx: &Context<'a>) -> Result<&'a Self, AppError> {
        match ctx.data_opt::<Audience>() {
            Some(Audience::One(caller)) => Ok(caller),
            Some(Audience::Everyone) => {
                Err(AppError::Internal("what depends on the viewer was asked for everyone".to_owned()))
            }
            None => Ok(Self::ANONYMOUS),
        }
    }

    /// The user of [`Self::of`], to be looked at only where an answer depends on it.
    pub fn viewing(ctx: &Context<'_>) -> Viewing {
        Self::of(ctx).map(|caller| caller.user.clone())
    }

    /// The viewer, or UNAUTHENTICATED.
    pub fn viewer(&self) -> Result<&UserId, Failure> {
        self.user.as_ref().ok_or(Failure::Unauthenticated("this needs a signed-in viewer".to_owned()))
    }

    pub fn is_admin(&self) -> bool {
        self.roles.contains(&Role::Admin)
    }

    /// Fails where the caller lacks a role.
    pub fn has(&self, role: Role) -> Result<(), Failure> {
        match (self.roles.contains(&role), &self.user) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(Failure::Forbidden(role)),
            (false, None) => {
                Err(Failure::Unauthenticated(format!("this needs to be signed in with the role {}", role.name())))
            }
        }
    }
}

/// Who may read what scores are made of: the counts and weights behind every rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Explanations {
    Anyone,
    /// Whoever is signed in.
    Users,
    Admins,
}

/// Lets those pass for whom the setting is.
pub struct MayExplain;

impl Guard for MayExplain {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        match ctx.data_opt().unwrap_or(&Explanations::Anyone) {
            Explanations::Anyone => Ok(()),
            Explanations::Users => SignedIn.check(ctx).await,
            Explanations::Admins => Needs(Role::Admin).check(ctx).await,
        }
    }
}

/// Signs a note with who calls, now.
pub fn author(ctx: &Context<'_>) -> Result<impl FnOnce(String) -> Author + use<>> {
    let name = Caller::of(ctx)?.user.as_ref().map_or("anonymous".to_owned(), ToString::to_string);
    let at = app(ctx).now();
    Ok(move |note| Author { name, at, note })
}

/// Lets nobody pass who is not signed in.
pub struct SignedIn;

impl Guard for SignedIn {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        Ok(Caller::of(ctx)?.viewer().map(|_| ())?)
    }
}

/// Lets those with the role pass.
pub struct Needs(pub Role);

impl Guard for Needs {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        Ok(Caller::of(ctx)?.has(self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{EmptyMutation, EmptySubscription, Object, Request, Schema};

    use super::*;

    struct Query;

    #[Object]
    impl Query {
        async fn depends(&self, ctx: &Context<'_>) -> Result<bool> {
            Ok(Caller::of(ctx)?.user.is_some())
        }

        #[graphql(guard = "Needs(Role::User)")]
        async fn guarded(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn what_depends_on_the_caller_fails_where_it_runs_for_everyone() {
        let schema = Schema::new(Query, EmptyMutation, EmptySubscription);
        let caller = Caller { user: Some(UserId::new("ann").unwrap()), roles: vec![Role::User], ..Caller::default() };
        for query in ["{ depends }", "{ guarded }"] {
            let own = schema.execute(Request::new(query).data(Audience::One(caller.clone()))).await;
            assert!(own.errors.is_empty(), "{query}: {own:?}");
            let shared = schema.execute(Request::new(query).data(Audience::Everyone)).await;
            let source = shared.errors.first().and_then(|error| error.source::<AppError>());
            assert!(matches!(source, Some(AppError::Internal(_))), "{query}: {shared:?}");
        }
    }
}
