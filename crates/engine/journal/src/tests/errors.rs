//! What is said when something goes wrong: what was found, where, and what to do.

use crate::{Error, Position, PushError, PushRefused, Refused, Side};

#[test]
fn errors_name_what_was_found_where_and_what_to_do() {
    let what = "the page's checksum is wrong";
    let cases = [
        (
            Error::SectorSize { sector_bytes: 520 },
            "the disk has sectors of 520 bytes; a ring needs a power of two from 512 to 65536",
        ),
        (
            Error::PageSize { page_bytes: 512, sector_bytes: 4_096 },
            "pages of 512 bytes do not fit a disk with sectors of 4096: choose a power of two from \
             that to 65536",
        ),
        (
            Error::TooSmall { needed: 6, found: 5 },
            "the disk has 5 sectors, and the ring needs 6: enlarge it",
        ),
        (
            Error::Foreign { sector: 2, found: *b"\x53\xefNTFS          " },
            "sector 2 holds something that is no ring (\"S\\xefNTFS          \"…): create the ring \
             with Existing::Replace if it may be lost",
        ),
        (Error::Blank, "the disk holds no ring: create one"),
        (
            Error::Future { found: 3, known: 2 },
            "the ring has version 3 of the format, and this program knows 2 and older: use a newer \
             program",
        ),
        (Error::Corrupt { sector: 7, what }, "sector 7 is corrupt: the page's checksum is wrong"),
        (
            Error::Misbehaved { side: Side::Producer, sector: 1, what: "its position went back" },
            "the producer's header in sector 1 cannot be right: its position went back",
        ),
        (
            Error::Usurped { side: Side::Consumer, sector: 3 },
            "the consumer's header in sector 3 was written by somebody else: a ring has one \
             consumer",
        ),
        (Error::Exhausted, "the ring's positions are used up: create a new ring"),
        (Error::Disk("it is gone".into()), "the disk failed: it is gone"),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn refusals_say_what_stands_in_the_way() {
    let cases = [
        (Refused::Busy, "a command is under way"),
        (Refused::NotAttached, "not attached to a ring"),
        (Refused::Attached, "attached to a ring already"),
        (Refused::Nothing, "there is nothing to publish"),
        (Refused::Unpublished, "items were pushed and are not published"),
        (Refused::NotPopped, "items were fetched and are not popped"),
        (Refused::Suspended, "the consumer has suspended the ring"),
        (
            Refused::NotAcknowledged,
            "the producer has not acknowledged the last suspension or resumption",
        ),
        (Refused::NotPassed, "no item that was popped ends there"),
    ];
    for (refused, text) in cases {
        assert_eq!(refused.to_string(), text);
    }
    let full = PushError::RingFull { consume_to: Position(512) };
    let cases = [
        (PushRefused::NotStarted, "the journal has not started yet"),
        (
            PushRefused::Stopped(Error::Blank),
            "the journal has stopped: the disk holds no ring: create one",
        ),
        (PushRefused::Ring(PushError::NotAttached), "not attached to a ring"),
        (PushRefused::Ring(PushError::TooLarge { max: 9 }), "an item has at most 9 bytes"),
        (PushRefused::Ring(PushError::BatchFull), "what was pushed must be published first"),
        (PushRefused::Ring(full), "the ring is full until it is consumed to 512"),
        (PushRefused::Ring(PushError::Suspended), "the consumer has suspended the ring"),
        (PushRefused::Ring(PushError::Exhausted), "the ring's positions are used up"),
    ];
    for (refused, text) in cases {
        assert_eq!(refused.to_string(), text);
    }
}
