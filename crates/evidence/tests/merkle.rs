//! The tree against RFC 6962's definitions written out naively, and against known answers.

use plimsoll_evidence::merkle::{
    Hash, Peaks, consistency, empty_root, includes, inclusion, is_consistent, leaf_hash, node_hash,
    root,
};
use proptest::prelude::*;

/// MTH of RFC 6962, section 2.1, word for word.
fn mth(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => empty_root(),
        [one] => leaf_hash(one),
        more => {
            let k = k_of(more.len());
            node_hash(&mth(&more[..k]), &mth(&more[k..]))
        }
    }
}

/// PATH(m, D[n]) of section 2.1.1.
fn path(m: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return vec![];
    }
    let k = k_of(leaves.len());
    if m < k {
        [path(m, &leaves[..k]), vec![mth(&leaves[k..])]].concat()
    } else {
        [path(m - k, &leaves[k..]), vec![mth(&leaves[..k])]].concat()
    }
}

/// SUBPROOF(m, D[n], b) of section 2.1.2.
fn subproof(m: usize, leaves: &[Vec<u8>], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { vec![] } else { vec![mth(leaves)] };
    }
    let k = k_of(leaves.len());
    if m <= k {
        [subproof(m, &leaves[..k], whole), vec![mth(&leaves[k..])]].concat()
    } else {
        [
            subproof(m - k, &leaves[k..], false),
            vec![mth(&leaves[..k])],
        ]
        .concat()
    }
}

fn k_of(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

fn leaves(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|i| format!("leaf {i}").into_bytes()).collect()
}

fn hashes(leaves: &[Vec<u8>]) -> Vec<Hash> {
    leaves.iter().map(|leaf| leaf_hash(leaf)).collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// The eight leaves and roots that Certificate Transparency implementations test with
/// (certificate-transparency-go, `merkletree` test data).
#[test]
fn roots_are_those_of_certificate_transparency() {
    let leaves: Vec<Vec<u8>> = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    .map(hex)
    .to_vec();
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let hashes = hashes(&leaves);
    for (size, expected) in roots.iter().enumerate() {
        let got = root(&hashes[..size], size as u64).unwrap();
        assert_eq!(got.to_vec(), hex(expected), "size {size}");
    }
    // PATH(0, D[8]) and PROOF(1, D[8]) of the same data.
    let proof = inclusion(&hashes[..], 0, 8).unwrap();
    assert_eq!(
        proof[0].to_vec(),
        hex("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7")
    );
    assert_eq!(
        proof[1].to_vec(),
        hex("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e")
    );
    assert_eq!(
        proof[2].to_vec(),
        hex("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4")
    );
    assert_eq!(consistency(&hashes[..], 1, 8).unwrap(), proof);
}

#[test]
fn every_proof_up_to_seventy_leaves_is_the_naive_one_and_verifies() {
    let leaves = leaves(70);
    let hashes = hashes(&leaves);
    let mut peaks = Peaks::default();
    for size in 0..=leaves.len() {
        let whole = mth(&leaves[..size]);
        assert_eq!(root(&hashes[..], size as u64).unwrap(), whole);
        assert_eq!((peaks.root(), peaks.size()), (whole, size as u64));
        for at in 0..size {
            let proof = inclusion(&hashes[..], at as u64, size as u64).unwrap();
            assert_eq!(proof, path(at, &leaves[..size]));
            assert!(includes(
                &hashes[at],
                at as u64,
                size as u64,
                &proof,
                &whole
            ));
        }
        for old in 0..=size {
            let proof = consistency(&hashes[..], old as u64, size as u64).unwrap();
            if old > 0 {
                assert_eq!(proof, subproof(old, &leaves[..size], true));
            }
            assert!(is_consistent(
                old as u64,
                size as u64,
                &proof,
                &mth(&leaves[..old]),
                &whole
            ));
        }
        if let Some(hash) = hashes.get(size) {
            peaks.push(*hash);
        }
    }
}

proptest! {
    #[test]
    fn a_proof_of_something_else_is_refused(
        size in 1usize..300, at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
        bit in 0usize..256, step in any::<prop::sample::Index>(),
    ) {
        let leaves = leaves(size);
        let hashes = hashes(&leaves);
        let (at, other) = (at.index(size), other.index(size));
        let whole = mth(&leaves);
        let mut proof = inclusion(&hashes[..], at as u64, size as u64).unwrap();
        if at != other {
            prop_assert!(!includes(&hashes[other], at as u64, size as u64, &proof, &whole));
            prop_assert!(!includes(&hashes[at], other as u64, size as u64, &proof, &whole));
        }
        prop_assert!(!includes(&hashes[at], size as u64, size as u64, &proof, &whole));
        if !proof.is_empty() {
            let step = step.index(proof.len());
            proof[step][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!includes(&hashes[at], at as u64, size as u64, &proof, &whole));
            proof[step][bit / 8] ^= 1 << (bit % 8);
            proof.pop();
            prop_assert!(!includes(&hashes[at], at as u64, size as u64, &proof, &whole));
        }
    }

    #[test]
    fn a_forked_history_is_never_consistent(
        sizes in (1usize..200, 1usize..200), changed in any::<prop::sample::Index>(),
    ) {
        let (old, new) = (sizes.0.min(sizes.1), sizes.0.max(sizes.1));
        let before = leaves(new);
        let mut after = before.clone();
        after[changed.index(old)] = b"another".to_vec();
        let forked = hashes(&after);
        let proof = consistency(&forked[..], old as u64, new as u64).unwrap();
        prop_assert!(!is_consistent(old as u64, new as u64, &proof, &mth(&before[..old]), &mth(&after)));
        prop_assert!(is_consistent(old as u64, new as u64, &proof, &mth(&after[..old]), &mth(&after)));
    }
}
