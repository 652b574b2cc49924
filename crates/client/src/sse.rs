//! Server-Sent Events, bytes to frames, by the rules of the WHATWG ("9.2.6 Interpreting an event stream").
//!
//! The parser knows no network: [`Parser::feed`] takes bytes as they come, split anywhere, and calls back with each frame
//! that is whole. What it holds meanwhile is bounded.

use std::borrow::Cow;

/// The most that one frame may hold unless [`Parser::with_limit`] says otherwise: an event of tidings is at most 512 KiB.
pub const DEFAULT_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// A frame, or a line that stands for itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A frame with data.
    Frame(Frame<'a>),
    /// `retry:` in milliseconds, at the line where it stood.
    Retry(u64),
    /// A comment: what keeps a silent stream open.
    Comment(&'a [u8]),
}

/// A frame with data, as it is dispatched.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The `event:` field, empty where there was none (a browser calls that `message`).
    pub event: &'a [u8],
    /// The data, lines joined by LF.
    pub data: &'a [u8],
    /// The `id:` of this very frame; [`Parser::last_event_id`] keeps the last one that was seen.
    pub id: Option<&'a [u8]>,
}

impl Frame<'_> {
    /// The event's name as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn event_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.event)
    }

    /// The data as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn data_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.data)
    }

    /// The frame's own id as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn id_text(&self) -> Option<Cow<'_, str>> {
        self.id.map(String::from_utf8_lossy)
    }
}

/// A line or a frame is longer than the parser's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the stream is longer than {limit_bytes} bytes")]
pub struct TooLong {
    /// The limit that was passed.
    pub limit_bytes: usize,
}

/// Where the stream's very first bytes stand: one byte order mark may be skipped there.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Takes bytes as they come and gives whole frames.
#[derive(Debug)]
pub struct Parser {
    limit_bytes: usize,
    /// How much of a leading byte order mark has been seen; `None` once the stream has begun.
    bom_seen: Option<usize>,
    /// The last line ended with CR, so that an LF right now belongs to it.
    is_after_cr: bool,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    fields: Fields,
}

/// What the lines since the last empty one have said.
#[derive(Debug, Default)]
struct Fields {
    event: Vec<u8>,
    data: Vec<u8>,
    has_id: bool,
    last_event_id: Vec<u8>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser at the beginning of a stream, with [`DEFAULT_LIMIT_BYTES`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(DEFAULT_LIMIT_BYTES)
    }

    /// A parser that refuses a line, or the data of a frame, longer than `limit_bytes`.
    #[must_use]
    pub fn with_limit(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            bom_seen: Some(0),
            is_after_cr: false,
            line: Vec::new(),
            fields: Fields::default(),
        }
    }

    /// The last `id:` that the stream has set.
    #[must_use]
    pub fn last_event_id(&self) -> &[u8] {
        &self.fields.last_event_id
    }

    /// Takes the next bytes and calls `found` for all that is whole with them. After an error the stream is of no use.
    pub fn feed(&mut self, bytes: &[u8], found: &mut impl FnMut(Item<'_>)) -> Result<(), TooLong> {
        let mut rest = self.skip_bom(bytes);
        // [spec] "Lines must be separated by either a CRLF pair, a single LF, or a single CR."
        if self.is_after_cr && !rest.is_empty() {
            self.is_after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (line, after) = rest.split_at(end);
            if self.line.is_empty() {
                self.fields.line(line, self.limit_bytes, found)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.line);
                self.fields.line(&whole, self.limit_bytes, found)?;
                self.line = whole;
                self.line.clear();
                // One long line must not keep its memory for the whole life of a quiet stream.
                self.line.shrink_to(KEPT_BYTES);
            }
            rest = match after {
                [b'\r', b'\n', after @ ..] | [_, after @ ..] => after,
                [] => after,
            };
            self.is_after_cr = after == b"\r";
        }
        self.keep(rest)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + part.len() > self.limit_bytes {
            return Err(TooLong {
                limit_bytes: self.limit_bytes,
            });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    /// `[spec]` "If the stream begins with a BYTE ORDER MARK, it is ignored", also one that comes in pieces.
    fn skip_bom<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        while let (Some(seen), Some((first, after))) = (self.bom_seen, rest.split_first()) {
            if BOM.get(seen) == Some(first) {
                rest = after;
                self.bom_seen = (seen + 1 < BOM.len()).then_some(seen + 1);
            } else {
                // Not a mark after all: what looked like its beginning is text.
                self.line.extend_from_slice(&BOM[..seen]);
                self.bom_seen = None;
            }
        }
        rest
    }
}

/// What a buffer keeps when it is empty.
const KEPT_BYTES: usize = 1024;

impl Fields {
    fn line(
        &mut self,
        line: &[u8],
        limit_bytes: usize,
        found: &mut impl FnMut(Item<'_>),
    ) -> Result<(), TooLong> {
        if line.len() > limit_bytes {
            return Err(TooLong { limit_bytes });
        }
        // [spec] "If the line is empty (a blank line): dispatch the event."
        if line.is_empty() {
            self.dispatch(found);
            return Ok(());
        }
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = match colon {
            // [spec] "If the line starts with a U+003A COLON character (:): ignore the line."
            Some(0) => {
                found(Item::Comment(&line[1..]));
                return Ok(());
            }
            Some(at) => (&line[..at], &line[at + 1..]),
            // [spec] "Otherwise: process the field using the whole line as the field name, and the empty string as the
            // field value."
            None => (line, &line[line.len()..]),
        };
        // [spec] "If value starts with a U+0020 SPACE character, remove it from value."
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.data.len() + value.len() + 1 > limit_bytes {
                    return Err(TooLong { limit_bytes });
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            // [spec] "If the field value does not contain U+0000 NULL, then set the last event ID buffer."
            b"id" if !value.contains(&0) => {
                self.has_id = true;
                self.last_event_id.clear();
                self.last_event_id.extend_from_slice(value);
            }
            // [spec] "If the field value consists of only ASCII digits."
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                if let Some(millis) = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()) {
                    found(Item::Retry(millis));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, found: &mut impl FnMut(Item<'_>)) {
        // [spec] "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty
        // string and return." The id stays.
        if let [data @ .., b'\n'] = &self.data[..] {
            found(Item::Frame(Frame {
                event: &self.event,
                data,
                id: self.has_id.then_some(&self.last_event_id[..]),
            }));
        }
        self.data.clear();
        self.data.shrink_to(KEPT_BYTES);
        self.event.clear();
        self.has_id = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Seen {
        Frame(Vec<u8>, Vec<u8>, Option<Vec<u8>>),
        Retry(u64),
        Comment(Vec<u8>),
    }

    fn parse(pieces: &[&[u8]]) -> Vec<Seen> {
        let (mut parser, mut seen) = (Parser::new(), Vec::new());
        for piece in pieces {
            parser
                .feed(piece, &mut |item| {
                    seen.push(match item {
                        Item::Frame(f) => {
                            Seen::Frame(f.event.into(), f.data.into(), f.id.map(Into::into))
                        }
                        Item::Retry(millis) => Seen::Retry(millis),
                        Item::Comment(text) => Seen::Comment(text.into()),
                    });
                })
                .unwrap();
        }
        seen
    }

    fn frame(event: &str, data: &str, id: Option<&str>) -> Seen {
        Seen::Frame(event.into(), data.into(), id.map(Into::into))
    }

    #[test]
    fn one_byte_order_mark_at_the_very_start_is_skipped() {
        assert_eq!(
            parse(&[b"\xEF", b"\xBB", b"\xBFdata: x\n\n"]),
            [frame("", "x", None)]
        );
        assert_eq!(parse(&[b"\xEF\xBB\xBF\xEF\xBB\xBFdata: x\n\n"]), []);
        assert_eq!(
            parse(&[b"data: x\n\n\xEF\xBB\xBFdata: y\n\n"]),
            [frame("", "x", None)]
        );
        // The beginning of a mark that is none belongs to the first field's name.
        assert_eq!(
            parse(&[b"\xEF\xBB", b"data: x\n\ndata: y\n\n"]),
            [frame("", "y", None)]
        );
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut parser = Parser::with_limit(16);
        assert!(parser.feed(b"data: 0123456789", &mut |_| {}).is_ok());
        assert_eq!(
            parser.feed(b"x", &mut |_| {}),
            Err(TooLong { limit_bytes: 16 })
        );
        let mut parser = Parser::with_limit(16);
        assert!(parser.feed(b"data: 0123456\n", &mut |_| {}).is_ok());
        assert!(parser.feed(b"data: 0123456789\n", &mut |_| {}).is_err());
        let mut parser = Parser::with_limit(16);
        assert!(
            parser
                .feed(b"data: 0123456789 0123456789\n\n", &mut |_| {})
                .is_err()
        );
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let name = prop_oneof![
            Just(&b"data"[..]),
            Just(&b"event"[..]),
            Just(&b"id"[..]),
            Just(&b"retry"[..]),
            Just(&b""[..]),
            Just(&b"\xEF\xBB\xBFdata"[..]),
            Just(&b"x"[..]),
        ];
        let value = proptest::collection::vec(
            prop_oneof![
                Just(b' '),
                Just(b':'),
                Just(b'7'),
                Just(0u8),
                Just(0xEF),
                Just(0xBB),
                Just(0xBF),
                any::<u8>(),
            ],
            0..6,
        );
        let end = prop_oneof![
            Just(&b"\n"[..]),
            Just(&b"\r"[..]),
            Just(&b"\r\n"[..]),
            Just(&b"\n\n"[..]),
            Just(&b"\r\r"[..]),
            Just(&b"\r\n\r\n"[..]),
        ];
        (name, any::<bool>(), value, end).prop_map(|(name, has_colon, value, end)| {
            let colon: &[u8] = if has_colon { b":" } else { b"" };
            [name, colon, &value, end].concat()
        })
    }

    /// The standard's rules without any streaming: all bytes at once, line by line.
    fn reference(bytes: &[u8]) -> Vec<Seen> {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let (mut lines, mut line, mut at) = (Vec::new(), Vec::new(), 0);
        while at < bytes.len() {
            match bytes[at] {
                b'\r' | b'\n' => {
                    lines.push(std::mem::take(&mut line));
                    at += usize::from(bytes[at..].starts_with(b"\r\n"));
                }
                byte => line.push(byte),
            }
            at += 1;
        }
        let (mut seen, mut data, mut event, mut id) = (Vec::new(), Vec::new(), Vec::new(), None);
        for line in lines {
            let at = line.iter().position(|b| *b == b':');
            let (name, value) = line.split_at(at.unwrap_or(line.len()));
            let value = value.strip_prefix(b":").unwrap_or(value);
            let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
            match name {
                b"" if line.is_empty() => {
                    if data.pop().is_some() {
                        seen.push(Seen::Frame(
                            std::mem::take(&mut event),
                            std::mem::take(&mut data),
                            id,
                        ));
                    }
                    event.clear();
                    id = None;
                }
                b"" => seen.push(Seen::Comment(line[1..].into())),
                b"data" => data.extend(value.into_iter().chain([b'\n'])),
                b"event" => event = value,
                b"id" if !value.contains(&0) => id = Some(value),
                b"retry" if value.iter().all(u8::is_ascii_digit) => {
                    let parsed = String::from_utf8(value).ok().and_then(|v| v.parse().ok());
                    seen.extend(parsed.map(Seen::Retry));
                }
                _ => {}
            }
        }
        seen
    }

    proptest! {
        #[test]
        fn splitting_anywhere_changes_nothing(lines in proptest::collection::vec(line(), 0..12)) {
            let bytes = lines.concat();
            let wanted = reference(&bytes);
            prop_assert_eq!(&parse(&[&bytes]), &wanted);
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                prop_assert_eq!(&parse(&[head, tail]), &wanted, "split at {}", at);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&parse(&single), &wanted);
        }
    }
}
