//! Proofs over a store, for readers: roots, inclusion, consistency, and what was signed.
//!
//! A proof is checked before it is handed out. Tiles are asked first; when what they say does not
//! verify, the leaves are.

use crate::checkpoint::{Certificate, Checkpoint, KeyChain};
use crate::error::ReadError;
use crate::merkle::{self, Hash};
use crate::note::PublicKey;
use crate::reader::Reader;
use crate::record::Leaf;
use crate::tiles::{Hashes, Prefer};
use crate::tlog::{self, Signers};

impl Reader {
    /// Root of the first `size` leaves as they are now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn root_at(&self, size: u64) -> Result<Hash, ReadError> {
        merkle::root(&Hashes::new(self, size, Prefer::Leaves), size)
    }

    /// Proof that `leaf` is under the tree of `size` leaves with this `root`.
    ///
    /// # Errors
    /// When neither tiles nor leaves give that root, or the disk refuses.
    pub fn inclusion_proof(
        &self,
        leaf: Leaf,
        size: u64,
        root: &Hash,
    ) -> Result<Vec<Hash>, ReadError> {
        if leaf.0 >= size {
            return Err(ReadError::NoProof { size });
        }
        for prefer in [Prefer::Tiles, Prefer::Leaves] {
            let hashes = Hashes::new(self, size, prefer);
            let proof = merkle::inclusion(&hashes, leaf.0, size)?;
            let own = merkle::Nodes::node(&hashes, 0, leaf.0)?;
            if merkle::includes(&own, leaf.0, size, &proof, root) {
                return Ok(proof);
            }
        }
        Err(ReadError::NoProof { size })
    }

    /// Inclusion proofs for many leaves of one tree, in their order.
    ///
    /// # Errors
    /// As [`Self::inclusion_proof`].
    pub fn inclusion_proofs(
        &self,
        leaves: &[Leaf],
        size: u64,
        root: &Hash,
    ) -> Result<Vec<Vec<Hash>>, ReadError> {
        let hashes = Hashes::new(self, size, Prefer::Tiles);
        let prove = |leaf: &Leaf| {
            if leaf.0 < size {
                let proof = merkle::inclusion(&hashes, leaf.0, size)?;
                let own = merkle::Nodes::node(&hashes, 0, leaf.0)?;
                if merkle::includes(&own, leaf.0, size, &proof, root) {
                    return Ok(proof);
                }
            }
            self.inclusion_proof(*leaf, size, root)
        };
        leaves.iter().map(prove).collect()
    }

    /// Proof that the tree of `new` leaves continues the tree of `old`.
    ///
    /// # Errors
    /// When neither tiles nor leaves give these roots, or the disk refuses.
    pub fn consistency_proof(
        &self,
        old: &Checkpoint,
        new: &Checkpoint,
    ) -> Result<Vec<Hash>, ReadError> {
        for prefer in [Prefer::Tiles, Prefer::Leaves] {
            let hashes = Hashes::new(self, new.size, prefer);
            let proof = merkle::consistency(&hashes, old.size, new.size)?;
            if merkle::is_consistent(old.size, new.size, &proof, &old.root, &new.root) {
                return Ok(proof);
            }
        }
        Err(ReadError::NoProof { size: new.size })
    }

    /// The certificates of this store's keys, in the order in which they were made.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn certificates(&self) -> Result<Vec<Certificate>, ReadError> {
        let (disk, _) = self.tlog();
        let found = tlog::read_last(&**disk, self.tlog_paths())?;
        Ok(found
            .certificates
            .iter()
            .filter_map(|c| Certificate::parse(&c.bytes))
            .collect())
    }

    /// The newest checkpoint that the store's own keys signed, and its note.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn newest_checkpoint(&self) -> Result<Option<(Checkpoint, Vec<u8>)>, ReadError> {
        let (disk, _) = self.tlog();
        Ok(tlog::newest(&tlog::read_last(&**disk, self.tlog_paths())?))
    }

    /// Every checkpoint in the history that a key of the chain from `root` signed, by size.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn checkpoints(&self, root: Option<&PublicKey>) -> Result<Vec<Checkpoint>, ReadError> {
        let (disk, _) = self.tlog();
        let found = tlog::read(&**disk, self.tlog_paths())?;
        let certificates = found
            .certificates
            .iter()
            .filter_map(|c| Certificate::parse(&c.bytes));
        let chain = KeyChain::follow(certificates, root);
        let signers = Signers::of(&chain);
        let notes = found.history.iter().chain(&found.latest);
        let mut all: Vec<Checkpoint> = notes
            .filter_map(|n| Some(signers.checkpoint(&n.bytes)?.0))
            .collect();
        all.sort_by_key(|checkpoint| (checkpoint.size, checkpoint.wall_ns));
        all.dedup();
        Ok(all)
    }
}
