//! Response: the order of things is decided by `plimsoll_respond`, and driven here.

pub mod act;
