//! A machine on its way up, until every cell serves and works.

use std::time::{Duration, Instant};

use cell::PhysicalAddress;
use cell::machine::{self, CellState};
use cell::parameters::Parameters;

use crate::emulator::{self, Emulator};
use crate::error::{Error, Result};
use crate::fault::host::Target;
use crate::guest::cells::{self, Header};
use crate::guest::machine::MachineView;
use crate::guest::memory::GuestMemory;
use crate::guest::symbols::physical_address;
use crate::images::Images;
use crate::interrupt;
use crate::launch::Launch;
use crate::output::Progress;

/// Between two looks at a machine that boots.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two looks for cells that are left, and how long none may be.
const GONE_LOOK: Duration = Duration::from_millis(200);
const GONE_LIMIT: Duration = Duration::from_secs(1);
/// Lines of the serial log that an error shows.
const SERIAL_LINES: usize = 12;

/// A machine in which every cell serves.
#[derive(Debug)]
pub struct Session {
    /// What runs it.
    pub emulator: Box<dyn Emulator>,
    /// Its memory.
    pub memory: GuestMemory,
    /// The images it runs.
    pub images: Images,
    /// The machine record.
    pub machine: MachineView,
    /// Host time from the start of the emulator until every cell served.
    pub boot_time: Duration,
}

impl Session {
    /// Boots and waits until every cell serves and, where there are workers, has finished an
    /// operation.
    ///
    /// # Errors
    /// [`Error::Guest`] if that does not happen, with the end of the serial log.
    pub fn boot(launch: &Launch, progress: &mut Progress) -> Result<Self> {
        let workers = workers(launch)?;
        let started = Instant::now();
        progress.step("starting the emulator");
        let record = physical_address(&launch.images.monitor, machine::SYMBOL)?;
        let mut emulator = emulator::start(launch)?;
        let memory = emulator.memory();
        let machine = loop {
            let seconds = started.elapsed().as_secs();
            progress.step(&format!("booting: the monitor starts, {seconds} s"));
            let error = |error: &Error| with_serial(&*emulator, &explain(error));
            if let Some(reason) = MachineView::refusal(&memory, record)? {
                let problem = format!("the monitor did not start the machine: {reason}");
                return Err(with_serial(&*emulator, &problem));
            }
            let view = MachineView::read(&memory, record).map_err(|it| error(&it))?;
            if let Some(view) = view {
                emulator.divided(&view)?;
                if view.booted_at(&memory)? != 0 {
                    break view;
                }
            }
            wait(&mut *emulator)?;
        };
        let mut session = Self {
            emulator,
            memory,
            images: launch.images.clone(),
            machine,
            boot_time: Duration::ZERO,
        };
        let count = session.machine.cells();
        loop {
            let serving = session.count_cells(is_serving)?;
            progress.step(&format!("booting: {serving} of {count} cells serve"));
            if serving == count {
                break;
            }
            wait(&mut *session.emulator)?;
        }
        session.boot_time = started.elapsed();
        while workers > 0 && session.count_cells(is_working)? < count {
            progress.step("waiting for the first work of every cell");
            wait(&mut *session.emulator)?;
        }
        progress.clear();
        Ok(session)
    }

    fn count_cells(
        &self,
        condition: impl Fn(&GuestMemory, &MachineView, usize) -> Result<bool>,
    ) -> Result<usize> {
        let mut count = 0;
        for cell in 0..self.machine.cells() {
            count += usize::from(condition(&self.memory, &self.machine, cell)?);
        }
        Ok(count)
    }

    /// The machine as a target of faults.
    pub const fn target(&self) -> Target<'_> {
        Target {
            memory: &self.memory,
            machine: &self.machine,
            images: &self.images,
        }
    }
}

/// Notices that no cell is left, which the machine itself has nobody to tell of.
#[derive(Debug)]
pub struct LastCell {
    record: PhysicalAddress,
    looked: Instant,
    lived: bool,
    gone_since: Option<Instant>,
}

impl LastCell {
    /// Begins, for a machine that runs these images.
    ///
    /// # Errors
    /// [`Error::Guest`] if the monitor is not one of this project's.
    pub fn new(images: &Images) -> Result<Self> {
        Ok(Self {
            record: physical_address(&images.monitor, machine::SYMBOL)?,
            looked: Instant::now(),
            lived: false,
            gone_since: None,
        })
    }

    /// Looks now and then; `true` once after the last cell has been gone for a while.
    pub fn is_gone(&mut self, memory: &GuestMemory) -> bool {
        if self.looked.elapsed() < GONE_LOOK {
            return false;
        }
        self.looked = Instant::now();
        // A record that cannot be read, before the boot or ever after, says nothing.
        let Ok(Some(machine)) = MachineView::read(memory, self.record) else {
            return false;
        };
        let gone = |cell| {
            let state = machine.cell(memory, cell).map(|status| status.state);
            matches!(state, Ok(CellState::Stopped | CellState::Expelled))
        };
        if !(0..machine.cells()).all(gone) {
            (self.lived, self.gone_since) = (true, None);
            return false;
        }
        let since = *self.gone_since.get_or_insert_with(Instant::now);
        let is_gone = self.lived && since.elapsed() >= GONE_LIMIT;
        // Said once for each time that there was life.
        self.lived &= !is_gone;
        is_gone
    }
}

fn workers(launch: &Launch) -> Result<u32> {
    let line = launch.machine.boot_line();
    let parameters = Parameters::parse(&line).map_err(|error| Error::Usage(error.to_string()))?;
    Ok(parameters.settings.workers)
}

/// Whether a cell is in the live set and answers calls in its present life.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn is_serving(memory: &GuestMemory, machine: &MachineView, cell: usize) -> Result<bool> {
    let status = machine.cell(memory, cell)?;
    let header = Header::read(memory, machine.public(cell))?;
    Ok(status.state == CellState::Live
        && header.serves()
        && header.incarnation == status.incarnation)
}

fn is_working(memory: &GuestMemory, machine: &MachineView, cell: usize) -> Result<bool> {
    let account = cells::account(memory, machine.public(cell))?;
    Ok(cells::verified(&account) > 0)
}

/// Lets a machine boot on.
fn wait(emulator: &mut dyn Emulator) -> Result<()> {
    interrupt::check()?;
    let limit = emulator.boot_limit();
    let problem = match emulator.down()? {
        Some(how) => format!("the machine went down while booting: {how}"),
        None if emulator.elapsed() >= limit => {
            format!("not every cell serves after {} s", limit.as_secs())
        }
        None => return emulator.pass(PAUSE),
    };
    Err(with_serial(emulator, &problem))
}

/// An error of the guest, with the end of what it wrote to its serial port.
fn with_serial(emulator: &dyn Emulator, problem: &str) -> Error {
    let serial = emulator.serial_text();
    let lines: Vec<&str> = serial.lines().collect();
    let last = lines[lines.len().saturating_sub(SERIAL_LINES)..].join("\n");
    Error::Guest(format!("{problem}\nthe end of the serial log:\n{last}"))
}

/// An error without the word for its kind, which it gets again.
fn explain(error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix("guest: ").unwrap_or(&text).to_string()
}
