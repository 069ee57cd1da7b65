// A cache of shapes and the samples of it: its index, a zero byte, and a shard,
// "a.safetensors".

#include <algorithm>
#include <cmath>

#include "models/data/shape_dataset.h"
#include "models/shape/shape_cache.h"
#include "runtime/core/log.h"
#include "tests/fuzz/input.h"

namespace trireme {
namespace {

// The largest of numbers that people give.
constexpr int64_t kMostTokens = 4096;

bool AllFinite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(),
                     [](float value) { return std::isfinite(value); });
}

void ReadAll(const ShapeDatasetOptions& options) {
  const auto dataset = OpenShapeDataset(options);
  if (!dataset.ok()) return;
  for (int64_t i = 0; i < (*dataset)->size(); ++i) {
    const auto sample = (*dataset)->Read(i);
    if (!sample.ok()) continue;
    // What would spoil a model, or reach beyond a table of it.
    for (const auto* values :
         {&sample->token_set, &sample->surface_points, &sample->surface_normals,
          &sample->near_distances, &sample->uniform_distances}) {
      CHECK(AllFinite(*values));
    }
    CHECK(sample->class_id < (*dataset)->num_classes() ||
          (*dataset)->num_classes() == 0);
    if (!options.sequences.has_value()) continue;
    for (const int32_t token : sample->mesh_tokens) {
      CHECK(token >= 0 && token <= options.sequences->format.end());
    }
  }
}

}  // namespace
}  // namespace trireme

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  const std::string_view input = TextOf(data, size);
  const size_t zero = std::min(input.find('\0'), input.size());
  folder.Write("index.json", input.substr(0, zero));
  folder.Write("a.safetensors", input.substr(std::min(zero + 1, input.size())));
  const auto cache = ShapeCache::Open(folder.path());
  if (!cache.ok()) return 0;
  for (int64_t i = 0; i < cache->size(); ++i) (void)cache->Read(i);
  const ShapeDatasetOptions plain{.folder = folder.path()};
  ShapeDatasetOptions mosaics = plain, volumes = plain, voxels = plain,
                      meshes = plain;
  mosaics.grids = cache->mosaic_grids();
  mosaics.resolution = cache->mosaic_resolution();
  volumes.volume = {.cells = cache->volume_cells()};
  voxels.voxels = {.cells = cache->volume_cells(), .most_tokens = kMostTokens};
  meshes.sequences = {.format = {}, .most_tokens = kMostTokens};
  for (const auto& options : {plain, mosaics, volumes, voxels, meshes}) {
    ReadAll(options);
  }
  return 0;
}
