//! How far workers are apart, by their labels.

use std::collections::BTreeMap;

use baton_policy::{
    cost::LinkCost,
    view::{LinkClass, Links},
};

/// From near to far; a label that is missing says nothing.
const LABELS: [&str; 3] =
    ["kubernetes.io/hostname", "topology.kubernetes.io/rack", "topology.kubernetes.io/zone"];

/// Classes of links: what two workers have in common. Each begins with the same cost, and learns its own.
const CLASSES: [(&str, f64); 4] =
    [("same host", 0.0), ("same rack", 0.25), ("same zone", 0.5), ("further away", 1.0)];

/// Where a worker is: its values of [`LABELS`], those that are near left out where there would be too many places.
type Place = [Option<String>; LABELS.len()];

/// Places of workers.
pub(super) struct Topology {
    places: Vec<Place>,
    /// Labels that are looked at: from this one on.
    nearest: usize,
}

impl Default for Topology {
    fn default() -> Self {
        Self { places: vec![Place::default()], nearest: 0 }
    }
}

impl Topology {
    /// Classes for [`Links`].
    pub(super) fn classes() -> Vec<LinkClass> {
        let class = |&(name, distance): &(&str, f64)| LinkClass {
            name: name.to_owned(),
            cost: LinkCost::default(),
            distance,
        };
        CLASSES.iter().map(class).collect()
    }

    /// The group of a worker with these labels. A new place makes new groups in `links`; where there are too many, near labels do not
    /// count any more, and `None` says that every worker has to be asked again.
    pub(super) fn group(&mut self, labels: &BTreeMap<String, String>, links: &mut Links) -> Option<u16> {
        let place = self.place(labels);
        if let Some(group) = self.places.iter().position(|known| *known == place) {
            return Some(group as u16);
        }
        self.places.push(place);
        let places = &self.places;
        let class = |from: usize, to: usize| class_of(&places[from], &places[to]);
        match links.regroup(places.len(), class) {
            Ok(()) => Some((places.len() - 1) as u16),
            Err(too_many) => {
                tracing::warn!(
                    %too_many,
                    ignored = LABELS[self.nearest.min(LABELS.len() - 1)],
                    "workers are in too many places: this label does not count any more"
                );
                self.nearest += 1;
                self.places = vec![Place::default()];
                None
            }
        }
    }

    fn place(&self, labels: &BTreeMap<String, String>) -> Place {
        std::array::from_fn(|at| labels.get(LABELS[at]).filter(|_| at >= self.nearest).cloned())
    }
}

// The nearest thing that they have in common. Of whom nothing is known, nothing bad is thought: all workers on one machine need no labels.
fn class_of(from: &Place, to: &Place) -> usize {
    let known = |at: usize| from[at].is_some() && to[at].is_some();
    let shared = (0..LABELS.len()).find(|&at| known(at) && from[at] == to[at]);
    shared.unwrap_or(if (0..LABELS.len()).any(known) { LABELS.len() } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(host: &str, rack: &str, zone: &str) -> BTreeMap<String, String> {
        let values = LABELS.iter().zip([host, rack, zone]).filter(|(_, value)| !value.is_empty());
        values.map(|(key, value)| ((*key).to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn distances_go_by_what_two_workers_have_in_common() {
        let (mut topology, mut links) = (Topology::default(), Links::default());
        links.set_classes(Topology::classes());
        let mut group = |host, rack, zone| topology.group(&labels(host, rack, zone), &mut links).unwrap();
        let [here, same_rack, same_zone, far, nowhere] = [
            group("h1", "r1", "z1"),
            group("h2", "r1", "z1"),
            group("h3", "r2", "z1"),
            group("h4", "r3", "z2"),
            group("", "", ""),
        ];
        assert_eq!(group("h2", "r1", "z1"), same_rack);
        let class = |to| links.class(here, to);
        assert_eq!([here, same_rack, same_zone, far, nowhere].map(class), [0, 1, 2, 3, 0]);
    }

    #[test]
    fn hosts_do_not_count_when_there_are_too_many() {
        let (mut topology, mut links) = (Topology::default(), Links::default());
        links.set_classes(Topology::classes());
        let zone = |host: usize| if host.is_multiple_of(2) { "a" } else { "b" };
        let mut again = 0;
        for host in 0..1_000 {
            let labels = labels(&format!("h{host}"), "", zone(host));
            if topology.group(&labels, &mut links).is_none() {
                again += 1;
            }
        }
        assert_eq!(again, 1);
        let mut group = |host, zone| topology.group(&labels(host, "", zone), &mut links).unwrap();
        let (one, other, far) = (group("h1", "a"), group("h2", "a"), group("h3", "b"));
        assert_eq!((one == other, links.class(one, other), links.class(one, far)), (true, 2, 3));
    }
}
