use proptest::prelude::*;

use super::*;

/// What is shown after each delta, and which stop string ended it.
fn stream(deltas: &[&str], stops: &[&str], include_stop: bool) -> (Vec<String>, Option<usize>) {
    let mut matcher = StopMatcher::new(stops, include_stop);
    let mut shown = Vec::new();
    for delta in deltas {
        let mut out = String::new();
        let found = matcher.push(delta, &mut out);
        shown.push(out);
        if let Some(found) = found {
            return (shown, Some(found.stop));
        }
    }
    let mut rest = String::new();
    matcher.finish(&mut rest);
    shown.push(rest);
    (shown, None)
}

/// The definition, literally: grow the text by characters until a stop string ends there.
fn reference(text: &str, stops: &[&str], include_stop: bool) -> (String, Option<usize>) {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    for end in ends {
        let longest = (0..stops.len())
            .filter(|&stop| !stops[stop].is_empty() && text[..end].ends_with(stops[stop]))
            .max_by_key(|&stop| (stops[stop].len(), usize::MAX - stop));
        if let Some(stop) = longest {
            let shown = if include_stop { end } else { end - stops[stop].len() };
            return (text[..shown].to_owned(), Some(stop));
        }
    }
    (text.to_owned(), None)
}

#[test]
fn only_what_may_be_a_stop_string_is_held_back() {
    let (shown, stop) = stream(&["one EN", "Dless", " EN"], &["END!"], false);
    assert_eq!(shown, ["one ", "ENDless", " ", "EN"]);
    assert_eq!(stop, None);
}

#[test]
fn a_stop_string_across_deltas_is_cut_off_or_kept() {
    assert_eq!(
        stream(&["say E", "N", "D now"], &["END"], false),
        (vec!["say ".into(), String::new(), String::new()], Some(0))
    );
    assert_eq!(
        stream(&["say E", "N", "D now"], &["END"], true),
        (vec!["say ".into(), String::new(), "END".into()], Some(0))
    );
}

#[test]
fn the_stop_string_that_ends_first_wins_and_then_the_longest() {
    assert_eq!(stream(&["xabcd"], &["abcd", "bc"], false), (vec!["xa".into()], Some(1)));
    assert_eq!(stream(&["xabc"], &["bc", "abc"], false), (vec!["x".into()], Some(1)));
}

#[test]
fn a_repeated_start_is_not_missed() {
    assert_eq!(stream(&["aaa", "ab"], &["aab"], false).1, Some(0));
}

proptest! {
    #[test]
    fn any_cut_gives_the_reference_answer(
        pieces in prop::collection::vec("[abé]{0,4}", 0..12),
        stops in prop::collection::vec("[abé]{0,4}", 0..4),
        include_stop: bool,
    ) {
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let (shown, stop) = stream(&pieces, &stops, include_stop);
        prop_assert_eq!((shown.concat(), stop), reference(&pieces.concat(), &stops, include_stop));
    }

    /// Held back is only what a continuation could turn into a stop string.
    #[test]
    fn nothing_else_is_held_back(text in "[ab]{0,10}", stop in "[ab]{1,4}") {
        let (shown, found) = stream(&[&text], &[&stop], false);
        if found.is_none() {
            let held = &shown[1];
            prop_assert!(held.is_empty() || (stop.starts_with(held.as_str()) && *held != stop), "{held}");
        }
    }
}
