//! What is done about what a client says.

use axum::extract::ws::{Message, close_code};
use tidings_core::topic::{MAX_PATTERNS, Pattern, Patterns};

use super::message::{
    Answer, Publish, Refresh, Said, Subscribe, Unsubscribe, read, with_reference,
};
use super::{End, Socket};
use crate::http::api::events;
use crate::http::problem::Problem;
use crate::transport::admission::{check_ticket, nothing_of};
use crate::transport::request;

impl Socket {
    pub(super) async fn hear(
        &mut self,
        said: Option<Result<Message, axum::Error>>,
    ) -> Result<(), End> {
        match said {
            None | Some(Ok(Message::Close(_))) => Err(End::Gone),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => Err(End::Fault(
                close_code::UNSUPPORTED,
                "messages are JSON text; binary frames are for ephemeral topics of a module",
            )),
            Some(Ok(Message::Text(text))) => self.answer(text.as_str()).await,
            Some(Err(e)) => {
                let why = e.into_inner().to_string().to_ascii_lowercase();
                Err(if why.contains("utf-8") || why.contains("utf8") {
                    End::Fault(close_code::INVALID, "the text is not UTF-8")
                } else if why.contains("too long")
                    || why.contains("too big")
                    || why.contains("capacity")
                {
                    End::Fault(close_code::SIZE, "the message is too long")
                } else {
                    End::Gone
                })
            }
        }
    }

    async fn answer(&mut self, text: &str) -> Result<(), End> {
        let (reference, said) = read(text, self.app.config.limits.json_depth);
        let answer = match said {
            Ok(said) => self.act(said).await,
            Err(problem) => Err(problem),
        };
        let (answer, reset) = match answer {
            Ok(done) => done,
            Err(problem) => (Answer::Error { problem }, false),
        };
        self.send(Message::text(with_reference(&answer, reference)))
            .await?;
        self.silence.spoke(self.app.clock.now());
        if reset { self.reset().await } else { Ok(()) }
    }

    /// Does what was said. Beside the answer: whether a cursor came that names no place of this log.
    async fn act(&mut self, said: Said) -> Result<(Answer, bool), Problem> {
        match said {
            Said::Ping => Ok((Answer::Pong, false)),
            Said::Subscribe(Subscribe { topics, cursor }) => self.add(topics, cursor.as_deref()),
            Said::Unsubscribe(Unsubscribe { topics }) => {
                self.take_away(&topics).map(|answer| (answer, false))
            }
            Said::Refresh(Refresh { token }) => {
                self.refresh(&token).await.map(|answer| (answer, false))
            }
            Said::Publish(Publish {
                event,
                events,
                idempotency_key,
            }) => {
                let items = match (event, events) {
                    (Some(event), None) => vec![event],
                    (None, Some(events)) => events,
                    _ => return Err(Problem::invalid("event", "exactly one of event and events")),
                };
                let principal = self.admitted.connection.principal();
                let published =
                    events::publish_items(&self.app, &principal, items, idempotency_key).await?;
                let ids = published.ids.iter().map(ToString::to_string).collect();
                Ok((
                    Answer::Published {
                        ids,
                        cursor: published.cursor.map(|c| c.to_string()),
                    },
                    false,
                ))
            }
        }
    }

    fn add(
        &mut self,
        topics: Vec<String>,
        cursor: Option<&str>,
    ) -> Result<(Answer, bool), Problem> {
        let more = request::patterns(&topics).map_err(|why| Problem::invalid("topics", &why))?;
        if topics.is_empty() {
            return Err(Problem::invalid("topics", "at least one topic or pattern"));
        }
        check_ticket(self.ticket_topics.as_ref(), &more)?;
        let connection = self.admitted.connection.clone();
        if cursor.is_some() && self.reader.is_some() {
            return Err(Problem::invalid(
                "cursor",
                "one cursor for the connection: only the first subscribe may set it",
            ));
        }
        let all: Vec<Pattern> = connection
            .asked()
            .as_slice()
            .iter()
            .chain(more.as_slice())
            .cloned()
            .collect();
        let asked = Patterns::new(all);
        if asked.as_slice().len() > MAX_PATTERNS {
            return Err(Problem::invalid(
                "topics",
                &format!("at most {MAX_PATTERNS} topics on one connection"),
            ));
        }
        let (scope, lost) = self
            .app
            .transports
            .connections
            .scope(&connection.principal(), &asked);
        if let Some(pattern) = lost.iter().find(|p| more.as_slice().contains(p)) {
            return Err(nothing_of(pattern, "topics"));
        }
        connection.set_scope(asked, scope.clone());
        let is_reset = self.subscribe(scope, cursor.map(str::as_bytes));
        Ok((
            Answer::Subscribed {
                topics,
                cursor: self.cursor().to_string(),
            },
            is_reset,
        ))
    }

    fn take_away(&mut self, topics: &[String]) -> Result<Answer, Problem> {
        let gone = request::patterns(topics).map_err(|why| Problem::invalid("topics", &why))?;
        let connection = self.admitted.connection.clone();
        let had = connection.asked();
        if let Some(pattern) = gone.as_slice().iter().find(|p| !had.as_slice().contains(p)) {
            return Err(Problem::invalid(
                "topics",
                &format!("{pattern} is not subscribed"),
            ));
        }
        let asked = Patterns::new(
            had.as_slice()
                .iter()
                .filter(|p| !gone.as_slice().contains(p))
                .cloned()
                .collect(),
        );
        let (scope, _) = self
            .app
            .transports
            .connections
            .scope(&connection.principal(), &asked);
        connection.set_scope(asked, scope.clone());
        self.subscribe(scope, None);
        Ok(Answer::Unsubscribed {
            topics: topics.to_vec(),
        })
    }

    async fn refresh(&mut self, token: &str) -> Result<Answer, Problem> {
        let connection = self.admitted.connection.clone();
        let principal = self
            .app
            .verify_refresh(&connection.principal(), token)
            .await?;
        let expires_at = principal.expires_at.to_string();
        // The connection is in the table for as long as we hold it.
        let _ = self.app.transports.connections.refresh(
            &connection.log.tenant,
            connection.id,
            principal,
        );
        Ok(Answer::Refreshed { expires_at })
    }
}
