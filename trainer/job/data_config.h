// A job's data, as people write it: its defaults, and what samples look like.

#ifndef TRIREME_TRAINER_JOB_DATA_CONFIG_H_
#define TRIREME_TRAINER_JOB_DATA_CONFIG_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "models/data/latents.h"
#include "models/data_format.h"
#include "models/mesh_tokens/mesh_tokens.h"
#include "models/shape/volume_tokens.h"
#include "models/shape/voxel_tokens.h"
#include "trainer/job/job.pb.h"

namespace trireme {

// The sizes of data.buckets, of data that FillData has passed; empty without.
std::vector<PictureSize> SizesOf(const Data& data);

// Sets what is absent, of latents what they say of themselves. Errors name the
// field: no source, what contradicts it, numbers out of range.
absl::Status FillData(Data& data);

// The latents that samples are, of data that FillData has passed; of 0
// channels where they are something else.
LatentFormat LatentFormatOf(const Data& data);

// The volumes that samples are; of 0 cells where they are something else.
VolumeShape VolumeShapeOf(const Shapes& shapes);

// The voxels that samples are; of 0 cells where they are something else.
VoxelShape VoxelShapeOf(const Shapes& shapes);

// The tokens of meshes, of sequences that FillData has passed.
MeshTokenFormat MeshFormatOf(const MeshSequences& sequences);

// What samples are like, of data that FillData has passed.
DataFormat DataFormatOf(const Data& data, int64_t classes);

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_DATA_CONFIG_H_
