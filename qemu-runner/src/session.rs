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
use crate::pace::Wait;

/// Between two looks at a machine that boots.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two looks at whether a machine that does not stand still yet is still up.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a machine that is to stand still may take, on the host: the spans are milliseconds.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two looks for cells that are left, and how long none may be.
const GONE_LOOK: Duration = Duration::from_millis(200);
const GONE_LIMIT: Duration = Duration::from_secs(1);
/// Lines of the serial log that an error shows.
const SERIAL_LINES: usize = 12;

/// What came of letting a machine go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Passed {
    /// The span is over; in the deterministic mode the machine stands still.
    Span,
    /// The machine went down. How.
    Down(String),
    /// No CPU of the machine comes to where it stands still any more.
    Silence,
}

/// A machine on its way up.
struct Starting {
    emulator: Box<dyn Emulator>,
    memory: GuestMemory,
    record: PhysicalAddress,
}

impl Starting {
    fn new(launch: &Launch, record: PhysicalAddress) -> Result<Self> {
        let emulator = emulator::start(launch)?;
        Ok(Self {
            memory: emulator.memory(),
            emulator,
            record,
        })
    }

    /// Waits until the machine can be looked at.
    fn arrive(&mut self) -> Result<()> {
        loop {
            let over = self.emulator.wait(GLANCE)?;
            if let Some(reason) = MachineView::refusal(&self.memory, self.record)? {
                let problem = format!("the monitor did not start the machine: {reason}");
                return Err(with_serial(&*self.emulator, &problem));
            }
            stop_if_over(&mut *self.emulator)?;
            if over == Wait::Over {
                return Ok(());
            }
        }
    }

    fn pass(&mut self) -> Result<()> {
        self.emulator.begin_wait(PAUSE)?;
        self.arrive()
    }

    /// Waits for the machine record to be whole.
    fn divided(&mut self, progress: &mut Progress) -> Result<MachineView> {
        let started = Instant::now();
        self.arrive()?;
        loop {
            let seconds = started.elapsed().as_secs();
            progress.step(&format!("booting: the monitor starts, {seconds} s"));
            let view = MachineView::read(&self.memory, self.record)
                .map_err(|error| with_serial(&*self.emulator, &explain(&error)))?;
            if let Some(view) = view {
                self.emulator.divided(&view)?;
                if view.booted_at(&self.memory)? != 0 {
                    return Ok(view);
                }
            }
            self.pass()?;
        }
    }

    fn count(&self, machine: &MachineView, condition: Condition) -> Result<usize> {
        let mut count = 0;
        for cell in 0..machine.cells() {
            count += usize::from(condition(&self.memory, machine, cell)?);
        }
        Ok(count)
    }
}

/// Something that a cell is or is not.
type Condition = fn(&GuestMemory, &MachineView, usize) -> Result<bool>;

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
    /// [`Error::Down`] if the machine goes down, [`Error::Guest`] if that does not happen in time;
    /// both with the end of the serial log.
    pub fn boot(launch: &Launch, progress: &mut Progress) -> Result<Self> {
        let workers = workers(launch)?;
        let started = Instant::now();
        progress.step("starting the emulator");
        let record = physical_address(&launch.images.monitor, machine::SYMBOL)?;
        let mut starting = Starting::new(launch, record)?;
        let machine = starting.divided(progress)?;
        let count = machine.cells();
        loop {
            let serving = starting.count(&machine, is_serving)?;
            progress.step(&format!("booting: {serving} of {count} cells serve"));
            if serving == count {
                break;
            }
            starting.pass()?;
        }
        let boot_time = started.elapsed();
        while workers > 0 && starting.count(&machine, is_working)? < count {
            progress.step("waiting for the first work of every cell");
            starting.pass()?;
        }
        progress.clear();
        Ok(Self {
            emulator: starting.emulator,
            memory: starting.memory,
            images: launch.images.clone(),
            machine,
            boot_time,
        })
    }

    /// Lets the machine go on for `span`.
    ///
    /// # Errors
    /// [`Error::Interrupted`], [`Error::Host`], and what the emulator says if it is gone.
    pub fn pass(&mut self, span: Duration) -> Result<Passed> {
        self.emulator.begin_wait(span)?;
        let begun = Instant::now();
        loop {
            interrupt::check()?;
            let wait = self.emulator.wait(GLANCE)?;
            if let Some(how) = self.emulator.down()? {
                return Ok(Passed::Down(how));
            }
            if wait == Wait::Over {
                return Ok(Passed::Span);
            }
            if begun.elapsed() >= SILENCE {
                return Ok(Passed::Silence);
            }
        }
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

fn stop_if_over(emulator: &mut dyn Emulator) -> Result<()> {
    interrupt::check()?;
    if let Some(how) = emulator.down()? {
        let problem = format!("the machine went down while booting: {how}");
        return Err(Error::Down(with_log(emulator, &problem)));
    }
    match emulator.overdue() {
        Some(limit) => {
            let problem = format!("not every cell serves after {} s", limit.as_secs());
            Err(with_serial(emulator, &problem))
        }
        None => Ok(()),
    }
}

/// An error of the guest, with the end of what it wrote to its serial port.
fn with_serial(emulator: &dyn Emulator, problem: &str) -> Error {
    Error::Guest(with_log(emulator, problem))
}

fn with_log(emulator: &dyn Emulator, problem: &str) -> String {
    let serial = emulator.serial_text();
    let lines: Vec<&str> = serial.lines().collect();
    let last = lines[lines.len().saturating_sub(SERIAL_LINES)..].join("\n");
    format!("{problem}\nthe end of the serial log:\n{last}")
}

/// An error without the word for its kind, which it gets again.
fn explain(error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix("guest: ").unwrap_or(&text).to_string()
}
