//! What an archive's codes mean: Failure Reason (0008,1197) and Warning Reason (0008,1196) of a STOW-RS answer (PS3.18 tables
//! 10.5.3-2 and I.2-2; DIMSE status codes of PS3.4 annex B.2.3 and PS3.7 annex C).

/// The instance is there already: SOP Instance UID is a duplicate (PS3.7 C.5.6).
pub const DUPLICATE: u16 = 0x0111;

/// A code for people: `C122: the transfer syntax is not supported`.
pub fn describe(code: u16) -> String {
    let text = match code {
        0xA700..=0xA7FF => "the archive is out of resources",
        0xA900..=0xA9FF => "the data set does not match its SOP class",
        0xB000 => "data elements were coerced",
        0xB006 => "elements were discarded",
        0xB007 => "the data set does not match its SOP class",
        0xC122 => "the transfer syntax is not supported",
        0xC000..=0xCFFF => "the archive cannot understand the object",
        0x0110 => "the archive failed in processing it",
        DUPLICATE => "an instance with this UID is there already",
        0x0112 => "no such instance",
        0x0117 => "the instance's UID is not valid",
        0x0119 => "class and instance contradict each other",
        0x0122 => "the SOP class is not supported",
        0x0124 => "not authorised",
        0x0213 => "the archive's resources are limited",
        _ => "a reason that the standard does not list",
    };
    format!("{code:04X}: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_range_mean_the_same_but_for_those_with_a_meaning_of_their_own() {
        assert_eq!(describe(0xA7FF), "A7FF: the archive is out of resources");
        assert_eq!(describe(0xC122), "C122: the transfer syntax is not supported");
        assert_eq!(describe(0xC123), "C123: the archive cannot understand the object");
        assert_eq!(describe(0x0122), "0122: the SOP class is not supported");
        assert_eq!(describe(1), "0001: a reason that the standard does not list");
    }
}
