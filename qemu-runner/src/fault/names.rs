//! Names that a plan takes from the kernel: objects, functions.
//!
//! The image knows them, so a wrong one is refused before a machine boots.

use super::objects::find;
use super::plan::{Cause, Plan};
use crate::error::{Error, Result};
use crate::guest::symbols::Functions;
use crate::images::Images;

/// Whether the kernel has an object of that name.
///
/// # Errors
/// [`Error::Guest`] with what there is instead; [`Error::Host`] if the image cannot be read.
pub fn object(images: &Images, name: &str) -> Result<()> {
    find(images, name, &mut |_| 0).map(drop)
}

/// Whether the kernel has a function of that name.
///
/// # Errors
/// As [`object`].
pub fn function(images: &Images, name: &str) -> Result<()> {
    Functions::read(&images.kernel)?.find(name).map(drop)
}

/// Whether the kernel has every object and function that `plan` names.
///
/// # Errors
/// [`Error::Usage`] with what there is instead; [`Error::Host`] if the image cannot be read.
pub fn check(plan: &Plan, images: &Images) -> Result<()> {
    for name in plan.strikes().filter_map(|strike| strike.object.as_ref()) {
        object(images, name).map_err(misnamed)?;
    }
    for trigger in plan.triggers() {
        let found = match &trigger.cause {
            Cause::Write(name) | Cause::Access(name) => object(images, name),
            Cause::Symbol(name) => function(images, name),
            _ => Ok(()),
        };
        found.map_err(misnamed)?;
    }
    Ok(())
}

/// What the kernel lacks is what the user should not name.
fn misnamed(error: Error) -> Error {
    match error {
        Error::Guest(problem) => Error::Usage(problem),
        other => other,
    }
}
