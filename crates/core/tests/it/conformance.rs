//! `conformance/topics.yaml`: which texts are topics and patterns, and what a pattern stands for.

use serde::Deserialize;
use tidings_core::topic::{InvalidTopic, Pattern, Topic};

#[derive(Deserialize)]
struct Cases {
    topics: Texts,
    patterns: Texts,
    matches: Vec<Match>,
}

#[derive(Deserialize)]
struct Texts {
    valid: Vec<String>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Invalid {
    text: String,
    why: String,
}

#[derive(Deserialize)]
struct Match {
    pattern: String,
    yes: Vec<String>,
    no: Vec<String>,
}

fn cases() -> Cases {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance/topics.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn word(why: InvalidTopic) -> &'static str {
    match why {
        InvalidTopic::Empty => "empty",
        InvalidTopic::TooLong => "too_long",
        InvalidTopic::TooDeep => "too_deep",
        InvalidTopic::SegmentTooLong => "segment_too_long",
        InvalidTopic::Dots => "dots",
        InvalidTopic::Character => "character",
        InvalidTopic::Wildcard => "wildcard",
    }
}

#[test]
fn topics() {
    let Texts { valid, invalid } = cases().topics;
    for text in valid {
        assert_eq!(Topic::new(&text).map(|t| t.to_string()), Ok(text.clone()));
        assert_eq!(
            Pattern::new(&text).unwrap().as_topic().unwrap().as_str(),
            text
        );
    }
    for Invalid { text, why } in invalid {
        assert_eq!(
            Topic::new(&text).map_err(word),
            Err(why.as_str()),
            "{text:?}"
        );
        if !text.contains('*') {
            assert_eq!(
                Pattern::new(&text).map_err(word),
                Err(why.as_str()),
                "{text:?}"
            );
        }
    }
}

#[test]
fn patterns() {
    let Texts { valid, invalid } = cases().patterns;
    for text in valid {
        let pattern = Pattern::new(&text).unwrap();
        assert_eq!(
            (pattern.as_str(), pattern.as_topic()),
            (text.as_str(), None)
        );
    }
    for Invalid { text, why } in invalid {
        assert_eq!(
            Pattern::new(&text).map_err(word),
            Err(why.as_str()),
            "{text:?}"
        );
    }
}

#[test]
fn what_a_pattern_stands_for() {
    for case in cases().matches {
        let pattern = Pattern::new(&case.pattern).unwrap();
        for (topics, matches) in [(case.yes, true), (case.no, false)] {
            for topic in topics {
                let topic = Topic::new(&topic).unwrap();
                assert_eq!(
                    pattern.matches(topic.as_str()),
                    matches,
                    "{pattern} {topic}"
                );
            }
        }
    }
}
