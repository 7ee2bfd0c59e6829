use super::*;

const FIRST: u64 = 2 * LIST_LEAVES[1];
const LEAVES: Range<u64> = FIRST..FIRST + LIST_LEAVES[1];
const ALL: (i64, i64) = (i64::MIN, i64::MAX);

/// Every thousandth bears key 1 and one of its own and is copied, every thousandth and seventh 1 and 2.
fn lists(leaves: Range<u64>) -> LeafLists {
    let mut made = LeafLists::new(leaves.start);
    for leaf in leaves {
        let n = leaf - FIRST;
        let keys = match n % 1000 {
            0 => vec![1, n + 10],
            7 => vec![1, 2],
            _ => vec![],
        };
        made.add(leaf, Some((n as i64, 3)), &keys);
        if n.is_multiple_of(1000) {
            made.copy(&Copied {
                leaf,
                wall: n as i64,
                kind: 9,
                content: &n.to_le_bytes(),
            });
        }
    }
    made
}

fn file() -> Vec<u8> {
    lists(LEAVES).encode(LEAVES.end, &[9; 32])
}

fn open(bytes: Vec<u8>) -> Option<LeafFile> {
    LeafFile::open(LEAVES, Ranged::Memory(bytes))
}

#[test]
fn every_leaf_of_a_key_is_found_and_none_beside() {
    let file = open(file()).unwrap();
    let of = |keys: &[u64]| file.find(keys, ALL.0, ALL.1).unwrap();
    let those =
        |test: fn(u64) -> bool| -> Vec<u64> { LEAVES.filter(|leaf| test(leaf - FIRST)).collect() };
    assert_eq!(of(&[2]), those(|n| n % 1000 == 7));
    assert_eq!(of(&[5010]), [FIRST + 5000]);
    assert_eq!(of(&[5001]), [0; 0]);
    assert_eq!(of(&[1, 2]), those(|n| [0, 7].contains(&(n % 1000))));
    let late = file.find(&[2], 15_000, 16_100).unwrap();
    assert!(late.contains(&(FIRST + 15_007)) && late.contains(&(FIRST + 16_007)));
    assert!(!late.contains(&(FIRST + 1007)), "other times are left out");
    assert!(file.touches(60_000, 90_000) && !file.touches(65_536, 90_000));
    assert!(file.has_kind(3, &LEAVES) && !file.has_kind(4, &LEAVES));
    assert_eq!((file.leaves(), file.anchor()), (LEAVES, &[9; 32]));
    let is = |leaf| file.is_between(FIRST + leaf, 4096, 10_000);
    assert_eq!(
        (is(10), is(4096), is(9000)),
        (Some(false), Some(true), None)
    );
}

#[test]
fn a_leaf_that_cannot_be_read_may_be_of_any_kind_and_time() {
    let mut made = LeafLists::new(0);
    made.add(5, None, &[8]);
    let file = made.in_memory(700).unwrap();
    assert!(file.has_kind(40, &(0..700)));
    assert_eq!(file.find(&[8], 77, 77), Some(vec![5]));
    assert_eq!(file.is_between(5, 70, 80), None);
}

#[test]
fn no_flipped_bit_and_no_cut_hides_a_leaf() {
    let bytes = file();
    let whole = open(bytes.clone()).unwrap();
    let wanted = whole.find(&[1], ALL.0, ALL.1);
    let of = |bytes: Vec<u8>| open(bytes)?.find(&[1], ALL.0, ALL.1);
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        let found = of(bad);
        assert!(found.is_none() || found == wanted, "byte {at}");
    }
    for cut in (0..bytes.len()).step_by(7) {
        let found = of(bytes[..cut].to_vec());
        assert!(found.is_none() || found == wanted, "{cut} bytes");
    }
    let elsewhere = LeafFile::open(0..LIST_LEAVES[1], Ranged::Memory(bytes));
    assert!(elsewhere.is_none(), "of other leaves");
}

/// Sixteen files of 4,096 leaves each, in a directory.
fn pieces(dir: &Path) -> LeafIndex {
    let mut index = LeafIndex::open(dir).unwrap();
    let mut writer = index.write().unwrap().unwrap();
    for first in LEAVES.step_by(LIST_LEAVES[0] as usize) {
        let end = first + LIST_LEAVES[0];
        writer.put(&lists(first..end), end, &[9; 32]).unwrap();
    }
    drop(writer);
    index
}

fn names(dir: &Path) -> Vec<String> {
    let items = std::fs::read_dir(dir.join(DIR)).unwrap().flatten();
    let mut names: Vec<String> = items
        .map(|i| i.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn sixteen_files_become_the_one_that_would_have_been_made_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = pieces(dir.path());
    assert_eq!(index.files().count(), 16);
    std::fs::write(
        dir.path().join(DIR).join("00000000000000131072.idx"),
        b"old",
    )
    .unwrap();
    index.write().unwrap().unwrap().merge().unwrap();
    assert_eq!(index.files().collect::<Vec<_>>(), [LEAVES]);
    let name = name_of(&LEAVES);
    assert_eq!(names(dir.path()).len(), 1, "{:?}", names(dir.path()));
    assert!(std::fs::read(dir.path().join(&name)).unwrap() == file());
    // parts that a crash left beside it are passed over, and removed
    let part = FIRST..FIRST + LIST_LEAVES[0];
    std::fs::write(dir.path().join(name_of(&part)), b"part").unwrap();
    let mut index = LeafIndex::open(dir.path()).unwrap();
    assert_eq!(index.files().collect::<Vec<_>>(), [LEAVES]);
    index.write().unwrap().unwrap().merge().unwrap();
    assert_eq!(names(dir.path()).len(), 1);
    assert_eq!(
        index.read(FIRST).unwrap().find(&[5010], ALL.0, ALL.1),
        Some(vec![FIRST + 5000])
    );
}

#[test]
fn a_damaged_part_is_not_merged_but_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = pieces(dir.path());
    let part = FIRST + 3 * LIST_LEAVES[0]..FIRST + 4 * LIST_LEAVES[0];
    let path = dir.path().join(name_of(&part));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    index.write().unwrap().unwrap().merge().unwrap();
    assert_eq!(index.files().count(), 15);
    assert!(index.files().all(|f| f != part));
    let mut writer = index.write().unwrap().unwrap();
    writer
        .put(&lists(part.clone()), part.end, &[9; 32])
        .unwrap();
    writer.merge().unwrap();
    assert_eq!(index.files().collect::<Vec<_>>(), [LEAVES]);
}

/// Leaf, wall clock, kind and content.
type Copy = (u64, i64, u16, Vec<u8>);
fn copied(file: &LeafFile) -> Option<Vec<Copy>> {
    let copies = file.copies()?;
    let all = copies.iter();
    Some(
        all.map(|c| (c.leaf, c.wall, c.kind, c.content.to_vec()))
            .collect(),
    )
}

#[test]
fn what_was_copied_comes_back_as_it_was_or_not_at_all() {
    let bytes = file();
    let whole = copied(&open(bytes.clone()).unwrap()).unwrap();
    assert_eq!(whole.len(), 66);
    assert_eq!(
        whole[1],
        (FIRST + 1000, 1000, 9, 1000_u64.to_le_bytes().to_vec())
    );
    let begin = open(bytes.clone()).unwrap().lists_end as usize;
    for at in begin..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        let found = open(bad).and_then(|file| copied(&file));
        assert_eq!(found, None, "byte {at}");
    }
}

#[test]
fn copies_that_are_too_many_are_none_and_stay_none() {
    let mut made = lists(LEAVES);
    let content = vec![7; copies::COPIES_MAX / 3];
    for leaf in [1, 2, 3] {
        let leaf = LEAVES.end - leaf;
        made.copy(&Copied {
            leaf,
            wall: 0,
            kind: 9,
            content: &content,
        });
    }
    let file = made.in_memory(LEAVES.end).unwrap();
    assert!(!file.has_copies() && copied(&file).is_none());
    assert_eq!(file.find(&[5010], ALL.0, ALL.1), Some(vec![FIRST + 5000]));
    let part = |all: bool| match all {
        true => Some(vec![1; copies::COPIES_MAX / 2]),
        false => None,
    };
    assert!(copies::joined(&[part(true), part(true)]).is_some());
    assert!(copies::joined(&[part(true), part(false)]).is_none());
    assert!(copies::joined(&[part(true), part(true), Some(vec![1])]).is_none());
}
