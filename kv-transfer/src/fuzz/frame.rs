//! Control frames: a stream of them, as a connection brings it.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::{Accepted, Refused, Verdict};
use crate::wire::{Body, FrameError, SMALL_FRAME_BYTES, encode, read_frame};

/// The next frame of `bytes`, which are all that will ever come.
pub(super) fn next(bytes: &mut &[u8]) -> Result<Body, FrameError> {
    let mut reading = pin!(read_frame(bytes, SMALL_FRAME_BYTES));
    match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(frame) => frame,
        Poll::Pending => unreachable!("a slice is always ready"),
    }
}

pub(super) fn run(mut bytes: &[u8]) -> Verdict {
    let mut verdict = Refused;
    while let Ok(body) = next(&mut bytes) {
        verdict = Accepted;
        judge(&body);
        let encoded = encode(body.clone());
        assert_eq!(next(&mut encoded.as_slice()).ok(), Some(body), "reads back as written");
    }
    verdict
}

/// The checks that the control tasks make of each message.
fn judge(body: &Body) {
    let key = match body {
        Body::Hello(hello) => return drop(hello.geometry.checked()),
        Body::Welcome(welcome) => return drop(welcome.geometry.checked()),
        Body::Attach(attach) => attach.key,
        Body::Attached(attached) => attached.arrivals,
        Body::AttachRefused(refused) => refused.key,
        Body::Manifest(manifest) => manifest.key,
        Body::Abort(abort) => abort.key,
        Body::Withdrawn(withdrawn) => withdrawn.key,
        Body::Recall(recall) => recall.key,
        Body::Recalled(recalled) => recalled.key,
        Body::Amend(amend) => amend.key,
        Body::Stray(stray) => stray.key,
        _ => return,
    };
    if let Some(checked) = key.checked() {
        assert_eq!(crate::wire::Key::from(checked), key, "a checked key is the key");
    }
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use crate::tally::Tally;
    use crate::wire::{
        Amend, Attach, AttachRefused, Attached, Confirm, Confirmed, GeometryWire, Grant, Hello, Key,
        Manifest, OfferGone, Reason, Recall, Recalled, Refused, Stray, Want, Welcome, Withdrawn,
    };

    let (key, reason) = (Key { slot: 3, generation: 400 }, "why".to_owned());
    let geometry = GeometryWire::from(&super::OURS);
    let bodies = [
        (
            "hello",
            Body::Hello(Hello {
                protocol: crate::wire::PROTOCOL,
                node: vec![1; 16],
                target: vec![2; 16],
                fabric: "shm:shm".to_owned(),
                geometry: geometry.clone(),
                model: "model".to_owned(),
                address: vec![3; 20],
                endpoint: "unix:@x".to_owned(),
            }),
        ),
        (
            "welcome",
            Body::Welcome(Welcome {
                node: vec![2; 16],
                geometry,
                offer: vec![4; 30],
                descriptors: 3,
                staging_chunks: 16,
                chunk_bytes: 1 << 20,
            }),
        ),
        (
            "refused",
            Body::Refused(Refused { field: "model".to_owned(), ours: "a".to_owned(), yours: "b".to_owned() }),
        ),
        ("attach", Body::Attach(Attach { key, secret: 9, staged: true })),
        ("attached", Body::Attached(Attached { key, arrivals: key })),
        (
            "attach_refused",
            Body::AttachRefused(AttachRefused { key, reason: reason.clone(), slots: Some(7) }),
        ),
        (
            "manifest",
            Body::Manifest(Manifest {
                key,
                writes: 5,
                bytes: 1024,
                layers: 2,
                units: 3,
                pieces: 6,
                tokens: 11,
                checksums: 2,
                hashes: (0..48).collect(),
                doubtful: Some(Tally { writes: 1, sum: 77 }),
            }),
        ),
        ("recall", Body::Recall(Recall { key })),
        ("recalled", Body::Recalled(Recalled { key, waits: true })),
        ("amend", Body::Amend(Amend { key, writes: 7, doubtful: Tally { writes: 2, sum: 5 } })),
        ("stray", Body::Stray(Stray { key, sequence: 3 })),
        ("want", Body::Want(Want { key, chunks: 4 })),
        ("grant", Body::Grant(Grant { key, chunk: 7 })),
        ("confirm", Body::Confirm(Confirm { id: 5, checksums: 1 })),
        ("confirmed", Body::Confirmed(Confirmed { id: 5, checksums: 1, hashes: (0..16).collect() })),
        ("offer_gone", Body::OfferGone(OfferGone { id: 5, reason: reason.clone() })),
        ("abort", Body::Abort(Reason { key, reason: reason.clone() })),
        ("withdrawn", Body::Withdrawn(Withdrawn { key, writes: Some(Tally::first(5)), reason })),
    ];
    let encoded = bodies.map(|(name, body)| (name, encode(body)));
    let all = encoded.iter().flat_map(|(_, frame)| frame.clone()).collect();
    encoded.into_iter().chain([("all", all)]).collect()
}
