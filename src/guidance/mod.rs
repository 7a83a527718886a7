//! Embeddings to [`Condition`](crate::condition::Condition): fusion, mixing, hybrid guidance, the prior, and
//! classifier-free guidance (paper sections 3.1 to 3.4).

pub mod classifier_free;
pub mod fusion;
pub mod ip_adapter;
pub mod mixing;
pub mod prior;
