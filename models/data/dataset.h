// Where samples come from: IDX files, image folders, WebDataset shards, caches
// of shapes.

#ifndef TRIREME_MODELS_DATA_DATASET_H_
#define TRIREME_MODELS_DATA_DATASET_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/buckets.h"
#include "models/image/image.h"
#include "models/shape/camera.h"
#include "runtime/core/philox.h"

namespace trireme {

struct Sample {
  Image image;
  int class_id = -1;  // −1 = no class
  std::string caption;
  // Names the sample within its data set (a file's stem), for messages and
  // for shards.
  std::string key;
  // Precomputed text states [text_count, text_width]; empty without text.
  std::vector<float> text_tokens;
  int text_count = 0;
  int text_width = 0;
  // Precomputed states of a language model's layers, as many tokens each, one
  // layer after the other [text_layer_count, text_layer_width]; empty without.
  std::vector<float> text_layers;
  int text_layer_count = 0;
  int text_layer_width = 0;
  // One precomputed vector for the whole text; empty without.
  std::vector<float> text_pooled;
  // In the place of the picture: the Gaussian of which its latents are drawn
  // (models/data/latents.h), as models learn them, [channels, height, width].
  struct Latents {
    PictureSize size;
    std::vector<float> mean;
    std::vector<float> deviation;
  };
  Latents latents;
  // Of a shape, in the place of the picture: as several cameras see it
  // (models/shape/view_channels.h), of `side` pixels each.
  struct Views {
    std::vector<CameraPlace> cameras;
    int side = 0;
    std::vector<float> channels;
  };
  Views views;
  // Keys what is drawn anew each time that the sample is read: its latents.
  // Absent: they are their mean.
  std::optional<RandomKey> draw;
  // Of a shape: the tokens of its mosaic, one after another
  // (models/shape/mosaic_tokens.h), and points [n, 3] on its surface.
  std::vector<float> token_set;
  std::vector<float> surface_points;
  // Where those tokens lie [n, 3], if they have places of their own
  // (models/shape/voxel_tokens.h); there are as many tokens.
  std::vector<int32_t> voxels;
  std::vector<int32_t> voxel_kinds;  // [n]: VoxelKind, where it is known
  // The outward unit normals of those points [n, 3], and points with their
  // signed distances [.., 4], near the surface and anywhere.
  std::vector<float> surface_normals;
  std::vector<float> near_distances;
  std::vector<float> uniform_distances;
  // Its mesh as a sequence of tokens (models/mesh_tokens/mesh_tokens.h), the
  // end included.
  std::vector<int32_t> mesh_tokens;
};

// What of a sample to read beside its key and class.
struct SampleParts {
  bool image = false;  // or latents, or views
  bool text = false;   // text_tokens and their sizes, text_pooled
  bool caption = false;
  bool text_layers = false;
  bool token_set = false;
  bool surface_points = false;
  bool distances = false;  // surface_normals and both kinds of distances
  bool mesh_tokens = false;
  bool voxels = false;
};
inline constexpr SampleParts kWholeSample = {true, true, true, true, true,
                                             true, true, true, true};

// A finite, ordered set of samples. Immutable once opened; every method may be
// called by several threads at once.
class Dataset {
 public:
  virtual ~Dataset() = default;

  // At least 1.
  virtual int64_t size() const = 0;
  // 0 where samples have no class.
  virtual int64_t num_classes() const = 0;
  virtual std::string class_name(int64_t class_id) const = 0;

  // A checksum of what names the samples and of their order, the same wherever
  // the data set is the same. 0 where samples have no names.
  virtual uint64_t IndexHash() const { return 0; }

  // Reads and decodes those parts of sample `index`; files of others are not
  // opened. An error concerns this sample alone and names its file: whoever
  // asked may go on with others.
  virtual absl::StatusOr<Sample> ReadParts(int64_t index,
                                           const SampleParts& parts) const = 0;
  // The height and width of sample `index` (of its latents, where it has those
  // in the place of a picture), from as little of its file as may be. Errors:
  // as ReadParts.
  virtual absl::StatusOr<PictureSize> ReadSize(int64_t index) const;
  // Those of all samples, in order, by several threads; of files that have not
  // changed since without opening them again, where that can be.
  virtual std::vector<absl::StatusOr<PictureSize>> ReadSizes() const;
  // The sizes at which samples are read, and which sample at which; null: all
  // at one.
  virtual const Buckets* buckets() const { return nullptr; }
  absl::StatusOr<Sample> Read(int64_t index) const {
    return ReadParts(index, kWholeSample);
  }
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_DATASET_H_
