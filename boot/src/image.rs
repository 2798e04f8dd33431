//! Reads the kernel's ELF file: which bytes go where in a cell.
//!
//! Any file is refused with a reason, or described by [`Segment`]s whose bytes exist; nothing here
//! trusts an offset.

use cell::address::PAGE_SIZE;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use firewall::monitor::LoadError;

/// The lowest virtual address of a kernel image.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// The most that an image may span; the loader sets aside page tables for it.
pub const IMAGE_SPAN_MAX: u64 = 16 << 20;

/// A loadable segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// Offset from [`IMAGE_BASE`], a multiple of [`PAGE_SIZE`].
    pub offset: u64,
    /// The bytes from the file; zeroes follow up to `span`.
    pub bytes: &'a [u8],
    /// Bytes in memory.
    pub span: u64,
    /// Whether the segment may be written.
    pub is_writable: bool,
    /// Whether the segment holds code.
    pub is_executable: bool,
}

/// A kernel image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    file: &'a [u8],
    /// The virtual address to enter.
    pub entry: u64,
    /// Bytes from [`IMAGE_BASE`] to the end of the last segment, in whole pages.
    pub span: u64,
}

impl<'a> Image<'a> {
    /// Checks the whole file.
    ///
    /// # Errors
    /// [`LoadError::BadImage`] with the reason.
    pub fn new(file: &'a [u8]) -> Result<Self, LoadError> {
        let elf = parse(file)?;
        let header = elf.ehdr;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 || header.e_type != ET_EXEC
        {
            return Err(LoadError::BadImage(
                "not an executable for x86-64 at fixed addresses",
            ));
        }
        let mut image = Self {
            file,
            entry: header.e_entry,
            span: 0,
        };
        for segment in image.parsed_segments()? {
            let segment = segment?;
            image.span = image.span.max(segment.offset + segment.span);
        }
        image.span = image.span.next_multiple_of(PAGE_SIZE);
        let inside = image
            .entry
            .checked_sub(IMAGE_BASE)
            .is_some_and(|it| it < image.span);
        if !inside {
            return Err(LoadError::BadImage("the entry point is outside the image"));
        }
        Ok(image)
    }

    /// The loadable segments.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        // `new` has been through all of them.
        self.parsed_segments().into_iter().flatten().flatten()
    }

    fn parsed_segments(
        &self,
    ) -> Result<impl Iterator<Item = Result<Segment<'a>, LoadError>> + use<'a>, LoadError> {
        let elf = parse(self.file)?;
        let headers = elf
            .segments()
            .ok_or(LoadError::BadImage("no program headers"))?;
        let file = self.file;
        Ok(headers
            .iter()
            .filter(|program| program.p_type == PT_LOAD)
            .map(move |program| segment(&program, file)))
    }
}

fn parse(file: &[u8]) -> Result<ElfBytes<'_, LittleEndian>, LoadError> {
    ElfBytes::minimal_parse(file).map_err(|_| LoadError::BadImage("not a little-endian ELF file"))
}

fn segment<'a>(program: &ProgramHeader, file: &'a [u8]) -> Result<Segment<'a>, LoadError> {
    let bad = |what| Err(LoadError::BadImage(what));
    let Some(offset) = program.p_vaddr.checked_sub(IMAGE_BASE) else {
        return bad("a segment lies below the image base");
    };
    if !offset.is_multiple_of(PAGE_SIZE) {
        return bad("a segment does not start on a page");
    }
    let span = program.p_memsz;
    if offset
        .checked_add(span)
        .is_none_or(|end| end > IMAGE_SPAN_MAX)
    {
        return bad("the image spans more than 16 MiB");
    }
    let bytes = program
        .p_offset
        .checked_add(program.p_filesz)
        .and_then(|end| file.get(program.p_offset as usize..end as usize));
    let Some(bytes) = bytes else {
        return bad("a segment's bytes are outside the file");
    };
    if bytes.len() as u64 > span {
        return bad("a segment is longer in the file than in memory");
    }
    let flags = program.p_flags;
    Ok(Segment {
        offset,
        bytes,
        span,
        is_writable: flags & PF_W != 0,
        is_executable: flags & PF_X != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one segment of 3 bytes in a span of 0x1800, entry at its start.
    fn file() -> Vec<u8> {
        let mut file = vec![0u8; 0x1003];
        file[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &2u16.to_le_bytes());
        put(18, &62u16.to_le_bytes());
        put(20, &1u32.to_le_bytes());
        put(24, &IMAGE_BASE.to_le_bytes());
        put(32, &64u64.to_le_bytes());
        put(52, &64u16.to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(56, &1u16.to_le_bytes());
        put(64, &1u32.to_le_bytes());
        put(68, &5u32.to_le_bytes());
        put(72, &0x1000u64.to_le_bytes());
        put(80, &IMAGE_BASE.to_le_bytes());
        put(96, &3u64.to_le_bytes());
        put(104, &0x1800u64.to_le_bytes());
        put(0x1000, b"abc");
        file
    }

    fn reason(file: &[u8]) -> &'static str {
        match Image::new(file) {
            Err(LoadError::BadImage(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_file_is_described() {
        let file = file();
        let image = Image::new(&file).expect("good");
        assert_eq!(image.span, 0x2000);
        let segments: Vec<_> = image.segments().collect();
        assert_eq!(segments[0].bytes, b"abc");
        assert!(segments[0].is_executable && !segments[0].is_writable);
    }

    #[test]
    fn bad_files_are_refused_with_the_reason() {
        assert_eq!(reason(b""), "not a little-endian ELF file");
        let mut low = file();
        low[80..88].copy_from_slice(&0x1000u64.to_le_bytes());
        assert_eq!(reason(&low), "a segment lies below the image base");
        let mut short = file();
        short.truncate(0x1002);
        assert_eq!(reason(&short), "a segment's bytes are outside the file");
        let mut entry = file();
        entry[24..32].copy_from_slice(&0u64.to_le_bytes());
        assert_eq!(reason(&entry), "the entry point is outside the image");
    }

    #[test]
    fn no_truncation_and_no_flipped_byte_panics() {
        let file = file();
        for length in 0..0x80 {
            let _ = Image::new(&file[..length]);
        }
        for at in 0..120 {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[at] ^= 1 << bit;
                let _ = Image::new(&flipped).map(|image| image.segments().count());
            }
        }
    }

    #[test]
    fn spoilt_files_are_refused_or_described_in_bounds() {
        // Two segments, so that there is an order and an overlap to spoil.
        let mut two = file();
        let first = two[64..120].to_vec();
        two[56] = 2;
        two[120..176].copy_from_slice(&first);
        two[136..144].copy_from_slice(&(IMAGE_BASE + 0x2000).to_le_bytes());
        // The gap between headers and bytes is of no interest.
        let short = |mut file: Vec<u8>| {
            file.drain(0xc0..0x1000);
            for at in [72, 128] {
                file[at..at + 8].copy_from_slice(&0xc0u64.to_le_bytes());
            }
            file
        };
        fuzz::cases(&[&short(file()), &short(two)], |bytes| {
            let Ok(image) = Image::new(bytes) else {
                return;
            };
            assert!(image.span <= IMAGE_SPAN_MAX && image.span.is_multiple_of(PAGE_SIZE));
            assert!((IMAGE_BASE..IMAGE_BASE + image.span).contains(&image.entry));
            for segment in image.segments() {
                assert!(segment.bytes.len() as u64 <= segment.span);
                assert!(segment.offset + segment.span <= image.span);
                assert!(segment.offset.is_multiple_of(PAGE_SIZE));
            }
        });
    }
}
