//! Colours and markers that are told apart by everybody, in print too.

/// Okabe and Ito's colours, the darker ones first; yellow is left out, as white paper swallows it.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"];

/// The colour of the n-th system.
pub(super) fn colour(n: usize) -> &'static str {
    COLOURS[n % COLOURS.len()]
}

/// What runs that are not valid are told in.
pub(super) const ALARM: &str = "#c00000";

/// The n-th system's marker of about 8 pixels around the origin, as a path.
pub(super) fn marker(n: usize) -> &'static str {
    const MARKERS: [&str; 5] = [
        "M-4,0 A4,4 0 1 0 4,0 A4,4 0 1 0 -4,0 Z",
        "M-3.6,-3.6 H3.6 V3.6 H-3.6 Z",
        "M0,-4.8 L4.4,3.4 H-4.4 Z",
        "M0,-5 L5,0 L0,5 L-5,0 Z",
        "M0,4.8 L4.4,-3.4 H-4.4 Z",
    ];
    MARKERS[n % MARKERS.len()]
}
