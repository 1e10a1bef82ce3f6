//! Proportional rate reduction (RFC 9937): how the window gets down to its threshold in the course
//! of a recovery. For each byte that arrives, a fitting fraction of one leaves; neither a pause nor
//! a burst.

/// One recovery. Sizes are bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reduction {
    /// prr_delivered: arrived since it began.
    delivered: u32,
    /// prr_out: sent since it began.
    sent: u32,
    /// RecoverFS: in flight when it began.
    flight: u32,
}

impl Reduction {
    /// A recovery begins with `flight` bytes in flight, those not counted that had arrived before.
    pub(crate) fn new(flight: u32) -> Self {
        Reduction { delivered: 0, sent: 0, flight: flight.max(1) }
    }

    /// Bytes were sent.
    pub(crate) fn on_sent(&mut self, bytes: u32) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// The window after an ACK by which `delivered` bytes have arrived and `in_flight` still are on
    /// their way (RFC 9937 §6.2). `is_safe`: it acknowledges something new and tells of no further
    /// loss.
    pub(crate) fn on_ack(
        &mut self,
        delivered: u32,
        in_flight: u32,
        threshold: u32,
        mss: u32,
        is_safe: bool,
    ) -> u32 {
        self.delivered = self.delivered.saturating_add(delivered);
        let mut count = if in_flight > threshold {
            let share = u64::from(self.delivered) * u64::from(threshold);
            let share = share.div_ceil(u64::from(self.flight)).min(u32::MAX.into()) as u32;
            share.saturating_sub(self.sent)
        } else {
            let mut count = self.delivered.saturating_sub(self.sent).max(delivered);
            if is_safe {
                count = count.saturating_add(mss);
            }
            count.min(threshold - in_flight)
        };
        if self.sent == 0 && count < mss {
            // The first retransmission goes at once.
            count = mss;
        }
        in_flight.saturating_add(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// packetdrill `fast_recovery`: 1 of 20 lost, threshold 14: fewer leave than arrive until so many
    /// are in flight, then as many.
    #[test]
    fn sends_in_proportion_to_what_arrives() {
        let mut reduction = Reduction::new(20 * MSS);
        let mut in_flight = 16 * MSS;
        let mut sent = 0;
        for _ in 0..17 {
            let window = reduction.on_ack(MSS, in_flight, 14 * MSS, MSS, false);
            // Whole segments leave.
            while in_flight + MSS <= window {
                in_flight += MSS;
                reduction.on_sent(MSS);
                sent += 1;
            }
            in_flight -= MSS;
        }
        assert_eq!((sent, in_flight), (14, 13 * MSS));
    }

    #[test]
    fn catches_up_by_no_more_than_arrives_and_one_if_all_is_well() {
        let mut reduction = Reduction::new(20 * MSS);
        assert_eq!(reduction.on_ack(MSS, 2 * MSS, 10 * MSS, MSS, false), 3 * MSS);
        reduction.on_sent(MSS);
        assert_eq!(reduction.on_ack(MSS, 2 * MSS, 10 * MSS, MSS, true), 4 * MSS);
        // Never above the threshold.
        assert_eq!(reduction.on_ack(30 * MSS, 9 * MSS, 10 * MSS, MSS, true), 10 * MSS);
    }

    #[test]
    fn extreme_sizes_do_not_overflow() {
        let mut reduction = Reduction::new(0);
        for _ in 0..3 {
            reduction.on_sent(u32::MAX);
            reduction.on_ack(u32::MAX, u32::MAX, u32::MAX, u32::MAX, true);
            reduction.on_ack(u32::MAX, 0, u32::MAX, u32::MAX, true);
        }
    }
}
