//! Evidence that is read while it is published, as loom explores it.

use loom::sync::Arc;
use loom::thread;

use super::*;

const OVER: Incarnation = Incarnation(1);
const NEXT: Incarnation = Incarnation(2);

fn entry() -> CellEntry {
    CellEntry {
        region: FrameRange::default(),
        nested_root: PhysicalAddress(0),
        state: AtomicU32::new(0),
        incarnation: AtomicU32::new(NEXT.0),
        evidence_count: AtomicU64::new(0),
        evidence_kind: AtomicU32::new(0),
        evidence_incarnation: AtomicU32::new(0),
        evidence_address: AtomicU64::new(0),
        evidence_instruction: AtomicU64::new(0),
        evidence_at: AtomicU64::new(0),
        quarantined_by: AtomicU64::new(0),
        reboot_requested: AtomicU32::new(0),
        cut_off: AtomicU32::new(0),
    }
}

fn publish(entry: &CellEntry, kind: EvidenceKind, incarnation: Incarnation) {
    entry.publish_evidence(Evidence {
        kind,
        incarnation,
        address: 0,
        instruction: 0,
        at: Instant(0),
    });
}

#[test]
fn the_end_of_a_life_is_not_held_against_the_next() {
    loom::model(|| {
        let entry = Arc::new(entry());
        publish(&entry, EvidenceKind::Panic, OVER);
        let monitor = Arc::clone(&entry);
        let monitor = thread::spawn(move || {
            publish(&monitor, EvidenceKind::WriteDenied, NEXT);
        });
        let (_, evidence) = entry.evidence().expect("some was published before");
        let is_mixed = evidence.incarnation == NEXT && evidence.kind.is_fatal();
        assert!(!is_mixed, "{evidence:?}");
        monitor.join().expect("no panic");
    });
}
