#![allow(clippy::all, missing_docs, dead_code, unused_imports, unreachable_pub)]
mod model;
use model::*;
use model::world::*;
use stateright::Model;
use std::collections::{HashMap, HashSet, BTreeMap};
use std::hash::{Hash, Hasher};
fn h<T: Hash>(t: &T) -> u64 { let mut s = std::collections::hash_map::DefaultHasher::new(); t.hash(&mut s); s.finish() }
#[test]
fn dbg() {
    let m = Scenario::<2> { deaths: 1, last_fault: 3, horizon: 60, ..Scenario::calm() };
    let mut seen = HashSet::new();
    let mut hist: BTreeMap<u32, usize> = BTreeMap::new();
    let mut stack = m.init_states();
    let mut sample: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    while let Some(s) = stack.pop() {
        if !seen.insert(h(&s)) { continue; }
        if s.world.done.is_empty() { *hist.entry(s.world.slot).or_default() += 1; let v = sample.entry(s.world.slot).or_default(); if v.len() < 400 { v.push(s.clone()); } }
        let mut a = vec![]; m.actions(&s, &mut a);
        for x in a { if let Some(n) = m.next_state(&s, x) { stack.push(n); } }
    }
    println!("{hist:?}");
    let v = &sample[&45];
    let dbg: Vec<Vec<String>> = v.iter().map(|s| format!("{s:#?}").lines().map(|l| l.to_string()).collect()).collect();
    let n = dbg.iter().map(|d| d.len()).max().unwrap();
    println!("{} {}", dbg.len(), n);
    for s in v.iter().take(3) { println!("{:#?}", s.world.cells[0]); }
    // field-wise: count distinct
    macro_rules! d { ($($e:ident $f:expr);*) => { $( let set: HashSet<u64> = v.iter().map(|$e| h(&$f)).collect(); println!("{} {}", stringify!($f), set.len()); )* } }
    d!(s s.world.cells[0]; s s.world.cells[1]; s s.world.history; s s.world.cells[0].machine; s s.world.cells[1].machine; s s.world.cells[0].record);
}
