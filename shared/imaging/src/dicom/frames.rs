//! Fragments of encapsulated Pixel Data to frames (PS3.5 A.4).

use crate::Fault;

/// One code stream per frame, from the basic offset table and the fragments behind it.
pub(super) fn split(fragments: &[&[u8]], frames: usize) -> Result<Vec<Vec<u8>>, Fault> {
    let (table, fragments) = match fragments {
        [table, fragments @ ..] if !fragments.is_empty() => (*table, fragments),
        _ => return Err(missing(frames, 0)),
    };
    if frames == 1 {
        return Ok(vec![fragments.concat()]);
    }
    if fragments.len() == frames {
        return Ok(fragments.iter().map(|fragment| fragment.to_vec()).collect());
    }
    if fragments.len() < frames {
        return Err(missing(frames, fragments.len()));
    }
    let starts =
        if table.len() == frames * 4 { starts_by_table(table, fragments)? } else { starts_by_marker(fragments) };
    if starts.len() != frames || starts.first() != Some(&0) {
        return Err(Fault::Malformed(format!(
            "{} fragments cannot be assigned to {frames} frames (no usable offset table, {} frame starts found)",
            fragments.len(),
            starts.len()
        )));
    }
    let ends = starts.iter().skip(1).copied().chain([fragments.len()]);
    Ok(starts.iter().zip(ends).map(|(&start, end)| fragments[start..end].concat()).collect())
}

fn missing(frames: usize, there: usize) -> Fault {
    Fault::Truncated {
        what: format!("the pixel data of {frames} frames (in fragments of at least 1 byte)"),
        declared: frames as u64,
        available: there as u64,
    }
}

/// Indices of the fragments that the offset table points to.
fn starts_by_table(table: &[u8], fragments: &[&[u8]]) -> Result<Vec<usize>, Fault> {
    let mut offsets = Vec::with_capacity(fragments.len());
    let mut offset = 0u64;
    for fragment in fragments {
        offsets.push(offset);
        offset += fragment.len() as u64 + 8;
    }
    let starts: Option<Vec<usize>> = table
        .chunks_exact(4)
        .map(|b| offsets.binary_search(&u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).ok())
        .collect();
    starts
        .filter(|starts| starts.windows(2).all(|pair| pair[0] < pair[1]))
        .ok_or_else(|| Fault::Malformed("the basic offset table does not point at fragments".into()))
}

/// What code streams begin with: JPEG and JPEG-LS (SOI), JPEG 2000 (SOC), JPEG XL, bare and in its container.
const STARTS: [&[u8]; 4] =
    [&[0xFF, 0xD8, 0xFF], &[0xFF, 0x4F, 0xFF, 0x51], &[0xFF, 0x0A], &[0, 0, 0, 0x0C, b'J', b'X', b'L', b' ']];

/// Indices of the fragments that begin a code stream.
fn starts_by_marker(fragments: &[&[u8]]) -> Vec<usize> {
    let begins = |fragment: &&[u8]| STARTS.iter().any(|start| fragment.starts_with(start));
    fragments.iter().enumerate().filter(|(_, fragment)| begins(fragment)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_several_fragments_follow_the_offset_table() {
        let table: Vec<u8> = [0u32, 20].iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let frames = split(&[&table, &[1, 1], &[2, 2], &[3, 3], &[4, 4]], 2).unwrap();
        assert_eq!(frames, vec![vec![1, 1, 2, 2], vec![3, 3, 4, 4]]);
    }

    #[test]
    fn frames_without_an_offset_table_follow_their_markers() {
        let (start, rest): (&[u8], &[u8]) = (&[0xFF, 0xD8, 0xFF, 0xC0], &[7, 7]);
        let frames = split(&[&[], start, rest, rest, start], 2).unwrap();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [8, 4]);
    }

    #[test]
    fn missing_and_ambiguous_fragments_are_refused() {
        assert!(matches!(split(&[&[], &[1, 2]], 2), Err(Fault::Truncated { .. })));
        assert!(matches!(split(&[&[]], 1), Err(Fault::Truncated { .. })));
        assert!(matches!(split(&[&[], &[1], &[2], &[3]], 2), Err(Fault::Malformed(_))));
        assert!(matches!(split(&[&[0, 0, 0, 0, 5, 0, 0, 0], &[1], &[2], &[3]], 2), Err(Fault::Malformed(_))));
    }
}
