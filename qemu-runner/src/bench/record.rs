//! Results that a kernel measured, read from its bench record.

use std::mem::offset_of;
use std::time::Duration;

use cell::PhysicalAddress;
use cell::public::{
    BENCH_OFFSET, BENCH_RESULTS_MAX, BENCH_SAMPLES, BenchRecord, BenchResult, part,
};

use crate::error::Result;
use crate::guest::memory::{GuestMemory, field};
use crate::interrupt::wait_for;

/// How long a kernel may measure.
pub const LIMIT: Duration = Duration::from_mins(2);

/// One measured operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Time-stamp counter cycles per operation, one for each batch.
    pub cycles: Vec<u64>,
}

/// Asks the cell whose bench record lies at `base` to measure. Says with which number it answers.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn request(memory: &GuestMemory, base: PhysicalAddress) -> Result<u32> {
    let requested = field(base, offset_of!(BenchRecord, requested));
    let number = memory.read_u32(requested)?.wrapping_add(1);
    memory.write_u32(requested, number)?;
    Ok(number)
}

/// Asks the cell whose public area starts at `public` to measure, and waits for its results; `None`
/// if it is silent for [`LIMIT`].
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn run(memory: &GuestMemory, public: PhysicalAddress) -> Result<Option<Vec<Measured>>> {
    let base = part(public, BENCH_OFFSET);
    let number = request(memory, base)?;
    let answered = wait_for(LIMIT, Duration::from_millis(20), || {
        let done = memory.read_u32(field(base, offset_of!(BenchRecord, done)))?;
        Ok((done == number).then_some(()))
    })?;
    answered.map(|()| read(memory, base)).transpose()
}

fn read(memory: &GuestMemory, base: PhysicalAddress) -> Result<Vec<Measured>> {
    let count = memory.read_u32(field(base, offset_of!(BenchRecord, results_count)))? as usize;
    let results = field(base, offset_of!(BenchRecord, results));
    (0..count.min(BENCH_RESULTS_MAX))
        .map(|index| read_result(memory, field(results, index * size_of::<BenchResult>())))
        .collect()
}

/// The name of the result at `base`.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn name(memory: &GuestMemory, base: PhysicalAddress) -> Result<String> {
    let mut name = [0; 40];
    memory.read(field(base, offset_of!(BenchResult, name)), &mut name)?;
    let length = name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

/// How many samples the result at `base` has so far.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn samples(memory: &GuestMemory, base: PhysicalAddress) -> Result<u64> {
    memory.read_u64(field(base, offset_of!(BenchResult, samples_count)))
}

fn read_result(memory: &GuestMemory, base: PhysicalAddress) -> Result<Measured> {
    let count = samples(memory, base)? as usize;
    let first = field(base, offset_of!(BenchResult, samples));
    let cycles: Result<Vec<u64>> = (0..count.min(BENCH_SAMPLES))
        .map(|sample| memory.read_u64(field(first, sample * 8)))
        .collect();
    Ok(Measured {
        name: name(memory, base)?,
        cycles: cycles?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::memory::tests::memory;

    #[test]
    fn mad_counts_are_cut() {
        let memory = memory(4 << 20);
        let base = PhysicalAddress(0);
        memory
            .write_u32(
                field(base, offset_of!(BenchRecord, results_count)),
                u32::MAX,
            )
            .unwrap();
        let first = field(base, offset_of!(BenchRecord, results));
        memory.write(first, b"null rpc").unwrap();
        memory
            .write_u64(
                field(first, offset_of!(BenchResult, samples_count)),
                u64::MAX,
            )
            .unwrap();
        let results = read(&memory, base).unwrap();
        assert_eq!(results.len(), BENCH_RESULTS_MAX);
        assert_eq!(
            (results[0].name.as_str(), results[0].cycles.len()),
            ("null rpc", BENCH_SAMPLES)
        );
    }
}
