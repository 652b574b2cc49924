//! Lists that are read page by page: `?limit=&after=` asks, `{"<name>": [...], "cursor": ...}` answers. The cursor is the
//! last item's id where more come after it, else null.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::http::problem::Problem;
use crate::transport::request::Query;

/// Items of a page where the request does not say.
const DEFAULT_LIMIT: u64 = 100;
/// Items that a page may hold.
const MAX_LIMIT: u64 = 1_000;

/// Which page of a list is asked for.
#[derive(Debug)]
pub(super) struct Page {
    /// The id of the last item of the page before.
    pub(super) after: Option<String>,
    limit: usize,
}

impl Page {
    /// Reads a request's query.
    pub(super) fn of(query: &Query) -> Result<Self, Problem> {
        let limit = query.number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)?;
        Ok(Self {
            after: query.get("after").map(str::to_owned),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        })
    }

    /// How many items to read: one more than the page holds, to know whether it is the last one.
    pub(super) fn to_read(&self) -> usize {
        self.limit.saturating_add(1)
    }

    /// Answers with the first of the items after the cursor, as they are shown.
    pub(super) fn answer<T, S: Serialize>(
        &self,
        name: &'static str,
        mut items: Vec<T>,
        id: impl Fn(&T) -> &str,
        show: impl FnMut(T) -> S,
    ) -> Response {
        let is_more = items.len() > self.limit;
        items.truncate(self.limit);
        let last = items.last().filter(|_| is_more);
        let list = List {
            name,
            cursor: last.map(|item| id(item).to_owned()),
            items: items.into_iter().map(show).collect(),
        };
        Json(list).into_response()
    }
}

struct List<S> {
    name: &'static str,
    items: Vec<S>,
    cursor: Option<String>,
}

impl<S: Serialize> Serialize for List<S> {
    fn serialize<T: Serializer>(&self, to: T) -> Result<T::Ok, T::Error> {
        let mut members = to.serialize_map(Some(2))?;
        members.serialize_entry(self.name, &self.items)?;
        members.serialize_entry("cursor", &self.cursor)?;
        members.end()
    }
}
