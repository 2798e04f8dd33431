//! Messages that are lost, doubled, spoilt or late do no harm beyond the call.

use cell::fault::InnerFault;
use tests::harness::{inject, inner};

#[test]
fn dropped_messages() {
    inject(inner(InnerFault::RpcDrop, 1)).assert_held();
}

#[test]
fn doubled_messages() {
    inject(inner(InnerFault::RpcDuplicate, 2)).assert_held();
}

#[test]
fn spoilt_messages() {
    inject(inner(InnerFault::RpcCorrupt, 3)).assert_held();
}

#[test]
fn late_messages() {
    inject(inner(InnerFault::RpcDelay, 0)).assert_held();
}
