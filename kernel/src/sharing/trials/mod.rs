//! Trials of the tables: random histories, and what single sick cells get for their lies.

mod discards;
mod histories;
mod lies;
mod machine;
mod world;

use cell::{CellId, Frame, FrameRange};
use rpc::operation::ImportedPage;

use super::claim::Generation;

const CELLS: usize = 4;
const PAGES: u64 = 3;
const POOL: u64 = 24;
const REGION: u64 = 0x1000;

fn cell_id(number: usize) -> CellId {
    CellId::new(number).expect("below the limit")
}

fn region(cell: CellId) -> FrameRange {
    let start = (cell.index() as u64 + 1) * REGION;
    FrameRange {
        start: Frame(start),
        end: Frame(start + REGION),
    }
}

fn answer_of(frame: Frame, generation: Generation) -> ImportedPage {
    ImportedPage {
        frame: frame.into(),
        generation: generation.raw(),
    }
}
