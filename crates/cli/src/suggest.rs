//! Did you mean: the known word nearest to a mistyped one.

/// The candidate nearest to `word`, when it is near enough to be what was meant: at most a third
/// of the word's letters away (at least one), counting a swap of neighbours as one.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Longer words are nobody's typing; the bound keeps the table small whatever comes in.
    const LETTERS_MAX: usize = 64;
    let word_length = word.chars().count();
    if word_length == 0 || word_length > LETTERS_MAX {
        return None;
    }
    let allowed = (word_length / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count() <= LETTERS_MAX)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean X?` or nothing, to be put behind an error's sentence.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    nearest(word, candidates).map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// Edits between two words: insert, delete, replace, swap neighbours (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut before_last = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (i, &a) in left.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, &b) in right.iter().enumerate() {
            let replace = last[j] + usize::from(a != b);
            row[j + 1] = replace.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == right[j - 1] && left[i - 1] == b {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_slip_of_a_finger() {
        let known = ["port", "address", "connections-max"];
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("conections-max", known), Some("connections-max"));
        assert_eq!(nearest("certificate", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(did_you_mean("prot", known), "; did you mean port?");
        assert_eq!(did_you_mean("zzzz", known), "");
    }

    proptest! {
        #[test]
        fn distance_is_a_distance(a in "[a-e]{0,8}", b in "[a-e]{0,8}") {
            prop_assert_eq!(distance(&a, &a), 0);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
        }
    }
}
