//! Names that a plan takes from the kernel: objects, functions.
//!
//! The image knows them, so a wrong one is refused before a machine boots.

use super::objects;
use super::plan::{Cause, Plan};
use crate::error::{Error, Result};
use crate::guest::symbols::Functions;
use crate::images::Images;

/// Whether the kernel has every object and function that `plan` names.
///
/// # Errors
/// [`Error::Usage`] with what there is instead; [`Error::Host`] if the image cannot be read.
pub fn check(plan: &Plan, images: &Images) -> Result<()> {
    let object = |name: &String| {
        let found = objects::find(images, name, &mut |_| 0);
        found.map(|_| ()).map_err(misnamed)
    };
    for name in plan.strikes().filter_map(|strike| strike.object.as_ref()) {
        object(name)?;
    }
    for trigger in plan.triggers() {
        match &trigger.cause {
            Cause::Write(name) | Cause::Access(name) => object(name)?,
            Cause::Symbol(name) => {
                let found = Functions::read(&images.kernel)?.find(name);
                found.map_err(misnamed)?;
            }
            _ => {}
        }
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
