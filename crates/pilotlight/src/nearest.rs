//! What somebody may have meant who misspelt a name.

/// The one of `known` that takes the fewest edits to come to from `name`, and how many.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<(String, usize)> {
    known.map(|known| (distance(name, &known), known)).min().map(|(edits, known)| (known, edits))
}

/// Levenshtein's distance, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (done, from) in left.bytes().enumerate() {
        let mut diagonal = done;
        let mut last = done + 1;
        let mut next = vec![last];
        for (above, to) in row.iter().skip(1).zip(right.bytes()) {
            last = (diagonal + usize::from(from != to)).min(above + 1).min(last + 1);
            diagonal = *above;
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_takes_the_fewest_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        let known = ["sitting", "mitten", "kit"].map(str::to_owned);
        assert_eq!(nearest("kitten", known.into_iter()), Some(("mitten".to_owned(), 1)));
        assert_eq!(nearest("kitten", std::iter::empty()), None);
    }
}
