//! A machine on its way up, until every cell serves and works.

use std::time::{Duration, Instant};

use cell::PhysicalAddress;
use cell::machine::{self, CellState};
use cell::parameters::Parameters;

use crate::error::{Error, Result};
use crate::fault::host::Target;
use crate::guest::cells::{self, Header};
use crate::guest::machine::MachineView;
use crate::guest::memory::GuestMemory;
use crate::guest::symbols::physical_address;
use crate::images::Images;
use crate::interrupt;
use crate::output::Progress;
use crate::pace::{Pace, Wait};
use crate::qemu::process::{Launch, Qemu};
use crate::qemu::qmp::Qmp;

/// How long the machine may take until every cell serves. A host that is busy may need most of it.
pub const BOOT_LIMIT: Duration = Duration::from_mins(2);
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
    qemu: Qemu,
    qmp: Qmp,
    pace: Pace,
    deadline: Instant,
    record: PhysicalAddress,
}

impl Starting {
    fn new(launch: &Launch, deadline: Instant, record: PhysicalAddress) -> Result<Self> {
        let (mut qemu, qmp) = Qemu::start(launch)?;
        let pace = match qemu.take_standstills() {
            Some(standstills) => Pace::Deterministic(Box::new(standstills)),
            None => Pace::Realtime(Instant::now()),
        };
        Ok(Self {
            qemu,
            qmp,
            pace,
            deadline,
            record,
        })
    }

    /// Waits until the machine can be looked at.
    fn arrive(&mut self) -> Result<()> {
        loop {
            let over = self.pace.wait(self.qemu.memory(), GLANCE)?;
            if let Some(reason) = MachineView::refusal(self.qemu.memory(), self.record)? {
                let problem = format!("the monitor did not start the machine: {reason}");
                return Err(with_serial(&self.qemu, &problem));
            }
            stop_if_over(&mut self.qemu, &mut self.qmp, self.deadline)?;
            if over == Wait::Over {
                return Ok(());
            }
        }
    }

    fn pass(&mut self) -> Result<()> {
        self.pace.begin_wait(self.qemu.memory(), PAUSE)?;
        self.arrive()
    }
}

/// A machine in which every cell serves.
#[derive(Debug)]
pub struct Session {
    /// QEMU.
    pub qemu: Qemu,
    /// The images it runs.
    pub images: Images,
    /// The machine record.
    pub machine: MachineView,
    /// Host time from the start of QEMU until every cell served.
    pub boot_time: Duration,
    /// The clock that it goes by.
    pub pace: Pace,
}

impl Session {
    /// Boots and waits until every cell serves and, where there are workers, has finished an
    /// operation.
    ///
    /// # Errors
    /// [`Error::Guest`] if that does not happen, with the end of the serial log.
    pub fn boot(launch: &Launch, progress: &mut Progress) -> Result<(Self, Qmp)> {
        let workers = workers(launch)?;
        let started = Instant::now();
        progress.step("starting QEMU");
        let record = physical_address(&launch.images.monitor, machine::SYMBOL)?;
        let mut starting = Starting::new(launch, started + BOOT_LIMIT, record)?;
        starting.arrive()?;
        let machine = loop {
            let seconds = started.elapsed().as_secs();
            progress.step(&format!("booting: the monitor starts, {seconds} s"));
            let qemu = &starting.qemu;
            let view = MachineView::read(qemu.memory(), record)
                .map_err(|error| with_serial(qemu, &explain(&error)))?;
            if let Some(view) = view
                && view.booted_at(qemu.memory())? != 0
            {
                break view;
            }
            starting.pass()?;
        };
        let count = machine.cells();
        loop {
            let serving = count_cells(&starting.qemu, &machine, is_serving)?;
            progress.step(&format!("booting: {serving} of {count} cells serve"));
            if serving == count {
                break;
            }
            starting.pass()?;
        }
        let boot_time = started.elapsed();
        while workers > 0 && count_cells(&starting.qemu, &machine, is_working)? < count {
            progress.step("waiting for the first work of every cell");
            starting.pass()?;
        }
        progress.clear();
        let images = launch.images.clone();
        Ok((
            Self {
                qemu: starting.qemu,
                images,
                machine,
                boot_time,
                pace: starting.pace,
            },
            starting.qmp,
        ))
    }

    /// Lets the machine go on for `span`.
    ///
    /// # Errors
    /// [`Error::Interrupted`], [`Error::Qemu`] if QEMU is gone, [`Error::Host`].
    pub fn pass(&mut self, qmp: &mut Qmp, span: Duration) -> Result<Passed> {
        self.pace.begin_wait(self.qemu.memory(), span)?;
        let begun = Instant::now();
        loop {
            interrupt::check()?;
            if self.pace.wait(self.qemu.memory(), GLANCE)? == Wait::Over {
                return Ok(Passed::Span);
            }
            if let Some(how) = system_down(&mut self.qemu, qmp)? {
                return Ok(Passed::Down(how));
            }
            if begun.elapsed() >= SILENCE {
                return Ok(Passed::Silence);
            }
        }
    }

    /// The machine as a target of faults.
    pub const fn target(&self) -> Target<'_> {
        Target {
            memory: self.qemu.memory(),
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
/// See [`crate::guest::memory::GuestMemory::read`].
pub fn is_serving(qemu: &Qemu, machine: &MachineView, cell: usize) -> Result<bool> {
    let status = machine.cell(qemu.memory(), cell)?;
    let header = Header::read(qemu.memory(), machine.public(cell))?;
    Ok(status.state == CellState::Live
        && header.serves()
        && header.incarnation == status.incarnation)
}

fn is_working(qemu: &Qemu, machine: &MachineView, cell: usize) -> Result<bool> {
    let account = cells::account(qemu.memory(), machine.public(cell))?;
    Ok(cells::verified(&account) > 0)
}

fn count_cells(
    qemu: &Qemu,
    machine: &MachineView,
    condition: impl Fn(&Qemu, &MachineView, usize) -> Result<bool>,
) -> Result<usize> {
    let mut count = 0;
    for cell in 0..machine.cells() {
        count += usize::from(condition(qemu, machine, cell)?);
    }
    Ok(count)
}

/// Whether the guest reset the machine or shut it down. Says how.
///
/// # Errors
/// [`Error::Qemu`] if QEMU is gone: it stays when the guest ends the machine. [`Error::Host`].
pub fn system_down(qemu: &mut Qemu, qmp: &mut Qmp) -> Result<Option<String>> {
    if let Some(status) = qemu.ended()? {
        return Err(Error::Qemu(format!("ended with {status}")));
    }
    // A connection that breaks is seen as an end of QEMU above, at the next look.
    let events = qmp.events().unwrap_or_default();
    let down = events.iter().find(|event| {
        matches!(
            event["event"].as_str(),
            Some("SHUTDOWN" | "RESET" | "GUEST_PANICKED")
        )
    });
    Ok(down.map(|event| format!("{} {}", event["event"], event["data"]["reason"])))
}

fn stop_if_over(qemu: &mut Qemu, qmp: &mut Qmp, deadline: Instant) -> Result<()> {
    interrupt::check()?;
    let problem = match system_down(qemu, qmp)? {
        Some(how) => format!("the machine went down while booting: {how}"),
        None if Instant::now() >= deadline => {
            format!("not every cell serves after {} s", BOOT_LIMIT.as_secs())
        }
        None => return Ok(()),
    };
    Err(with_serial(qemu, &problem))
}

/// An error of the guest, with the end of what it wrote to its serial port.
fn with_serial(qemu: &Qemu, problem: &str) -> Error {
    let serial = qemu.serial_text();
    let lines: Vec<&str> = serial.lines().collect();
    let last = lines[lines.len().saturating_sub(SERIAL_LINES)..].join("\n");
    Error::Guest(format!("{problem}\nthe end of the serial log:\n{last}"))
}

/// An error without the word for its kind, which it gets again.
fn explain(error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix("guest: ").unwrap_or(&text).to_string()
}
