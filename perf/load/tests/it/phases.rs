//! Where requests' time went, from servers that tell it in one call, one by one, or not at all.

use super::harness::{Script, Scripted, Tells, Then, closed, events, run, setup};

/// Phases that were told, and how it was asked.
fn told(tells: Tells) -> (usize, Vec<String>) {
    let answer = events(&[r#"{"choices":[{"delta":{"content":"a"}}]}"#, "[DONE]"]);
    let server = Scripted::telling(vec![Script { answer, then: Then::Close }], tells);
    let document = run(setup(server.address), closed(4, 2, 1)).unwrap();
    let phases: Vec<_> =
        document.measured.records.iter().filter_map(|record| record.phases.clone()).collect();
    assert!(phases.iter().all(|phases| phases.decode_wait_us.unwrap().0 == 4_000), "{phases:?}");
    (phases.len(), server.asked())
}

#[test]
fn many_are_asked_about_at_once_where_that_is_possible() {
    assert_eq!(told(Tells::Many), (4, vec!["POST".to_owned()]));
    let one_by_one = ["POST", "GET", "GET", "GET", "GET"].map(str::to_owned).to_vec();
    assert_eq!(told(Tells::OneByOne), (4, one_by_one));
    assert_eq!(told(Tells::Nothing), (0, vec!["POST".to_owned(), "GET".to_owned()]));
}
