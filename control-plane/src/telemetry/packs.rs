//! The spellings of the engines and exporters that are known, as data.

mod dcgm;
mod llamacpp;
mod sglang;
mod tgi;
mod triton;
mod trtllm;
mod vllm;

pub use dcgm::DCGM;
pub use llamacpp::LLAMACPP;
pub use sglang::SGLANG;
pub use tgi::TGI;
pub use triton::TRITON;
pub use trtllm::TRTLLM;
pub use vllm::VLLM;

use super::alias::AliasPack;

/// All engines, in the order in which one is taken when a page fits several equally well.
pub const ENGINES: [&AliasPack; 6] = [&VLLM, &SGLANG, &TRTLLM, &TGI, &TRITON, &LLAMACPP];
