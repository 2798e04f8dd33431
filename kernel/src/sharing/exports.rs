//! The pages that this cell offers, and who holds them: the data home's side.
//!
//! A page is offered once, exported to any number of cells, and granted to those that asked for it
//! writable. When a cell dies, every page that it could have damaged is discarded: the generation
//! goes up, so that whoever held the old content is told, and the owner creates the content anew
//! once no store of the dead cell can reach the frame any more.
//!
//! # Invariants
//! 1. The firewall lets a cell write a page only if the cell is in the page's `writers`, or in
//!    `draining` after a revoke.
//! 2. `writers` is a subset of `holders`, and no departed cell is in either.
//! 3. A discarded page is exported to nobody, and is served again only after everybody who could
//!    write it is drained.
//!
//! # Why a kept page is sound
//! Under the policy `Written` a page that the dead cell did not write is kept. A processor sets the
//! dirty bit by a walk of the tables on the first store; the tables of an expelled cell are empty.
//! So a page that is clean after the expulsion stays clean, whatever translation a frozen CPU still
//! holds. A page that was revoked before the death and had not drained counts as written: nothing
//! is known of it.
//!
//! # References
//! Hive, SOSP'95, sections 4.2 and 5.2; CACM 1996 (preemptive discard).

use cell::parameters::Discard;
use cell::{CellId, CellSet, Frame, FrameRange, Incarnation};
use recovery::{DiscardCounts, FrameFacts, Verdict};

use rpc::operation::Access;

use super::claim::{Generation, PageIndex, Peer};
use super::error::SharingError;
use super::firewall::Firewall;
use super::lives::Lives;

/// What a client is told of a page that it may use now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Export {
    /// Where the content lies.
    pub frame: Frame,
    /// Which content it is.
    pub generation: Generation,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PageState {
    Serving,
    Discarded,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    frame: Frame,
    generation: Generation,
    state: PageState,
    holders: CellSet,
    writers: CellSet,
    draining: CellSet,
}

/// The pages that this cell offers, at most `PAGES`.
#[derive(Debug)]
pub struct Exports<const PAGES: usize> {
    pages: [Option<Page>; PAGES],
    lives: Lives,
    first_generation: Generation,
}

impl<const PAGES: usize> Exports<PAGES> {
    /// A cell in its life `life` that offers nothing yet.
    pub const fn new(life: Incarnation) -> Self {
        Self {
            pages: [None; PAGES],
            lives: Lives::new(),
            first_generation: Generation::first(life),
        }
    }

    /// Offers `frame`, whose content is ready, as a page.
    ///
    /// # Errors
    /// `TableFull`; `FrameTwice` if the frame is offered already.
    pub fn offer(&mut self, frame: Frame) -> Result<PageIndex, SharingError> {
        if self.pages.iter().flatten().any(|page| page.frame == frame) {
            return Err(SharingError::FrameTwice);
        }
        let free = self
            .pages
            .iter()
            .position(Option::is_none)
            .ok_or(SharingError::TableFull)?;
        self.pages[free] = Some(Page {
            frame,
            generation: self.first_generation,
            state: PageState::Serving,
            holders: CellSet::EMPTY,
            writers: CellSet::EMPTY,
            draining: CellSet::EMPTY,
        });
        Ok(PageIndex(free as u32))
    }

    /// Exports a page to `client`, with a grant if it is to be writable. Asking again for what is
    /// held already succeeds and changes nothing: so a client confirms what it holds.
    ///
    /// # Errors
    /// `NoSuchPage`, `StaleLife`, `OldLifeHolds`, `Discarded`, or `Refused` by the monitor.
    pub fn export(
        &mut self,
        client: Peer,
        index: PageIndex,
        access: Access,
        firewall: &mut impl Firewall,
    ) -> Result<Export, SharingError> {
        self.lives.admit(client)?;
        let page = self.page(index)?;
        page.export()?;
        if access == Access::Write && !page.writers.contains(client.cell) {
            firewall.grant(FrameRange::single(page.frame), client)?;
            page.writers = page.writers.with(client.cell);
            page.draining = page.draining.without(client.cell);
        }
        page.holders = page.holders.with(client.cell);
        page.export()
    }

    /// Ends an export, and with it the grant. What the client does not hold is released already:
    /// the request may have come twice, or the page been discarded.
    ///
    /// # Errors
    /// `NoSuchPage`, `StaleLife`, `OldLifeHolds`, or `Refused` by the monitor; the client then
    /// still holds the page.
    pub fn release(
        &mut self,
        client: Peer,
        index: PageIndex,
        firewall: &mut impl Firewall,
    ) -> Result<(), SharingError> {
        self.lives.admit(client)?;
        let page = self.page(index)?;
        if page.writers.contains(client.cell) {
            page.revoke(client.cell, firewall)?;
        }
        page.holders = page.holders.without(client.cell);
        Ok(())
    }

    /// The page for the owner's own use.
    ///
    /// # Errors
    /// `NoSuchPage`, or `Discarded` until the content is there again.
    pub fn own(&self, index: PageIndex) -> Result<Export, SharingError> {
        let page = self.pages.get(index.0 as usize).and_then(Option::as_ref);
        let page = page.ok_or(SharingError::NoSuchPage)?;
        page.export()
    }

    /// Releases all exports to the lives `dead` and discards what they could have damaged, as
    /// `policy` says. Doing it again changes nothing.
    pub fn discard(
        &mut self,
        dead: &[Peer],
        policy: Discard,
        firewall: &mut impl Firewall,
    ) -> DiscardCounts {
        let mut gone = CellSet::EMPTY;
        for &peer in dead {
            let holds = self
                .lives
                .current(peer.cell)
                .is_some_and(|life| life <= peer.incarnation);
            self.lives.depart(peer);
            if holds {
                gone = gone.with(peer.cell);
            }
        }
        let mut counts = DiscardCounts::default();
        for page in self.pages.iter_mut().flatten() {
            page.bury(gone, policy, firewall, &mut counts);
        }
        counts
    }

    /// Notes which revokes have drained, and tries again those that the monitor refused. Called now
    /// and then.
    pub fn settle(&mut self, firewall: &mut impl Firewall) {
        for page in self.pages.iter_mut().flatten() {
            if page.state == PageState::Discarded {
                page.revoke_all(firewall);
            }
        }
        // One question per cell, not per page: each is a hypercall.
        let awaited = self.pages.iter().flatten().map(|page| page.draining);
        let awaited = awaited.fold(CellSet::EMPTY, CellSet::union);
        let drained: CellSet = awaited
            .iter()
            .filter(|&cell| firewall.drained(cell))
            .collect();
        for page in self.pages.iter_mut().flatten() {
            page.draining = page.draining.minus(drained);
        }
    }

    /// A discarded page whose frame nobody else can write any more. The owner creates its content
    /// anew and then calls [`Self::restored`].
    pub fn restorable(&mut self, firewall: &mut impl Firewall) -> Option<(PageIndex, Frame)> {
        self.settle(firewall);
        let ready = |page: &Page| {
            page.state == PageState::Discarded
                && page.draining.is_empty()
                && page.writers.is_empty()
        };
        for (index, slot) in self.pages.iter().enumerate() {
            let Some(page) = slot.as_ref().filter(|page| ready(page)) else {
                continue;
            };
            if firewall.reclaim(FrameRange::single(page.frame)).is_ok() {
                return Some((PageIndex(index as u32), page.frame));
            }
        }
        None
    }

    /// Serves a page again whose content was created anew.
    ///
    /// # Panics
    /// If the page was not discarded, or somebody can still write it: the caller's own mistake.
    pub fn restored(&mut self, index: PageIndex) {
        let page = self.pages[index.0 as usize]
            .as_mut()
            .expect("restored a page never offered");
        assert!(
            page.state == PageState::Discarded,
            "restored a page that was not discarded"
        );
        assert!(
            page.draining.union(page.writers).is_empty(),
            "restored before the fence holds"
        );
        page.state = PageState::Serving;
    }

    /// The cells that a page is granted to.
    pub fn writers(&self, index: PageIndex) -> CellSet {
        let page = self.pages.get(index.0 as usize).and_then(Option::as_ref);
        page.map_or(CellSet::EMPTY, |page| page.writers)
    }

    fn page(&mut self, index: PageIndex) -> Result<&mut Page, SharingError> {
        let page = self
            .pages
            .get_mut(index.0 as usize)
            .and_then(Option::as_mut);
        page.ok_or(SharingError::NoSuchPage)
    }
}

impl Page {
    const fn export(&self) -> Result<Export, SharingError> {
        match self.state {
            PageState::Serving => Ok(Export {
                frame: self.frame,
                generation: self.generation,
            }),
            PageState::Discarded => Err(SharingError::Discarded),
        }
    }

    fn revoke(&mut self, cell: CellId, firewall: &mut impl Firewall) -> Result<(), SharingError> {
        firewall.revoke(FrameRange::single(self.frame), cell)?;
        self.writers = self.writers.without(cell);
        self.draining = self.draining.with(cell);
        Ok(())
    }

    /// Removes the cells `gone` and decides what becomes of the content.
    fn bury(
        &mut self,
        gone: CellSet,
        policy: Discard,
        firewall: &mut impl Firewall,
        counts: &mut DiscardCounts,
    ) {
        let granted = self.writers.intersection(gone);
        let drying = self.draining.intersection(gone);
        self.holders = self.holders.minus(gone);
        if granted.union(drying).is_empty() {
            return;
        }
        let frames = FrameRange::single(self.frame);
        let wrote = granted
            .iter()
            .filter(|&cell| firewall.written(frames, cell));
        let facts = FrameFacts {
            writers: granted.union(drying),
            written_by: wrote.collect::<CellSet>().union(drying),
        };
        // An expelled cell's grants mean nothing to the monitor any more, so a refusal here is no
        // danger; the cell counts as draining until the fence holds either way.
        for cell in granted.iter() {
            let _ = firewall.revoke(frames, cell);
        }
        self.writers = self.writers.minus(gone);
        self.draining = self.draining.union(granted);
        if self.state == PageState::Discarded {
            return;
        }
        if counts.judge(facts, gone, policy) == Verdict::Discard {
            self.discard(firewall);
        }
    }

    /// Voids the content for everybody. Survivors that could write it lose their grants too: what
    /// they would store belongs to content that is no more.
    fn discard(&mut self, firewall: &mut impl Firewall) {
        self.state = PageState::Discarded;
        self.generation = self.generation.next();
        self.revoke_all(firewall);
        self.holders = self.writers;
    }

    fn revoke_all(&mut self, firewall: &mut impl Firewall) {
        for cell in self.writers.iter() {
            // A refused revoke leaves the cell among the writers; `settle` tries again, and the
            // page is not restored before it worked.
            let _ = self.revoke(cell, firewall);
        }
    }
}
