//! What a disk says of itself (virtio 1.2, section 5.2.4), checked.

use super::BlockOptions;
use crate::control::Control;
use crate::error::ProbeError;
use fata_device::Geometry;

/// Feature bits (section 5.2.3).
pub(crate) mod feature {
    pub(crate) const SIZE_MAX: u64 = 1 << 1;
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    pub(crate) const RO: u64 = 1 << 5;
    pub(crate) const BLK_SIZE: u64 = 1 << 6;
    pub(crate) const FLUSH: u64 = 1 << 9;
    pub(crate) const DISCARD: u64 = 1 << 13;
}

/// What the driver knows how to use.
pub(super) const WANTED: u64 = feature::SIZE_MAX
    | feature::SEG_MAX
    | feature::RO
    | feature::BLK_SIZE
    | feature::FLUSH
    | feature::DISCARD;

/// The unit of all sector numbers that go to the device, whatever its block size.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A larger block than this no disk has; a page of it per request would not be a sector any more.
const BLOCK_BYTES_MAX: u32 = 65536;

/// More segments than this in a request would only make it longer than `piece_bytes_max`, or leave
/// the queue without descriptors for other requests.
const SEGMENTS_MAX: u16 = 16;

/// Offsets of the configuration's fields.
mod field {
    pub(super) const CAPACITY: usize = 0;
    pub(super) const SIZE_MAX: usize = 8;
    pub(super) const SEG_MAX: usize = 12;
    pub(super) const BLK_SIZE: usize = 20;
    pub(super) const MAX_DISCARD_SECTORS: usize = 36;
    pub(super) const MAX_DISCARD_SEG: usize = 40;
}

/// What a single request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The longest piece of a read or write, in bytes: a multiple of the disk's sector.
    pub(super) piece_bytes_max: u32,
    /// The longest segment of a piece, in bytes. `segments_max` of them hold a piece.
    pub(super) segment_bytes_max: u32,
    /// How many segments a piece may have.
    pub(super) segments_max: u16,
    /// The longest piece of a discard, in sectors of 512 bytes.
    pub(super) discard_sectors_max: u32,
    /// There is something to flush.
    pub(super) can_flush: bool,
}

pub(super) fn read(
    control: &Control,
    options: &BlockOptions,
) -> Result<(Geometry, Limits), ProbeError> {
    let bad = |what: String| Err(ProbeError::BadConfiguration(what));
    let needed = if control.has(feature::DISCARD) {
        field::MAX_DISCARD_SEG + 4
    } else if control.has(feature::BLK_SIZE) {
        field::BLK_SIZE + 4
    } else if control.has(feature::SEG_MAX | feature::SIZE_MAX) {
        field::SEG_MAX + 4
    } else {
        field::CAPACITY + 8
    };
    if control.config_len() < needed {
        return bad(format!("it has only {} bytes of {needed}", control.config_len()));
    }
    let raw = control.read_config(|config| {
        // Section 4.1.3.1: 64-bit fields may be read as two halves.
        let low = u64::from(config.read_u32(field::CAPACITY));
        let high = u64::from(config.read_u32(field::CAPACITY + 4));
        let if_has = |feature, offset| control.has(feature).then(|| config.read_u32(offset));
        Raw {
            capacity: low | high << 32,
            size_max: if_has(feature::SIZE_MAX, field::SIZE_MAX),
            seg_max: if_has(feature::SEG_MAX, field::SEG_MAX),
            blk_size: if_has(feature::BLK_SIZE, field::BLK_SIZE),
            max_discard_sectors: if_has(feature::DISCARD, field::MAX_DISCARD_SECTORS),
            max_discard_seg: if_has(feature::DISCARD, field::MAX_DISCARD_SEG),
        }
    })?;
    let (mut geometry, limits) = raw.check(options).or_else(bad)?;
    geometry.read_only = control.has(feature::RO);
    Ok((geometry, Limits { can_flush: control.has(feature::FLUSH), ..limits }))
}

/// The fields as the device gave them; `None` without their feature.
#[derive(Clone, Copy, Debug, Default)]
struct Raw {
    capacity: u64,
    size_max: Option<u32>,
    seg_max: Option<u32>,
    blk_size: Option<u32>,
    max_discard_sectors: Option<u32>,
    max_discard_seg: Option<u32>,
}

impl Raw {
    fn check(self, options: &BlockOptions) -> Result<(Geometry, Limits), String> {
        let sector_bytes = self.blk_size.unwrap_or(SECTOR_BYTES as u32);
        if !sector_bytes.is_power_of_two() || !(512..=BLOCK_BYTES_MAX).contains(&sector_bytes) {
            return Err(format!("a block size of {sector_bytes} bytes"));
        }
        if self.capacity.checked_mul(SECTOR_BYTES).is_none() {
            return Err(format!("a capacity of {} sectors", self.capacity));
        }
        // Pieces are whole sectors, and so are segments, which is simpler than what is allowed.
        let whole = |bytes: u32| bytes - bytes % sector_bytes;
        let piece_bytes_max = whole(options.piece_bytes_max).max(sector_bytes);
        let (segment_bytes_max, segments_max) = match self.size_max {
            // Memory is contiguous, so one segment holds any piece.
            None => (piece_bytes_max, 1),
            Some(size_max) => {
                let segment = whole(size_max).min(piece_bytes_max);
                if segment == 0 {
                    return Err(format!("segments of at most {size_max} bytes"));
                }
                let most = self.seg_max.unwrap_or(1).clamp(1, u32::from(SEGMENTS_MAX)) as u16;
                (segment, most)
            }
        };
        let piece_bytes_max =
            piece_bytes_max.min(segment_bytes_max.saturating_mul(u32::from(segments_max)));
        let segments_max = piece_bytes_max.div_ceil(segment_bytes_max) as u16;

        // A discard that takes no sectors or no segments is none.
        let per_block = sector_bytes / SECTOR_BYTES as u32;
        let discard_sectors_max = self.max_discard_sectors.unwrap_or(0);
        let discard_sectors_max = discard_sectors_max - discard_sectors_max % per_block;
        let discard = discard_sectors_max > 0 && self.max_discard_seg.unwrap_or(0) > 0;
        let geometry = Geometry {
            sector_bytes: sector_bytes as usize,
            sector_count: self.capacity / u64::from(per_block),
            read_only: false,
            discard,
        };
        let limits = Limits {
            piece_bytes_max,
            segment_bytes_max,
            segments_max,
            discard_sectors_max,
            can_flush: false,
        };
        Ok((geometry, limits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_disk_has_sectors_of_512_bytes_and_whole_pieces() {
        let raw = Raw { capacity: 100, ..Raw::default() };
        let (geometry, limits) = raw.check(&BlockOptions::default()).unwrap();
        assert_eq!((geometry.sector_bytes, geometry.sector_count), (512, 100));
        assert!(!geometry.discard);
        assert_eq!((limits.piece_bytes_max, limits.segments_max), (8 << 20, 1));
    }

    #[test]
    fn a_last_block_that_is_not_whole_is_not_used() {
        let raw = Raw { capacity: 17, blk_size: Some(4096), ..Raw::default() };
        assert_eq!(raw.check(&BlockOptions::default()).unwrap().0.sector_count, 2);
    }

    #[test]
    fn nonsense_is_named() {
        let told = |raw: Raw| raw.check(&BlockOptions::default()).unwrap_err();
        let blk_size = |size| Raw { blk_size: Some(size), ..Raw::default() };
        assert_eq!(told(blk_size(0)), "a block size of 0 bytes");
        assert_eq!(told(blk_size(1000)), "a block size of 1000 bytes");
        assert_eq!(told(blk_size(1 << 31)), "a block size of 2147483648 bytes");
        assert!(told(Raw { capacity: u64::MAX, ..Raw::default() }).contains("capacity"));
        let tiny = Raw { size_max: Some(100), ..Raw::default() };
        assert_eq!(told(tiny), "segments of at most 100 bytes");
    }

    proptest! {
        #[test]
        fn whatever_a_disk_says_requests_fit(
            capacity: u64,
            size_max: Option<u32>,
            seg_max: Option<u32>,
            blk_size in prop::option::of((0u32..20).prop_map(|power| 1 << power)),
            max_discard_sectors: Option<u32>,
            max_discard_seg: Option<u32>,
            piece_bytes_max: u32,
        ) {
            let raw = Raw {
                capacity, size_max, seg_max, blk_size, max_discard_sectors, max_discard_seg,
            };
            let options = BlockOptions { piece_bytes_max, ..BlockOptions::default() };
            if let Ok((geometry, limits)) = raw.check(&options) {
                let sector = geometry.sector_bytes as u32;
                prop_assert!(limits.piece_bytes_max >= sector);
                prop_assert_eq!(limits.piece_bytes_max % sector, 0);
                prop_assert!(limits.segments_max >= 1);
                let room = u64::from(limits.segment_bytes_max) * u64::from(limits.segments_max);
                prop_assert!(u64::from(limits.piece_bytes_max) <= room);
                if let Some(size_max) = size_max {
                    prop_assert!(limits.segment_bytes_max <= size_max);
                    prop_assert!(u32::from(limits.segments_max) <= seg_max.unwrap_or(1).max(1));
                }
                prop_assert!(geometry.sector_count.checked_mul(u64::from(sector)).is_some());
                if geometry.discard {
                    prop_assert!(limits.discard_sectors_max >= sector / 512);
                }
            }
        }
    }
}
