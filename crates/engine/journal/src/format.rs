//! What lies where on the disk, in both formats, and what is possible.
//!
//! A ring is made of pages: what its ends write and what a loss of power may tear. In
//! [`v1`] a page is a sector. In [`v2`] it is as large as whoever made the ring said: at least a
//! sector, and best as large as what the disk writes at once inside, because a disk that shows
//! sectors of 512 bytes and writes 4,096 can tear eight of them.
//!
//! A position counts the bytes of data pages, their headers included, since the ring was made. So
//! its page is `position / page_bytes`, and lies at that number modulo the count of pages.

pub(crate) mod v1;
pub(crate) mod v2;

use crate::{Disk, Error, Request, Side};

/// A format of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// Dave Scott's of 2015, "mirage shared-block-device 1.0".
    V1,
    /// Ours.
    V2,
}

/// What one end says to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// One more with each header that an end writes. Always 0 in [`Version::V1`].
    pub(crate) generation: u64,
    /// What has been published, or consumed, up to here.
    pub(crate) position: u64,
    /// The consumer wants the producer to write nothing; the producer writes nothing.
    pub(crate) is_suspended: bool,
}

/// What both ends say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) producer: Header,
    pub(crate) consumer: Header,
    /// Places of headers with something unreadable in them, as a write leaves that was cut off.
    pub(crate) damaged: u32,
}

impl Headers {
    pub(crate) fn of(&self, side: Side) -> Header {
        match side {
            Side::Producer => self.producer,
            Side::Consumer => self.consumer,
        }
    }

    pub(crate) fn of_mut(&mut self, side: Side) -> &mut Header {
        match side {
            Side::Producer => &mut self.producer,
            Side::Consumer => &mut self.consumer,
        }
    }
}

/// Where everything of a ring lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) version: Version,
    /// A power of two, and a whole number of sectors.
    pub(crate) page_bytes: usize,
    /// Data pages; at least 1. The headers and these lie on the disk.
    pub(crate) page_count: u64,
    /// Tells this ring's pages from those of others that were on the disk before. 0 in V1.
    pub(crate) identity: u64,
    sector_bytes: usize,
}

impl Layout {
    /// The layout of a ring that fills `disk`, with pages of `page_bytes`.
    pub(crate) fn filling(
        disk: Disk,
        version: Version,
        page_bytes: usize,
        identity: u64,
    ) -> Result<Layout, Error> {
        check_disk(disk)?;
        let sector_bytes = disk.sector_bytes;
        if !page_bytes.is_power_of_two()
            || page_bytes < sector_bytes
            || page_bytes > v2::PAGE_BYTES_MAX
        {
            return Err(Error::PageSize { page_bytes, sector_bytes });
        }
        let sectors_per_page = (page_bytes / sector_bytes) as u64;
        let header_pages = header_pages(version);
        match (disk.sector_count / sectors_per_page).checked_sub(header_pages) {
            None | Some(0) => Err(Error::TooSmall {
                needed: (header_pages + 1) * sectors_per_page,
                found: disk.sector_count,
            }),
            Some(page_count) => {
                Ok(Layout { version, page_bytes, page_count, identity, sector_bytes })
            }
        }
    }

    /// The layout of the ring whose sector 0 this is.
    pub(crate) fn decode(disk: Disk, sector: &[u8]) -> Result<Layout, Error> {
        check_disk(disk)?;
        if sector.starts_with(v1::MAGIC) {
            return Layout::filling(disk, Version::V1, disk.sector_bytes, 0);
        }
        let ring = v2::decode_ring(sector)?;
        let mut layout = Layout::filling(disk, Version::V2, ring.page_bytes, ring.identity)?;
        if layout.page_count < ring.page_count {
            let pages = ring.page_count.saturating_add(v2::HEADER_PAGES);
            return Err(Error::TooSmall {
                needed: pages.saturating_mul(layout.sectors_per_page()),
                found: disk.sector_count,
            });
        }
        // A disk that has grown does not change where the ring's end is.
        layout.page_count = ring.page_count;
        Ok(layout)
    }

    /// Bytes at the head of each data page that belong to the format.
    pub(crate) fn page_header_bytes(&self) -> usize {
        match self.version {
            Version::V1 => 0,
            Version::V2 => v2::PAGE_HEADER_BYTES,
        }
    }

    /// Bytes of a sector of the disk.
    pub(crate) fn sector_bytes(&self) -> usize {
        self.sector_bytes
    }

    fn sectors_per_page(&self) -> u64 {
        (self.page_bytes / self.sector_bytes) as u64
    }

    /// The first sector of a data page.
    pub(crate) fn sector_of(&self, page: u64) -> u64 {
        (header_pages(self.version) + page % self.page_count) * self.sectors_per_page()
    }

    /// How many pages from `page` on lie one after the other on the disk, and are no more than
    /// `count`.
    pub(crate) fn contiguous(&self, page: u64, count: u64) -> u64 {
        count.min(self.page_count - page % self.page_count)
    }

    /// Reads that many data pages, which must be contiguous.
    pub(crate) fn read_pages(&self, page: u64, count: u64) -> Request {
        let count = (count * self.sectors_per_page()) as usize;
        Request::Read { sector: self.sector_of(page), count }
    }

    /// The page that a position lies in.
    pub(crate) fn page_of(&self, position: u64) -> u64 {
        position / self.page_bytes as u64
    }

    /// The first page that lies wholly behind a position.
    pub(crate) fn page_after(&self, position: u64) -> u64 {
        position.div_ceil(self.page_bytes as u64)
    }

    /// Where in its page a position lies.
    pub(crate) fn offset_of(&self, position: u64) -> usize {
        (position % self.page_bytes as u64) as usize
    }

    /// Where the stream is when `bytes` more have passed; `None` behind the last position.
    pub(crate) fn advance(&self, position: u64, bytes: u64) -> Option<u64> {
        let page_bytes = self.page_bytes as u64;
        let header = self.page_header_bytes() as u64;
        // In a page's first place its header has not been passed yet.
        let passed = (position % page_bytes).saturating_sub(header).checked_add(bytes)?;
        let pages = passed / (page_bytes - header);
        let offset = match passed % (page_bytes - header) {
            0 => 0,
            rest => header + rest,
        };
        let page = self.page_of(position).checked_add(pages)?;
        let end = page.checked_mul(page_bytes)?.checked_add(offset)?;
        (end <= self.position_max()).then_some(end)
    }

    /// What the producer's header says when the last item ends at `end`: in V2 the next publication
    /// begins on a page of its own, so that writing it cannot harm what was acknowledged. `None`
    /// behind the last position.
    pub(crate) fn published(&self, end: u64) -> Option<u64> {
        match self.version {
            Version::V1 => Some(end),
            Version::V2 => self.page_after(end).checked_mul(self.page_bytes as u64),
        }
    }

    /// V1's positions are signed for its OCaml ends.
    fn position_max(&self) -> u64 {
        match self.version {
            Version::V1 => i64::MAX as u64,
            Version::V2 => u64::MAX,
        }
    }

    /// Bytes of the longest payload that fits sooner or later, wherever in its page it begins.
    pub(crate) fn payload_bytes_max(&self) -> u64 {
        match self.version {
            // It may begin with the last four bytes of a page, and that page is not free again.
            Version::V1 => (self.page_count - 1).saturating_mul(self.page_bytes as u64),
            Version::V2 => {
                let page_bytes = self.page_bytes - v2::PAGE_HEADER_BYTES;
                self.page_count.saturating_mul(page_bytes as u64) - ITEM_HEADER_BYTES as u64
            }
        }
    }

    /// Reads both ends' headers.
    pub(crate) fn read_headers(&self) -> Request {
        let count = (header_pages(self.version) - 1) * self.sectors_per_page();
        Request::Read { sector: self.sectors_per_page(), count: count as usize }
    }

    /// What was read so.
    pub(crate) fn decode_headers(&self, bytes: &[u8]) -> Result<Headers, Error> {
        match self.version {
            Version::V1 => v1::decode_headers(self, bytes),
            Version::V2 => v2::decode_headers(self, bytes),
        }
    }

    /// Writes an end's header.
    pub(crate) fn write_header(&self, side: Side, header: Header) -> Request {
        let mut data = vec![0; self.page_bytes];
        match self.version {
            Version::V1 => v1::encode_header(&mut data, side, header),
            Version::V2 => v2::encode_header(&mut data, side, header, self.identity),
        }
        Request::Write { sector: self.sector_of_header(side, header.generation), data }
    }

    /// The first sector of an end's header of this generation.
    pub(crate) fn sector_of_header(&self, side: Side, generation: u64) -> u64 {
        let page = match (self.version, side) {
            (Version::V1, Side::Producer) => v1::PRODUCER_SECTOR,
            (Version::V1, Side::Consumer) => v1::CONSUMER_SECTOR,
            (Version::V2, side) => v2::header_page(side, generation),
        };
        page * self.sectors_per_page()
    }

    /// The header after this one, if it differs; `None` when generations are used up.
    pub(crate) fn next_generation(&self, header: Header) -> Option<u64> {
        match self.version {
            Version::V1 => Some(0),
            Version::V2 => header.generation.checked_add(1),
        }
    }

    /// Refuses headers that cannot be of one ring. Where only their difference is wrong, it is
    /// `blamed` who lies.
    pub(crate) fn check(&self, headers: &Headers, blamed: Side) -> Result<(), Error> {
        let wrong = |side: Side, what| {
            let sector = self.sector_of_header(side, headers.of(side).generation);
            Err(Error::Misbehaved { side, sector, what })
        };
        for side in [Side::Producer, Side::Consumer] {
            let (position, offset) =
                (headers.of(side).position, self.offset_of(headers.of(side).position));
            if position > self.position_max() {
                return wrong(side, "its position is larger than any");
            }
            let can_be_inside = match (self.version, side) {
                (Version::V1, _) => true,
                (Version::V2, Side::Producer) => false,
                (Version::V2, Side::Consumer) => offset >= v2::PAGE_HEADER_BYTES,
            };
            if offset != 0 && !(can_be_inside && offset.is_multiple_of(ITEM_ALIGNMENT)) {
                return wrong(side, "no item can begin at its position");
            }
        }
        let (producer, consumer) = (headers.producer.position, headers.consumer.position);
        if consumer > producer {
            return wrong(blamed, "more was consumed than published");
        }
        let is_too_much = match self.version {
            // The ends of 2015 share the page in which the ring begins and ends.
            Version::V1 => u128::from(producer - consumer) > self.capacity_bytes(),
            Version::V2 => self.page_of(producer) - self.page_of(consumer) > self.page_count,
        };
        if is_too_much {
            return wrong(blamed, "more is published than the ring can hold");
        }
        Ok(())
    }

    fn capacity_bytes(&self) -> u128 {
        u128::from(self.page_count) * self.page_bytes as u128
    }

    /// Completes data pages: `bytes` are whole pages from `page` on, of which `used` are in use.
    pub(crate) fn seal(&self, page: u64, bytes: &mut [u8], used: usize) {
        if self.version == Version::V2 {
            for (index, chunk) in bytes.chunks_exact_mut(self.page_bytes).enumerate() {
                let used = (used - index * self.page_bytes).min(self.page_bytes);
                v2::seal(chunk, page + index as u64, used, self.identity);
            }
        }
    }

    /// How many bytes of a data page are in use; what is wrong with it otherwise.
    pub(crate) fn open(&self, page: u64, bytes: &[u8]) -> Result<usize, &'static str> {
        match self.version {
            Version::V1 => Ok(bytes.len()),
            Version::V2 => v2::open(bytes, page, self.identity),
        }
    }
}

/// Bytes of an item's length.
pub(crate) const ITEM_HEADER_BYTES: usize = 4;

/// Items begin at multiples of this, so that a length never crosses pages.
pub(crate) const ITEM_ALIGNMENT: usize = 4;

/// Bytes that an item with this payload takes, its padding included.
pub(crate) fn item_bytes(payload_bytes: usize) -> u64 {
    (payload_bytes as u64 + ITEM_HEADER_BYTES as u64).next_multiple_of(ITEM_ALIGNMENT as u64)
}

/// Pages before the first one of data.
pub(crate) fn header_pages(version: Version) -> u64 {
    match version {
        Version::V1 => v1::HEADER_SECTORS,
        Version::V2 => v2::HEADER_PAGES,
    }
}

fn check_disk(disk: Disk) -> Result<(), Error> {
    let sector_bytes = disk.sector_bytes;
    if !sector_bytes.is_power_of_two() || !(512..=v2::PAGE_BYTES_MAX).contains(&sector_bytes) {
        return Err(Error::SectorSize { sector_bytes });
    }
    Ok(())
}

/// A number of N bytes in little-endian order, which lies inside `bytes`.
pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[offset..offset + N]);
    value
}
