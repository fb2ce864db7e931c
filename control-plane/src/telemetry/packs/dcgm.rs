use crate::telemetry::alias::{Alias, AliasPack};
use crate::telemetry::field::Field;

/// NVIDIA's DCGM exporter. MIG slices have no utilisation gauge, but the profiling one.
pub const DCGM: AliasPack = AliasPack {
    name: "dcgm",
    aliases: &[
        Alias::value("DCGM_FI_DEV_GPU_UTIL", Field::GpuUtilisation).scaled(0.01),
        Alias::value("DCGM_FI_PROF_GR_ENGINE_ACTIVE", Field::GpuUtilisation).or(1),
    ],
    promises: &[],
};
