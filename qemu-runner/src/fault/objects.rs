//! The kernel's statics and their fields, by name, as the debug information has them.
//!
//! A name is a static, by its path or the end of it, and fields: `scheduler::TABLE.ready_count`. A
//! field is looked for in the structure and, if it is not there, in what that holds directly, so
//! that locks and cells around the data need not be named. `[3]` chooses an element of an array,
//! `[*]` any.
//!
//! # Not guaranteed
//! That the compiler kept a static whole: what it split or left out is not found.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use gimli::{
    AttributeValue, Dwarf, DwarfSections, EndianSlice, EvaluationResult, LittleEndian, Unit,
    UnitOffset,
};
use object::{Object, ObjectSection};

use crate::error::{Context, Error, Result};
use crate::images::{Images, debug_file};

/// Structures in structures that are looked through for a field.
const DEPTH_MAX: usize = 12;
/// Names that an error lists.
const LISTED_MAX: usize = 24;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a, 'b> = gimli::DebuggingInformationEntry<'b, 'b, Slice<'a>>;

/// Something that has a name and lies in the image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundObject {
    /// Its whole name.
    pub name: String,
    /// Its virtual address.
    pub address: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What was found, by file and name: to read the debug information takes long.
static FOUND: Mutex<BTreeMap<(PathBuf, String), FoundObject>> = Mutex::new(BTreeMap::new());

/// Finds an object of a kernel by name; `pick` chooses one of so many elements of an array.
///
/// # Errors
/// [`Error::Guest`] with the names that there are instead.
pub fn find(images: &Images, name: &str, pick: &mut dyn FnMut(u64) -> u64) -> Result<FoundObject> {
    let key = (images.kernel.clone(), name.to_string());
    let lock = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = lock().get(&key) {
        return Ok(found.clone());
    }
    let found = Objects::read(images)?.find(name, pick)?;
    if !name.contains("[*]") {
        lock().insert(key, found.clone());
    }
    Ok(found)
}

/// The debug information of a kernel.
#[derive(Debug)]
struct Objects {
    sections: DwarfSections<Vec<u8>>,
}

/// A type: in which unit, and where there.
#[derive(Clone, Copy, Debug)]
struct TypeAt {
    unit: usize,
    offset: UnitOffset,
}

/// A member of a structure.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    offset: u64,
    of: TypeAt,
}

impl Objects {
    /// Reads the debug information of the kernel.
    ///
    /// # Errors
    /// [`Error::Guest`] if it has none.
    fn read(images: &Images) -> Result<Self> {
        let path = debug_file(images);
        let data = std::fs::read(&path).context(|| format!("reading {}", path.display()))?;
        let bad = |error| Error::Guest(format!("{}: {error}", path.display()));
        let elf = object::File::parse(&*data).map_err(bad)?;
        let load = |id: gimli::SectionId| {
            let section = elf.section_by_name(id.name());
            let content = section.and_then(|section| section.data().ok());
            Ok::<Vec<u8>, gimli::Error>(content.unwrap_or_default().to_vec())
        };
        let sections = DwarfSections::load(load).map_err(|error| wrong(&error))?;
        if elf.section_by_name(".debug_info").is_none() {
            let shown = path.display();
            return Err(Error::Guest(format!("{shown} has no debug information")));
        }
        Ok(Self { sections })
    }

    /// Finds an object by name; `pick` chooses one of so many elements of an array.
    ///
    /// # Errors
    /// [`Error::Guest`] with the names that there are instead.
    fn find(&self, name: &str, pick: &mut dyn FnMut(u64) -> u64) -> Result<FoundObject> {
        let view = View::new(&self.sections).map_err(|error| wrong(&error))?;
        view.find(name, pick)
    }
}

fn wrong(error: &gimli::Error) -> Error {
    Error::Guest(format!("the kernel's debug information: {error}"))
}

/// The debug information, parsed.
struct View<'a> {
    dwarf: Dwarf<Slice<'a>>,
    units: Vec<Unit<Slice<'a>>>,
}

/// A static.
struct Static {
    name: String,
    address: u64,
    of: TypeAt,
}

impl<'a> View<'a> {
    fn new(sections: &'a DwarfSections<Vec<u8>>) -> gimli::Result<Self> {
        let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
        let mut units = Vec::new();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            units.push(dwarf.unit(header)?);
        }
        Ok(Self { dwarf, units })
    }

    fn find(&self, name: &str, pick: &mut dyn FnMut(u64) -> u64) -> Result<FoundObject> {
        // A static's path has no dot and no bracket.
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (path, fields) = name.split_at(end);
        let found = self.static_of(path)?;
        let (mut address, mut of, mut shown) = (found.address, found.of, found.name);
        for step in steps(fields)? {
            let member = self.step(of, step, pick)?;
            address += member.offset;
            of = member.of;
            shown = format!("{shown}{}", member.name);
        }
        let bytes = self.bytes_of(of).map_err(|error| wrong(&error))?;
        if bytes == 0 {
            return Err(Error::Guest(format!("{shown} has no bytes")));
        }
        Ok(FoundObject {
            name: shown,
            address,
            bytes,
        })
    }

    fn static_of(&self, path: &str) -> Result<Static> {
        let all = self.statics().map_err(|error| wrong(&error))?;
        let suffix = format!("::{path}");
        let fits = |one: &&Static| one.name == path || one.name.ends_with(&suffix);
        let mut fitting: Vec<&Static> = all.iter().filter(fits).collect();
        fitting.sort_by_key(|one| (one.name != path, one.address));
        fitting.dedup_by_key(|one| one.address);
        match fitting.as_slice() {
            [one] => Ok(Static {
                name: one.name.clone(),
                ..**one
            }),
            [one, ..] if one.name == path => Ok(Static {
                name: one.name.clone(),
                ..**one
            }),
            [] => {
                let last = path.rsplit("::").next().unwrap_or(path).to_lowercase();
                let near = |one: &&Static| one.name.to_lowercase().contains(&last);
                let near: Vec<&str> = all
                    .iter()
                    .filter(near)
                    .map(|one| one.name.as_str())
                    .collect();
                Err(missing("static", path, &near))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
                let problem = format!("{path} is more than one static: {}", names.join(", "));
                Err(Error::Guest(problem))
            }
        }
    }

    /// Every static that has an address.
    fn statics(&self) -> gimli::Result<Vec<Static>> {
        let mut statics = Vec::new();
        for (number, unit) in self.units.iter().enumerate() {
            let mut path: Vec<(isize, String)> = Vec::new();
            let (mut depth, mut entries) = (0, unit.entries());
            while let Some((change, entry)) = entries.next_dfs()? {
                depth += change;
                path.retain(|&(above, _)| above < depth);
                match entry.tag() {
                    gimli::DW_TAG_namespace
                    | gimli::DW_TAG_subprogram
                    | gimli::DW_TAG_structure_type => {
                        let name = self.name(unit, entry)?.unwrap_or_default();
                        path.push((depth, name));
                    }
                    gimli::DW_TAG_variable => {
                        let address = address(unit, entry)?;
                        let (of, name) = (type_of(number, entry, self)?, self.name(unit, entry)?);
                        if let (Some(address), Some(of), Some(name)) = (address, of, name) {
                            let above = path.iter().map(|(_, name)| name.as_str());
                            let words: Vec<&str> = above.chain([name.as_str()]).collect();
                            statics.push(Static {
                                name: words.join("::"),
                                address,
                                of,
                            });
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(statics)
    }

    fn name(&self, unit: &Unit<Slice<'a>>, entry: &Entry<'a, '_>) -> gimli::Result<Option<String>> {
        let Some(value) = entry.attr_value(gimli::DW_AT_name)? else {
            return Ok(None);
        };
        let text = self.dwarf.attr_string(unit, value)?;
        Ok(Some(text.to_string_lossy().into_owned()))
    }

    /// One step from a type to a part of it.
    fn step(&self, of: TypeAt, step: Step<'_>, pick: &mut dyn FnMut(u64) -> u64) -> Result<Member> {
        match step {
            Step::Field(name) => {
                let (found, seen) = self.field(of, name).map_err(|error| wrong(&error))?;
                let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
                found.ok_or_else(|| missing("field", name, &seen))
            }
            Step::Element(number) => {
                let found = self.array(of).map_err(|error| wrong(&error))?;
                let missing = || Error::Guest(format!("{step:?}: there is no array"));
                let (count, offset, element) = found.ok_or_else(missing)?;
                let number = number.unwrap_or_else(|| pick(count));
                if number >= count {
                    let problem = format!("[{number}] of an array of {count}");
                    return Err(Error::Guest(problem));
                }
                let bytes = self.bytes_of(element).map_err(|error| wrong(&error))?;
                Ok(Member {
                    name: format!("[{number}]"),
                    offset: offset + number * bytes,
                    of: element,
                })
            }
        }
    }

    /// A field of a structure, or of one that it holds; and the names that were seen.
    fn field(&self, of: TypeAt, name: &str) -> gimli::Result<(Option<Member>, Vec<String>)> {
        let mut seen = Vec::new();
        let mut left = VecDeque::from([(of, 0, 0)]);
        while let Some((of, offset, depth)) = left.pop_front() {
            for member in self.members(of)? {
                let offset = offset + member.offset;
                if member.name == name {
                    let name = format!(".{name}");
                    let found = Member {
                        name,
                        offset,
                        ..member
                    };
                    return Ok((Some(found), seen));
                }
                if depth < DEPTH_MAX {
                    left.push_back((member.of, offset, depth + 1));
                }
                seen.push(member.name);
            }
        }
        Ok((None, seen))
    }

    /// Count, offset and element type of an array, or of the first that a structure holds.
    fn array(&self, of: TypeAt) -> gimli::Result<Option<(u64, u64, TypeAt)>> {
        let mut left = VecDeque::from([(of, 0, 0)]);
        while let Some((of, offset, depth)) = left.pop_front() {
            if let Some((count, element)) = self.array_of(of)? {
                return Ok(Some((count, offset, element)));
            }
            if depth < DEPTH_MAX {
                let members = self.members(of)?.into_iter();
                left.extend(members.map(|it| (it.of, offset + it.offset, depth + 1)));
            }
        }
        Ok(None)
    }

    fn members(&self, of: TypeAt) -> gimli::Result<Vec<Member>> {
        let unit = &self.units[of.unit];
        let mut members = Vec::new();
        let mut tree = unit.entries_tree(Some(of.offset))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            if entry.tag() != gimli::DW_TAG_member {
                continue;
            }
            let offset = entry.attr_value(gimli::DW_AT_data_member_location)?;
            let offset = offset.and_then(|value| value.udata_value()).unwrap_or(0);
            let name = self.name(unit, entry)?.unwrap_or_default();
            if let Some(of) = type_of(of.unit, entry, self)? {
                members.push(Member { name, offset, of });
            }
        }
        Ok(members)
    }

    /// Elements of an array type, and their type.
    fn array_of(&self, of: TypeAt) -> gimli::Result<Option<(u64, TypeAt)>> {
        let unit = &self.units[of.unit];
        let entry = unit.entry(of.offset)?;
        if entry.tag() != gimli::DW_TAG_array_type {
            return Ok(None);
        }
        let Some(element) = type_of(of.unit, &entry, self)? else {
            return Ok(None);
        };
        let mut tree = unit.entries_tree(Some(of.offset))?;
        let mut children = tree.root()?.children();
        let mut count = 0;
        while let Some(child) = children.next()? {
            let value = child.entry().attr_value(gimli::DW_AT_count)?;
            count = value.and_then(|value| value.udata_value()).unwrap_or(count);
        }
        Ok(Some((count, element)))
    }

    fn bytes_of(&self, of: TypeAt) -> gimli::Result<u64> {
        let unit = &self.units[of.unit];
        let entry = unit.entry(of.offset)?;
        let size = entry.attr_value(gimli::DW_AT_byte_size)?;
        if let Some(bytes) = size.and_then(|value| value.udata_value()) {
            return Ok(bytes);
        }
        if let Some((count, element)) = self.array_of(of)? {
            return Ok(count * self.bytes_of(element)?);
        }
        let pointer = entry.tag() == gimli::DW_TAG_pointer_type;
        Ok(if pointer { 8 } else { 0 })
    }
}

/// The address of a variable that lies at a fixed one.
fn address<'a>(unit: &Unit<Slice<'a>>, entry: &Entry<'a, '_>) -> gimli::Result<Option<u64>> {
    let Some(AttributeValue::Exprloc(expression)) = entry.attr_value(gimli::DW_AT_location)? else {
        return Ok(None);
    };
    let mut evaluation = expression.evaluation(unit.encoding());
    let mut state = evaluation.evaluate()?;
    if let EvaluationResult::RequiresRelocatedAddress(address) = state {
        state = evaluation.resume_with_relocated_address(address)?;
    }
    if state != EvaluationResult::Complete {
        return Ok(None);
    }
    let pieces = evaluation.result();
    Ok(match pieces.as_slice() {
        [
            gimli::Piece {
                location: gimli::Location::Address { address },
                ..
            },
        ] => Some(*address),
        _ => None,
    })
}

/// The type that an entry names, which may lie in another unit.
fn type_of<'a>(
    number: usize,
    entry: &Entry<'a, '_>,
    view: &View<'a>,
) -> gimli::Result<Option<TypeAt>> {
    let in_unit = |at: gimli::DebugInfoOffset| {
        let units = view.units.iter().enumerate();
        let mut places =
            units.filter_map(|(unit, it)| Some((unit, at.to_unit_offset(&it.header)?)));
        places.next().map(|(unit, offset)| TypeAt { unit, offset })
    };
    Ok(match entry.attr_value(gimli::DW_AT_type)? {
        Some(AttributeValue::UnitRef(offset)) => Some(TypeAt {
            unit: number,
            offset,
        }),
        Some(AttributeValue::DebugInfoRef(at)) => in_unit(at),
        _ => None,
    })
}

/// A step from an object to a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step<'a> {
    Field(&'a str),
    /// This element, or any.
    Element(Option<u64>),
}

/// The steps behind a static's name, such as `.queues[2].first`.
fn steps(text: &str) -> Result<Vec<Step<'_>>> {
    let bad = || Error::Guest(format!("\"{text}\" is no list of fields such as .a.b[3]"));
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (number, after) = inside.split_once(']').ok_or_else(bad)?;
            steps.push(Step::Element(match number {
                "*" => None,
                number => Some(number.parse().map_err(|_| bad())?),
            }));
            rest = after;
        } else {
            let inside = rest.strip_prefix('.').ok_or_else(bad)?;
            let end = inside.find(['.', '[']).unwrap_or(inside.len());
            let (name, after) = inside.split_at(end);
            if name.is_empty() {
                return Err(bad());
            }
            steps.push(Step::Field(name));
            rest = after;
        }
    }
    Ok(steps)
}

fn missing(what: &str, name: &str, there_are: &[&str]) -> Error {
    let mut names = there_are.to_vec();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let listed = if names.is_empty() {
        String::new()
    } else {
        format!("; there are {}{tail}", names.join(", "))
    };
    Error::Guest(format!("the kernel has no {what} {name}{listed}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn fields_and_elements_are_told_apart() {
        assert_eq!(
            steps(".queues[2].first[*]").unwrap(),
            [
                Step::Field("queues"),
                Step::Element(Some(2)),
                Step::Field("first"),
                Step::Element(None)
            ]
        );
        assert_eq!(steps("").unwrap(), []);
        for bad in [".", "..a", "[x]", "[1", ".a]", "a"] {
            assert!(steps(bad).is_err() || bad == ".a]", "{bad}");
        }
    }

    #[test]
    fn spoilt_names_are_refused_or_taken_apart() {
        let valid: [&[u8]; 2] = [b".queues[2].first[*]", b"[0].a.b[18446744073709551615]"];
        fuzz::cases(&valid, |bytes| {
            let _ = steps(&String::from_utf8_lossy(bytes));
        });
    }
}
