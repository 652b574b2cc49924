//! The nearest known name to a misspelt one.

/// The known name that a reader most probably meant, if any is near: at most a third of its letters differ.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).min(4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["stream.heartbeat", "stream.idle", "listen"];
        assert_eq!(nearest("stream.hartbeat", known), Some("stream.heartbeat"));
        assert_eq!(nearest("lisetn", known), Some("listen"));
        assert_eq!(nearest("colour", known), None);
    }
}
